"""An async-first execution tracker for TaskIQ workers.

Add `TrackerMiddleware` to a broker, and every execution is in your own SQL database. Names load on
first use: importing aiotrack loads no database driver.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiotrack.current import current_execution, tracking
    from aiotrack.errors import (
        AioTrackError,
        ExecutionNotFound,
        InvalidQuery,
        InvalidSetting,
        InvalidStatus,
        InvalidValue,
        MissingExtra,
        QueryTimeout,
        SchemaOutdated,
        SchemaTooNew,
        StoreError,
        StoreUnavailable,
        TrackerNotFound,
    )
    from aiotrack.middleware import TrackerMiddleware
    from aiotrack.model import Attempt, Cause, Count, Counts, Execution, Page, Stats, TaskStatus
    from aiotrack.repository.tables import AttemptRow, Base, ExecutionRow
    from aiotrack.settings import Settings
    from aiotrack.tracker import Tracker

__version__ = "0.1.0"

_HOMES = {
    "aiotrack.current": ("current_execution", "tracking"),
    "aiotrack.errors": (
        "AioTrackError",
        "ExecutionNotFound",
        "InvalidQuery",
        "InvalidSetting",
        "InvalidStatus",
        "InvalidValue",
        "MissingExtra",
        "QueryTimeout",
        "SchemaOutdated",
        "SchemaTooNew",
        "StoreError",
        "StoreUnavailable",
        "TrackerNotFound",
    ),
    "aiotrack.middleware": ("TrackerMiddleware",),
    "aiotrack.model": (
        "Attempt",
        "Cause",
        "Count",
        "Counts",
        "Execution",
        "Page",
        "Stats",
        "TaskStatus",
    ),
    "aiotrack.repository.tables": ("AttemptRow", "Base", "ExecutionRow"),
    "aiotrack.settings": ("Settings",),
    "aiotrack.tracker": ("Tracker",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AioTrackError",
    "Attempt",
    "AttemptRow",
    "Base",
    "Cause",
    "Count",
    "Counts",
    "Execution",
    "ExecutionNotFound",
    "ExecutionRow",
    "InvalidQuery",
    "InvalidSetting",
    "InvalidStatus",
    "InvalidValue",
    "MissingExtra",
    "Page",
    "QueryTimeout",
    "SchemaOutdated",
    "SchemaTooNew",
    "Settings",
    "Stats",
    "StoreError",
    "StoreUnavailable",
    "TaskStatus",
    "Tracker",
    "TrackerMiddleware",
    "TrackerNotFound",
    "__version__",
    "current_execution",
    "tracking",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'aiotrack' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
