"""Settings: keyword > environment (``AIOTRACK_...``) > default, checked before a start."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any, Final

from aiotrack.errors import InvalidSetting

PREFIX = "AIOTRACK_"

MAX_KEYS = 20
"""Metadata keys with an index: each costs time at every write."""

MAX_KEY = 255
"""Characters of such a key."""

DEFAULT_DATABASE = "sqlite+aiosqlite:///aiotrack.db"
_DRIVERS: Final = {
    **dict.fromkeys(("postgresql", "postgres", "postgresql+asyncpg"), "postgresql+asyncpg"),
    **dict.fromkeys(("sqlite", "sqlite+aiosqlite"), "sqlite+aiosqlite"),
}

ROW_KEYS: Final = ("retention_days", "timeout_minutes")
"""What rows in the database may set, too, for everybody or for what one user sends."""

GLOBAL: Final = "global"
USER: Final = "user"
"""Scopes of such a row."""

NOBODY: Final = ""
"""The owner of a row that holds for all."""

NEVER: Final = -1
"""An age that nothing reaches."""


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
        cleanup_enabled: Whether a schedule deletes old records; ``tracker.cleanup()`` does it all
            the same.
        cleanup_crontab: When it does, in UTC. Read once, at the start of the scheduler.
        cleanup_interval_hours: Hours between two clean-ups where the crontab cannot be read.
        retention_days: Days that a record is kept after its end; 0: none, -1: for ever.
        cleanup_only_completed: Records that never ended are kept, however old.
        audit_retention_days: Days that the clean-up keeps rows of the audit; 0: none, -1: for ever.
            The last word on each schedule stays, however old.
        mark_timeout_enabled: Whether a schedule ends what runs too long; ``mark_timed_out()`` does
            it all the same.
        mark_timeout_crontab: When it does, in UTC. Read once, at the start of the scheduler.
        timeout_minutes: Minutes after which a run that has no limit of its own, or the wait for a
            retry, is presumed to have failed; 0: none, -1: never. The default is not for runs that
            a living worker works on: for those somebody has to set it.
        pending_timeout_minutes: Minutes after which work that nobody began is presumed to have
            failed; None or -1: never.
        retry_max_retries: Of `get_task_retry_labels`: retries after the first attempt.
        retry_delay_seconds: Of the same: seconds before the first retry.
        retry_backoff: Of the same: how many times longer each further delay is.
        retry_jitter: Of the same: each delay is longer by a random part of a quarter.
        max_queue: Messages that may wait in a queue before `Tracker.submit` raises `QueueFull`;
            0: any number.
        task_timeout_seconds: Seconds that a run of what `Tracker.submit` or a definition sends may
            take, where neither they nor the task say it; 0: any time.
        alerts_enabled: Whether a schedule looks for what somebody ought to see to, and tells it.
        alerts_crontab: When it does, in UTC. Read once, at the start of the scheduler.
        alert_failure_rate: Share of failures of a task, 0 to 1, that is one: of twenty or more that
            ended within fifteen minutes.
        alert_slow_factor: How many times longer than in the last week half of a task's runs of the
            last hour have to take; of twenty or more, and a second or more.
        alert_backlog: Messages that wait in a queue.
        alert_backlog_seconds: Seconds that the oldest of them has waited.
        alert_worker_memory: Bytes that a worker process has; None: any.
        alert_worker_cpu: Cores that it uses, such as 0.9; None: any.
        metrics: Each process tells prometheus_client how its recording is.
        trace_url: Where a trace is looked at, with ``{trace_id}`` for its id, such as
            ``https://jaeger.example.com/trace/{trace_id}``; executions link to it.
        api_tokens: Secrets that open the API of ``aiotrack serve``, with commas between them:
            ``SECRET``, ``SCOPE:SECRET`` or ``NAME:SCOPE:SECRET``, with a scope of ``read``,
            ``operate`` and ``admin``. They are never shown.
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
    cleanup_enabled: bool = True
    cleanup_crontab: str = "0 2 * * *"
    cleanup_interval_hours: float = 24
    retention_days: float = 30
    cleanup_only_completed: bool = True
    audit_retention_days: float = 365
    mark_timeout_enabled: bool = True
    mark_timeout_crontab: str = "*/30 * * * *"
    timeout_minutes: float = 10
    pending_timeout_minutes: float | None = None
    retry_max_retries: int = 3
    retry_delay_seconds: float = 5
    retry_backoff: float = 2.0
    retry_jitter: bool = True
    max_queue: int = 100_000
    task_timeout_seconds: float = 300
    alerts_enabled: bool = True
    alerts_crontab: str = "* * * * *"
    alert_failure_rate: float = 0.2
    alert_slow_factor: float = 3.0
    alert_backlog: int = 1000
    alert_backlog_seconds: float = 300
    alert_worker_memory: int | None = None
    alert_worker_cpu: float | None = None
    metrics: bool = False
    trace_url: str | None = None
    api_tokens: Sequence[str] = field(default=(), repr=False)
    _sources: Mapping[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "indexed_metadata", _keys(self.indexed_metadata))
        object.__setattr__(self, "api_tokens", _texts("api_tokens", self.api_tokens))
        _check(self)
        given = {
            name: "keyword"
            for name, spec in settable().items()
            if getattr(self, name) != spec.default
        }
        object.__setattr__(self, "_sources", given)

    def source_of(self, key: str) -> str:
        """Say where the value of a setting comes from.

        Args:
            key: Its name.

        Returns:
            ``keyword``, ``environment`` or ``default``. Settings made by hand cannot tell a default
            that was given from one that was not.

        Raises:
            InvalidSetting: There is no such setting.
        """
        known(key)
        return self._sources.get(key, "default")

    @classmethod
    def load(
        cls,
        overrides: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Settings:
        """Read the environment, and let *overrides* win; their keys may be in upper case.

        Raises:
            InvalidSetting: A value does not fit; the message names the variable.
        """
        env = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for name, spec in settable().items():
            text = env.get(PREFIX + name.upper())
            if text is not None and text.strip():
                values[name] = _parse(spec, text.strip())
        sources = dict.fromkeys(values, "environment")
        for name, value in (overrides or {}).items():
            key = str(name).lower()
            known(key)
            values[key] = value
            sources[key] = "keyword"
        made = cls(**values)
        object.__setattr__(made, "_sources", sources)
        return made


def settable() -> dict[str, Field[Any]]:
    """Give every setting by its name."""
    return {spec.name: spec for spec in fields(Settings) if spec.init}


def known(key: str) -> Field[Any]:
    """Give the description of a setting.

    Raises:
        InvalidSetting: There is none of this name.
    """
    found = settable()
    if key not in found:
        raise InvalidSetting(key, f"unknown setting; known are {', '.join(found)}")
    return found[key]


def _boolean(text: str) -> bool:
    word = text.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def _keys(given: object) -> tuple[str, ...]:
    """Give the metadata keys, each once, in order; a text has commas between them."""
    found = _texts("indexed_metadata", given)
    for key in found:
        if len(key) > MAX_KEY or not key.isprintable():
            fault = f"{key[:20]!r} is not printable, or longer than {MAX_KEY} characters"
            raise InvalidSetting("indexed_metadata", fault)
    if len(found) > MAX_KEYS:
        raise InvalidSetting("indexed_metadata", f"more than {MAX_KEYS} keys")
    return found


def _texts(name: str, given: object) -> tuple[str, ...]:
    """Give a setting's texts, each once, in order; one text has commas between them."""
    if isinstance(given, str):
        given = filter(None, map(str.strip, given.split(",")))
    elif not isinstance(given, Sequence) or isinstance(given, bytes):
        raise InvalidSetting(name, f"{type(given).__name__} is no list of texts")
    found = tuple(dict.fromkeys(given))
    if not all(isinstance(one, str) and one for one in found):
        raise InvalidSetting(name, "something in it is no text, or empty")
    return found


