"""TaskIQ's own `ProgressTracker`: what it tells the result backend goes into the record, too.

It knows no hook and no event; the one place that all of it passes is ``set_progress`` of the
broker's result backend, so that is listened to, on this one object, never on its class.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from taskiq.depends.progress_tracker import TaskState

from aiotrack.current import CURRENT
from aiotrack.progress import progress_values

if TYPE_CHECKING:
    from taskiq import AsyncBroker
    from taskiq.depends.progress_tracker import TaskProgress

    from aiotrack.encode import Encoder

log = logging.getLogger(__name__)

META = "progress_meta"
"""Where meta goes that is no mapping."""

_STATES = frozenset(state.value for state in TaskState)
_complained: set[type[BaseException]] = set()


def follow(broker: AsyncBroker) -> None:
    """Listen to the progress that tasks tell the broker's result backend. Harmless when repeated.

    The backend gets what it got before, at the same time; it is not asked anything.
    """
    backend: Any = broker.result_backend
    tell = backend.set_progress
    if hasattr(tell, "aiotrack"):
        return

    @functools.wraps(tell)
    async def set_progress(task_id: str, progress: TaskProgress[Any], **more: Any) -> Any:
        _note(task_id, progress)
        return await tell(task_id, progress, **more)

    try:
        vars(set_progress)["aiotrack"] = True
        backend.set_progress = set_progress
    except AttributeError as error:  # an object with slots
        _complain(error)


def _note(task_id: str, progress: TaskProgress[Any]) -> None:
    try:
        run = CURRENT.get()
        while run is not None:  # two trackers may follow one broker
            if run.message_id == task_id and not run.is_over:
                tracker = run.tracker
                tracker.note(run, values_of(progress, tracker.encoder, tracker.count_nonsense))
            run = run.outer
    except Exception as error:
        _complain(error)


def _complain(error: Exception) -> None:
    if type(error) not in _complained:
        _complained.add(type(error))
        log.error("aiotrack does not see the progress of TaskIQ's ProgressTracker: %r", error)


def values_of(
    progress: TaskProgress[Any], encoder: Encoder, nonsense: Callable[[], None]
) -> dict[str, Any]:
    """Give the metadata of one call: a mapping counts like the keywords of `Tracker.progress`.

    The state is the step, unless it is one of TaskIQ's own, which the record tells better.
    """
    meta = progress.meta
    if meta is not None and not isinstance(meta, Mapping):
        meta = json.loads(encoder.encode(meta).text)  # a model or a dataclass becomes one
    if meta is None:
        told = {}
    elif isinstance(meta, Mapping):
        told = {str(key): value for key, value in meta.items()}
    else:
        told = {META: meta}

    def taken(name: str) -> Any:
        short, long = told.pop(name, None), told.pop(f"progress_{name}", None)
        return long if short is None else short

    percent, message, step = taken("percent"), taken("message"), taken("step")
    current = total = None
    if percent is None and told.get("total") is not None:
        current, total = told.pop("current", None), told.pop("total", None)
    if step is None and (state := str(getattr(progress.state, "value", progress.state))):
        step = None if state in _STATES else state
    return progress_values(percent, message, step, current, total, told, nonsense)
