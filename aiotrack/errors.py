"""What can go wrong, as one tree.

::

    AioTrackError
    ├── ExecutionNotFound (LookupError)      no record has this id
    ├── TrackerNotFound (LookupError)        no tracker is running here, or several are
    ├── NoCurrentExecution (LookupError)     no execution runs in this context
    ├── InvalidQuery (ValueError)            a filter, cursor, limit or order that cannot be served
    ├── InvalidStatus (ValueError)           a status word that nobody knows
    ├── InvalidValue (ValueError)            an argument outside its range, a time without an offset
    ├── InvalidSetting (ValueError)          a setting or URL that cannot be used
    ├── MissingExtra (ImportError)           an optional package is not installed
    └── StoreError
        ├── StoreUnavailable                 the database did not answer, or refused
        ├── QueryTimeout (TimeoutError)      no index serves the filter and two seconds were over
        ├── SchemaOutdated                   the database is older than this release
        └── SchemaTooNew                     the database is newer than this release

The data are attributes, the message is made from them and says what to do next. ``code`` is the
kebab-case name that a machine can read.
"""

from __future__ import annotations


class AioTrackError(Exception):
    """Root of everything that aiotrack raises on purpose."""

    code = "aiotrack-error"


class ExecutionNotFound(AioTrackError, LookupError):
    """No execution has this ``task_id`` (text) or ``id`` (int)."""

    code = "execution-not-found"

    def __init__(self, key: str | int) -> None:
        self.key = key
        if isinstance(key, int):
            shown = f"id {key}" if key.bit_length() < 64 else "an id of that size"
        else:
            shown = f"task_id {key!r}"
        super().__init__(f"no execution with {shown}")


class TrackerNotFound(AioTrackError, LookupError):
    """No tracker is running in this process, or several are and none was named."""

    code = "tracker-not-found"

    def __init__(self, candidates: tuple[str, ...] = ()) -> None:
        self.candidates = candidates
        if candidates:
            text = f"several trackers are running ({', '.join(candidates)}): name the one you mean"
        else:
            text = "no tracker is running here: start one with 'async with Tracker(...)'"
        super().__init__(text)


class NoCurrentExecution(AioTrackError, LookupError):
    """No execution runs in this context, or it is over."""

    code = "no-current-execution"

    def __init__(self, wanted: str) -> None:
        self.wanted = wanted
        super().__init__(
            f"{wanted} outside a running execution: call it from a task of a tracked broker, "
            "or inside 'async with tracker.track(...)'"
        )


class InvalidQuery(AioTrackError, ValueError):
    """A filter, cursor, limit or order that cannot be served."""

    code = "invalid-query"


class InvalidStatus(AioTrackError, ValueError):
    """A status word that is in no vocabulary we know."""

    code = "invalid-status"

    def __init__(self, word: object, known: tuple[str, ...]) -> None:
        self.word = word
        super().__init__(
            f"unknown status {word!r}: use one of {', '.join(known)}, or pass a mapping"
        )


class InvalidValue(AioTrackError, ValueError):
    """An argument outside its range, or a time without an offset."""

    code = "invalid-value"


class InvalidSetting(AioTrackError, ValueError):
    """A setting that cannot be used; ``key`` is its name."""

    code = "invalid-setting"

    def __init__(self, key: str, fault: str) -> None:
        self.key = key
        self.fault = fault
        super().__init__(f"{key}: {fault}")


class MissingExtra(AioTrackError, ImportError):
    """An optional package is needed and not installed."""

    code = "missing-extra"

    def __init__(self, package: str, extra: str, feature: str) -> None:
        self.package = package
        self.extra = extra
        self.feature = feature
        super().__init__(
            f"{feature} needs the package '{package}': type  pip install 'aiotrack[{extra}]'",
            name=package,
        )


class StoreError(AioTrackError):
    """The database cannot do what was asked."""

    code = "store-error"


class StoreUnavailable(StoreError):
    """The database did not answer, or refused; the cause is chained."""

    code = "store-unavailable"


class QueryTimeout(StoreError, TimeoutError):
    """No index serves the filter, and the time for it is over."""

    code = "query-timeout"

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(
            f"no answer in {seconds:g} s: narrow the filter (since=, module=, task_name=, "
            "an indexed metadata key)"
        )


class SchemaOutdated(StoreError):
    """The database holds an older schema than this release needs."""

    code = "schema-outdated"

    def __init__(self, found: str, needed: str) -> None:
        self.found = found
        self.needed = needed
        super().__init__(
            f"the aiotrack schema is at {found}, this release needs {needed}: "
            "type  aiotrack db upgrade  or call  await tracker.upgrade()"
        )


class SchemaTooNew(StoreError):
    """The database holds a newer schema than this release knows."""

    code = "schema-too-new"

    def __init__(self, found: str, known: str) -> None:
        self.found = found
        self.known = known
        super().__init__(
            f"the aiotrack schema is at {found}, this release knows {known}: "
            "type  pip install -U aiotrack"
        )
