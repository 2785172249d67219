"""What pydantic's ValidationError says without the values that it refused.

Its text holds them as they came, whatever their names, and takes as long as there are faults.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiotrack.encode.leaves import name_of, own

_HOME: Final = "pydantic_core._pydantic_core"
_FEW = 10  # faults that are told; of more only the count
_PARTS = 16  # of the place of a fault
_LENGTH = 128  # characters of one of them
_TAG = "union_tag_invalid"  # the only words of pydantic's own that quote a value


def is_refusal(value: object) -> bool:
    """Tell by its class's name, so that nobody has to import pydantic."""
    kind = type(value)
    return name_of(kind) == "ValidationError" and own(kind, "__module__") == _HOME


def refusal(error: Any, is_secret: Callable[[str], bool]) -> str:
    """Return what was refused, how often, and if that is not often, where and why.

    Args:
        error: A ValidationError.
        is_secret: Whether words about what stands under a name must not be stored.
    """
    count = error.error_count()
    told = f"{count} validation error{'' if count == 1 else 's'} for {error.title[:_LENGTH]}"
    if count > _FEW:
        return told
    faults = error.errors(include_input=False, include_context=False, include_url=False)
    return f"{told}: " + "; ".join(_fault(fault, is_secret) for fault in faults)


def _fault(fault: Any, is_secret: Callable[[str], bool]) -> str:
    place = [str(part)[:_LENGTH] for part in fault["loc"][:_PARTS]]
    told = f"{'.'.join(place) or 'the value'} ({fault['type']})"
    # A validator's words about a password may quote it.
    hidden = fault["type"] == _TAG or any(map(is_secret, place))
    return told if hidden else f"{told}: {fault['msg']}"