_PARSERS: dict[str, Callable[[str], Any]] = {
    "bool": _boolean,
    "float": float,
    "float | None": float,
    "int": int,
    "int | None": int,
}
"""By the type of a setting; all others are texts."""

_RANGES: dict[str, tuple[float, float]] = {
    "commit_budget": (0.0, 60.0),
    "max_value_bytes": (256, 16 * 1024 * 1024),
    "max_backlog": (100, 10_000_000),
    "log_max_bytes": (1024, 16 * 1024 * 1024),
    "cleanup_interval_hours": (0.25, 8760),
    "retention_days": (0, 36_500),
    "audit_retention_days": (0, 36_500),
    "timeout_minutes": (0, 5_256_000),
    "pending_timeout_minutes": (0, 5_256_000),
    "retry_max_retries": (0, 1000),
    "retry_delay_seconds": (0, 2_592_000),
    "retry_backoff": (1, 100),
    "heartbeat_seconds": (0.1, 3600),
    "max_queue": (0, 1_000_000_000),
    "task_timeout_seconds": (0, 31_536_000),
    "alert_failure_rate": (0.001, 1),
    "alert_slow_factor": (1.1, 1_000_000),
    "alert_backlog": (1, 1_000_000_000),
    "alert_backlog_seconds": (1, 31_536_000),
    "alert_worker_memory": (1, 2**50),
    "alert_worker_cpu": (0.01, 10_000),
}
_AGES = {"retention_days", "audit_retention_days", "timeout_minutes", "pending_timeout_minutes"}


