"""What keeps a fault of ours from TaskIQ and from the job."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, ParamSpec, TypeVar

from taskiq import TaskiqMiddleware

from aiotrack.encode import Encoder, format_traceback

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

HOOKS: Final = (
    *("startup", "shutdown", "pre_send", "post_send"),
    *("pre_execute", "on_error", "post_execute", "post_save"),
)
"""Of TaskIQ's middlewares."""

_ENCODER = Encoder()
_complained: set[tuple[str, type[BaseException]]] = set()


def guarded(
    hook: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T | None]]:
    """Log whatever a hook raises, once for each kind of fault, and let the task go on."""

    @functools.wraps(hook)
    async def safe(*args: P.args, **kwargs: P.kwargs) -> T | None:
        try:
            return await hook(*args, **kwargs)
        except Exception as error:
            complain(hook.__name__, error)
            return None

    return safe


def stand_back(middleware: TaskiqMiddleware) -> None:
    """Let a middleware do nothing: another one on its broker does the same already."""
    nothing = TaskiqMiddleware()
    for hook in HOOKS:
        setattr(middleware, hook, getattr(nothing, hook))
    name = type(middleware).__name__
    log.warning("a broker has two of %s for one tracker: the first one counts", name)


def complain(where: str, error: BaseException) -> None:
    """Log a fault of ours, once for each place and kind."""
    kind = (where, type(error))
    if kind not in _complained:
        _complained.add(kind)
        told = format_traceback(error, _ENCODER)  # without a stranger's secrets
        log.error("aiotrack's %s failed; the task goes on\n%s", where, told)
