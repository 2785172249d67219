"""What the doctor tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing in a set-up that ought to be changed.

    Attributes:
        code: Its name, for scripts; it does not change.
        is_wrong: It breaks something that is promised; else it is advice.
        what: What was found.
        change: What to do about it.
    """

    code: str
    is_wrong: bool
    what: str
    change: str


def wrong(code: str, what: str, change: str) -> Finding:
    """Tell of what breaks a promise."""
    return Finding(code=code, is_wrong=True, what=what, change=change)


def advice(code: str, what: str, change: str) -> Finding:
    """Tell of what could be better."""
    return Finding(code=code, is_wrong=False, what=what, change=change)