def _parse(spec: Field[Any], text: str) -> Any:
    text = text.lower() if spec.name == "logs" else text
    try:
        return _PARSERS.get(str(spec.type), str)(text)
    except ValueError as error:
        variable = PREFIX + spec.name.upper()
        raise InvalidSetting(variable, f"{text!r} does not fit: {error}") from None


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
    if settings.trace_url is not None and not _TRACE_URL.fullmatch(str(settings.trace_url)):
        fault = "is no address with {trace_id}, such as https://jaeger.example.com/trace/{trace_id}"
        raise InvalidSetting("trace_url", fault)
    _check_kinds(settings)


def _check_kinds(settings: Settings) -> None:
    """Refuse values that are not what their setting is, or outside its range."""
    for name, spec in settable().items():
        value = getattr(settings, name)
        if spec.type == "bool" and not isinstance(value, bool):
            raise InvalidSetting(name, f"{value!r} is not true or false")
        if spec.type == "int" and not isinstance(value, int):
            raise InvalidSetting(name, f"{value!r} is not a whole number")
        if name.endswith("_crontab") and not isinstance(value, str):
            raise InvalidSetting(name, f"{value!r} is no text")
        if name in _RANGES and not (value is None and spec.default is None):
            check_number(name, value)


def check_number(key: str, value: object) -> None:
    """Refuse a number outside the range of its setting.

    Raises:
        InvalidSetting: The message names the setting and its range.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidSetting(key, f"{value!r} is not a number")
    low, high = _RANGES[key]
    if not (low <= value <= high or (key in _AGES and value == NEVER)):
        never = ", or -1 (never)" if key in _AGES else ""
        raise InvalidSetting(key, f"{value} is outside {low} to {high}{never}")


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


_TRACE_URL = re.compile(r"https?://[^\s\"'<>{}]+\{trace_id\}[^\s\"'<>{}]*")
"""It becomes a link on a page: no other scheme, and one place for the id."""

_SECRET = re.compile(r"(?i)([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*")
"""A password in the query of a URL."""


def driver_of(scheme: str) -> str:
    """Give what a database URL's scheme means, its driver filled in."""
    if scheme not in _DRIVERS:
        fault = f"{scheme!r} is not supported: use postgresql+asyncpg:// or sqlite+aiosqlite://"
        raise InvalidSetting("database", fault)
    return _DRIVERS[scheme]


def masked(url: str) -> str:
    """Give what was meant to be a URL without what may be its password."""
    head, at, tail = url.rpartition("@")
    return _SECRET.sub(r"\1...", f"...@{tail}" if at and head else url)
