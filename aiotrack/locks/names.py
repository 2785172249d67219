"""What a lock is called: a name that people read, and a key of any value, told by its digest."""

from __future__ import annotations

import hashlib
import json
import math
import re
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from aiotrack.errors import InvalidValue

NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
ODD: Final = re.compile(r"[^A-Za-z0-9_.:-]+")
SHOWN: Final = 80
"""Characters of any other name that stand before its digest."""

LISTED: Final = re.compile(NAME.pattern + r"(~[0-9a-f]{32})?(/[0-9a-f]{32})?")
"""What a lock is called in Redis, and in lists; never with a ``|``: keys beside it have one."""

_PLAIN: Final = (str, bool, int, float, Decimal, UUID, date, time)

SHORTEST, LONGEST = 0.05, 86_400.0
"""Seconds of a lease."""


def lock_name(name: object, key: object = None) -> str:
    """Give a lock's name in Redis.

    A name of up to 128 letters, digits and ``_ . : -`` is taken as it is; any other text by its
    digest, because braces would part the keys of a lock in a cluster. Keys are told apart by type
    and value: 1, "1", 1.0 and True are four. Texts, numbers, booleans, None, bytes, ids, times,
    members of enums, and lists, tuples and dicts of them.

    Raises:
        InvalidValue: The name is no text, or empty; or the key is of another kind.
    """
    if not isinstance(name, str) or not name:
        raise InvalidValue(
            f"a lock's name is a text, and not {str(name)[:140]!r}: "
            "what else tells locks apart goes into key="
        )
    if not NAME.fullmatch(name):
        name = f"{ODD.sub('_', name)[:SHOWN]}~{_digest(json.dumps(name))}"
    if key is None:
        return name
    if type(key) is int:
        told = f'["int","{key}"]'  # as below; most keys are ids
    else:
        told = json.dumps(_typed(key, 0), separators=(",", ":"))
    return f"{name}/{_digest(told)}"


def listed_name(name: object, key: object = None) -> str:
    """Give a lock's name in Redis; *name* may be one that a list gave.

    Raises:
        InvalidValue: As `lock_name`.
    """
    if key is None and isinstance(name, str) and LISTED.fullmatch(name):
        return name
    return lock_name(name, key)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


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
    if isinstance(value, Enum):
        return [type(value).__name__, value.name]
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value.astimezone(UTC)  # an offset is only another way to write a moment
    if value is None or isinstance(value, _PLAIN):
        return [type(value).__name__, repr(value)]
    raise InvalidValue(
        f"a lock's key is text, a number, bytes, an id, a time, or a list, tuple or dict of them, "
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
