"""What a lock is called: a name that people read, and a key of any value, told by its digest."""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import Any, Final

from aiotrack.errors import InvalidValue

NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

SHORTEST, LONGEST = 0.05, 86_400.0
"""Seconds of a lease."""


def lock_name(name: object, key: object = None) -> str:
    """Give a lock's name in Redis.

    Keys are told apart by type and value: 1, "1", 1.0 and True are four. Texts, numbers, booleans,
    None, bytes, and lists, tuples and dicts of them.

    Raises:
        InvalidValue: The name has other characters than letters, digits, ``_ . : -`` or more than
            128, or the key is of another kind.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidValue(
            f"a lock's name is 1 to 128 of A-Z a-z 0-9 _ . : - and not {str(name)[:140]!r}: "
            "what else tells locks apart goes into key="
        )
    if key is None:
        return name
    if type(key) is int:
        told = f'["int","{key}"]'  # as below; most keys are ids
    else:
        told = json.dumps(_typed(key, 0), separators=(",", ":"))
    return f"{name}/{hashlib.blake2b(told.encode(), digest_size=16).hexdigest()}"


def _typed(value: object, depth: int) -> Any:
    """Give a value with its type, as JSON that differs when they do."""
    if depth > 16:
        raise InvalidValue("a lock's key is nested too deeply")
    if isinstance(value, dict):
        pairs = [[_typed(one, depth + 1), _typed(two, depth + 1)] for one, two in value.items()]
        return ["dict", sorted(pairs, key=json.dumps)]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *(_typed(one, depth + 1) for one in value)]
    if isinstance(value, bytes):
        return ["bytes", value.hex()]
    if value is None or isinstance(value, (str, bool, int, float)):
        return [type(value).__name__, repr(value)]
    raise InvalidValue(
        f"a lock's key is text, a number, bytes, or a list, tuple or dict of them, "
        f"not {type(value).__name__}: pass its id, or str(...) of it"
    )


def checked_ttl(ttl: object) -> float:
    """Give the seconds of a lease.

    Raises:
        InvalidValue: No number from 0.05 to 86,400.
    """
    if isinstance(ttl, bool) or not isinstance(ttl, (int, float)):
        raise InvalidValue(f"ttl is seconds, not {type(ttl).__name__}")
    if not SHORTEST <= ttl <= LONGEST:  # NaN is neither
        raise InvalidValue(f"ttl is {SHORTEST} to {LONGEST:g} seconds, not {ttl!r}")
    return float(ttl)


def checked_wait(wait: object) -> float:
    """Give the seconds to wait.

    Raises:
        InvalidValue: Negative or no number; to wait for ever is `math.inf`.
    """
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or math.isnan(wait) or wait < 0:
        raise InvalidValue(
            f"wait is seconds, 0 to try once, math.inf to wait for ever, not {wait!r}"
        )
    return float(wait)
