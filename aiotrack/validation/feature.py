"""Checks what bodies return, and tells retry middlewares what an error means."""

from __future__ import annotations

import functools
import inspect
import logging
from typing import TYPE_CHECKING, Any

from aiotrack.classes import HOPELESS
from aiotrack.feature import Feature
from aiotrack.labels import RETRY_DELAY, is_false
from aiotrack.validation.retries import refuse, space

if TYPE_CHECKING:
    from taskiq import AsyncBroker, AsyncTaskiqDecoratedTask

    from aiotrack.core import Core
    from aiotrack.current import Run
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.validation.results import Check

log = logging.getLogger(__name__)

LABEL = "validate_result"


class Validation(Feature):
    """Results against annotations, and errors against retries."""

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        super().__init__(tracker, core)
        self._checks: dict[str, tuple[object, Check | None]] = {}

    def serve(self, broker: AsyncBroker) -> None:
        """Meet the tasks: what is wrong with them is said at the worker's start."""
        tasks = broker.get_all_tasks()
        for name, task in tasks.items():
            told = task.labels.get(LABEL)
            if told is not None and not is_false(told):
                self._check_of(name, task)
        asking = [name for name, task in tasks.items() if RETRY_DELAY in task.labels]
        names = [type(middleware).__name__.lower() for middleware in broker.middlewares]
        if asking and not any("retry" in name for name in names):
            log.warning(
                "%s will not be retried: the broker has no retry middleware "
                "(add taskiq.SmartRetryMiddleware or SimpleRetryMiddleware)",
                ", ".join(sorted(asking)),
            )

    def on_begin(self, run: Run) -> None:
        """Find out what its result has to pass."""
        if run.task is None:
            return
        told = run.labels.get(LABEL)
        if told is None:  # a message that was sent by the task's name alone has none of its labels
            told = run.task.labels.get(LABEL)
        if told is not None and not is_false(told):
            run.check = self._check_of(run.name, run.task)

    def on_raise(self, run: Run, error: BaseException) -> None:
        """Set the labels that retry middlewares read."""
        found = run.error_class or self.tracker.classes.of(error)
        if found in HOPELESS:
            refuse(run.labels)
        else:
            space(run.labels, run.attempt)

    def _check_of(self, task_name: str, task: AsyncTaskiqDecoratedTask[Any, Any]) -> Check | None:
        """Give what checks a task's results; made once, with a warning where there is nothing."""
        known = self._checks.get(task_name)
        if known is not None and known[0] is task:
            return known[1]
        from aiotrack.validation.results import check_of  # pydantic's adapters take time to load

        # A validator does not travel: labels are sent as text.
        rule = task.labels.get(LABEL, True)
        check = check_of(task_name, task.original_func, rule, self.tracker.encoder)
        judge = None if check is None else functools.partial(_judge, task_name, check)
        self._checks[task_name] = (task, judge)
        return judge


def _judge(task_name: str, check: Check, value: Any) -> None:
    """Refuse a result that is not what was promised.

    Raises:
        InvalidResult: It does not fit.
    """
    if inspect.isawaitable(value):
        log.warning("the result of %s is not checked: it is awaited after its body", task_name)
    else:
        check(value)
