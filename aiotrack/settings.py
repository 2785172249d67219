"""Settings: keyword > environment (``AIOTRACK_...``) > default, checked before a start."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from aiotrack.errors import InvalidSetting

PREFIX = "AIOTRACK_"

MAX_KEYS = 20
"""Metadata keys with an index: each costs time at every write."""

MAX_KEY = 255
"""Characters of such a key."""

DEFAULT_DATABASE = "sqlite+aiosqlite:///aiotrack.db"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What can be set. Every field is also an environment variable: ``AIOTRACK_`` + upper case.

    Attributes:
        database_url: An SQLAlchemy URL; None means the file ``aiotrack.db`` in the working
            directory.
        redis_url: ``redis://...``; None means no Redis: who follows executions asks the database.
        namespace: Prefix of every Redis key: two projects on one Redis share nothing.
        durability: ``commit``: a send waits until its PENDING is committed; ``async``: it does not.
            The end of a run waits in both.
        commit_budget: Seconds that a hook waits for a commit before it lets the task go on.
        max_value_bytes: Size of one stored value (arguments, result); more is cut and marked.
        max_backlog: Reports kept in memory while the database is away, of about 1 KiB each: a long
            one counts as several.
        journal_dir: Folder of the journals that take final reports while the database is away;
            default: ``~/.local/state/aiotrack``. It has to outlive the process.
        on_store_failure: What happens to a final report when the journal is full, too: ``drop``
            keeps it in memory as long as there is room, ``block_ack`` lets its task wait.
        roll_up_enabled: Whether a schedule adds up what ended, for ``stats``; ``tracker.roll_up()``
            does it all the same.
        roll_up_crontab: When it does, in UTC. Read once, at the start of the scheduler.
        heartbeat_seconds: Seconds between two beats of a worker; after three without one it is
            lost.
        rescue_lost_enabled: Whether workers and a schedule close what lost workers left;
            ``tracker.rescue_lost()`` does it all the same.
        rescue_lost_crontab: When the schedule does, in UTC, besides the workers. Read once, at the
            start of the scheduler.
        indexed_metadata: Metadata keys that lists are often searched by, such as ``order_id``, with
            commas between them; each gets an index.
        pgbouncer: A pooler in transaction mode stands before the database; else it is found out.
        logs: What tasks write with ``logging`` is kept: ``on``, ``on_failure_only`` (of attempts
            that fail or are tried again), ``off``.
        log_level: The lowest level that is kept, a name or a number.
        log_max_bytes: Logs kept of one attempt: the first half and the last half of so many bytes.
    """

    database_url: str | None = None
    redis_url: str | None = None
    namespace: str = "aiotrack"
    durability: str = "commit"
    commit_budget: float = 1.0
    max_value_bytes: int = 65_536
    max_backlog: int = 16_000
    journal_dir: str | None = None
    on_store_failure: str = "drop"
    roll_up_enabled: bool = True
    roll_up_crontab: str = "*/5 * * * *"
    heartbeat_seconds: float = 5.0
    rescue_lost_enabled: bool = True
    rescue_lost_crontab: str = "* * * * *"
    indexed_metadata: Sequence[str] = ()
    pgbouncer: bool = False
    logs: str = "on"
    log_level: str | int = "INFO"
    log_max_bytes: int = 65_536

    def __post_init__(self) -> None:
        object.__setattr__(self, "indexed_metadata", _keys(self.indexed_metadata))
        _check(self)

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read the environment, and let *overrides* win.

        Raises:
            InvalidSetting: A value does not fit; the message names the variable.
        """
        env = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for spec in fields(cls):
            text = env.get(PREFIX + spec.name.upper())
            if text is not None and text.strip():
                values[spec.name] = _parse(spec.name, text.strip())
        for key, value in (overrides or {}).items():
            if key not in {spec.name for spec in fields(cls)}:
                known = ", ".join(spec.name for spec in fields(cls))
                raise InvalidSetting(key, f"unknown setting; known are {known}")
            values[key] = value
        return cls(**values)


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def _keys(given: object) -> tuple[str, ...]:
    """Give the metadata keys, each once, in order; a text has commas between them."""
    if isinstance(given, str):
        given = filter(None, map(str.strip, given.split(",")))
    elif not isinstance(given, Sequence) or isinstance(given, bytes):
        raise InvalidSetting("indexed_metadata", f"{given!r} is no list of texts")
    found = tuple(dict.fromkeys(given))
    for key in found:
        if not isinstance(key, str) or not key:
            raise InvalidSetting("indexed_metadata", f"{key!r} is no key")
        if len(key) > MAX_KEY or not key.isprintable():
            fault = f"{key[:20]!r} is not printable, or longer than {MAX_KEY} characters"
            raise InvalidSetting("indexed_metadata", fault)
    if len(found) > MAX_KEYS:
        raise InvalidSetting("indexed_metadata", f"more than {MAX_KEYS} keys")
    return found


_PARSERS: dict[str, Callable[[str], Any]] = {
    "commit_budget": float,
    "max_value_bytes": int,
    "max_backlog": int,
    "pgbouncer": _boolean,
    "logs": str.lower,
    "log_max_bytes": int,
    "roll_up_enabled": _boolean,
    "heartbeat_seconds": float,
    "rescue_lost_enabled": _boolean,
}


def _parse(name: str, text: str) -> Any:
    try:
        return _PARSERS.get(name, str)(text)
    except ValueError as error:
        raise InvalidSetting(PREFIX + name.upper(), f"{text!r} does not fit: {error}") from None


def _check(settings: Settings) -> None:
    """Refuse values outside their range, by name."""
    if settings.durability not in {"commit", "async"}:
        raise InvalidSetting("durability", f"{settings.durability!r} is not 'commit' or 'async'")
    if settings.logs not in {"on", "on_failure_only", "off"}:
        fault = f"{settings.logs!r} is not 'on', 'on_failure_only' or 'off'"
        raise InvalidSetting("logs", fault)
    try:
        level_of(settings.log_level)
    except ValueError as error:
        raise InvalidSetting("log_level", str(error)) from None
    if settings.on_store_failure not in {"drop", "block_ack"}:
        fault = f"{settings.on_store_failure!r} is not 'drop' or 'block_ack'"
        raise InvalidSetting("on_store_failure", fault)
    if not settings.namespace or any(letter in settings.namespace for letter in "{} \n"):
        raise InvalidSetting("namespace", "must be a word without spaces or braces")
    ranges = {
        "commit_budget": (0.0, 60.0),
        "max_value_bytes": (256, 16 * 1024 * 1024),
        "max_backlog": (100, 10_000_000),
        "log_max_bytes": (1024, 16 * 1024 * 1024),
        "heartbeat_seconds": (0.1, 300.0),
    }
    for key, (low, high) in ranges.items():
        value = getattr(settings, key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidSetting(key, f"{value!r} is not a number")
        if not low <= value <= high:
            raise InvalidSetting(key, f"{value} is outside {low} to {high}")


def level_of(word: object) -> int:
    """Give the number of a level of `logging`: a name in any case, or a number.

    Raises:
        ValueError: Nobody knows the level.
    """
    text = str(word).strip().upper()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    known = logging.getLevelNamesMapping()
    if isinstance(word, bool) or text not in known:
        names = ", ".join(sorted(known, key=lambda name: known[name]))
        raise ValueError(f"{word!r} is no level: use a number or one of {names}")
    return known[text]


def masked(url: str) -> str:
    """Give what was meant to be a URL without what may be its password."""
    head, at, tail = url.rpartition("@")
    return f"...@{tail}" if at and head else url
