"""The exit codes of every verb, and which error ends with which."""

from __future__ import annotations

from typing import Final

from aiotrack.errors import (
    AioTrackError,
    DefinitionNotFound,
    ExecutionNotFound,
    LockUnavailable,
    ScheduleUnavailable,
    StoreError,
)

DONE: Final = 0
NO: Final = 1
USAGE: Final = 2
AWAY: Final = 3
UNKNOWN: Final = 4
FAULT: Final = 70
STOPPED: Final = 130
UNREAD: Final = 141

MEANINGS: Final = {
    DONE: "It is done; what was found is printed, and nothing found is an answer, too.",
    NO: "The answer is no: it failed, it was over before, nobody holds it, something is wrong.",
    USAGE: "Wrong use: an option, an argument, a setting, or a package that is not installed.",
    AWAY: "The database, Redis or the broker does not answer, or holds no schema of this release.",
    UNKNOWN: "There is no execution or definition of this id or name.",
    FAULT: "What nobody foresaw, told by a traceback: please report it.",
    STOPPED: "It was stopped by Ctrl-C.",
    UNREAD: "Nobody reads on: `aiotrack list | head -1`. Nothing is told about it.",
}
"""What each means, for the reference."""

_AWAY: Final = {"broker-unavailable", "demo-redis-unavailable"}
_NO: Final = {"demo-failed", "server-failed", "not-repeatable", "slow-consumer"}


class BrokerUnavailable(AioTrackError):
    """The broker of a project does not start or answer: its server is away, or refuses."""

    code = "broker-unavailable"


def exit_code(error: AioTrackError) -> int:
    """Give the exit code for an error."""
    if isinstance(error, ExecutionNotFound | DefinitionNotFound):
        return UNKNOWN
    is_away = isinstance(error, StoreError | LockUnavailable | ScheduleUnavailable)
    if is_away or error.code in _AWAY:
        return AWAY
    return NO if error.code in _NO else USAGE
