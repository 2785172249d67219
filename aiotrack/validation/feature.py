"""Checks what bodies return, and tells retry middlewares what an error means."""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any

from aiotrack.classes import HOPELESS
from aiotrack.feature import Feature
from aiotrack.labels import RETRY_DELAY, is_false
from aiotrack.validation.retries import refuse, space

if TYPE_CHECKING:
    from taskiq import AsyncBroker

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
        self._broker: AsyncBroker | None = None
        self._checks: dict[str, tuple[object, Check | None]] = {}

    def serve(self, broker: AsyncBroker) -> None:
        """Meet the tasks: what is wrong with them is said at the worker's start."""
        self._broker = broker
        tasks = broker.get_all_tasks()
        for name, task in tasks.items():
            if _is_asked(task.labels.get(LABEL)):
                self._check_of(name)
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
        told = run.labels.get(LABEL)
        if told is None:  # a message that was sent by the task's name alone has none of its labels
            task = None if self._broker is None else self._broker.find_task(run.name)
            told = None if task is None else task.labels.get(LABEL)
        if _is_asked(told):
            run.check = self._check_of(run.name)

    def on_return(self, run: Run, value: Any) -> None:
        """Refuse a result that is not what was promised.

        Raises:
            InvalidResult: It does not fit.
        """
        if run.check is None or (run.skipped is not None and value is run.skipped):
            return
        if inspect.isawaitable(value):
            log.warning("the result of %s is not checked: it is awaited after its body", run.name)
            return
        run.check(value)

    def on_raise(self, run: Run, error: BaseException) -> None:
        """Set the labels that retry middlewares read."""
        found = run.error_class or self.tracker.classes.of(error)
        if found in HOPELESS:
            refuse(run.labels)
        else:
            space(run.labels, run.attempt)

    def _check_of(self, task_name: str) -> Check | None:
        """Give what checks a task's results; made once, with a warning where there is nothing."""
        task = None if self._broker is None else self._broker.find_task(task_name)
        if task is None:
            return None
        known = self._checks.get(task_name)
        if known is not None and known[0] is task:
            return known[1]
        from aiotrack.validation.results import check_of  # pydantic's adapters take time to load

        # A validator does not travel: labels are sent as text.
        check = check_of(task_name, task.original_func, task.labels.get(LABEL, True))
        self._checks[task_name] = (task, check)
        return check


def _is_asked(label: object) -> bool:
    return label is not None and not is_false(label)
