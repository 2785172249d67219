"""Classes of errors: what a failure means for whoever decides about another try."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import sqlite3
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from aiotrack.errors import (
    InvalidResult,
    InvalidValue,
    LockError,
    LockReentry,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

TRANSIENT: Final = "transient"
PERMANENT: Final = "permanent"
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
LOST: Final = "lost"
INVALID_RESULT: Final = "invalid_result"
INVALID_INPUT: Final = "invalid_input"

ERROR_CLASSES: Final = (
    TRANSIENT,
    PERMANENT,
    TIMEOUT,
    CANCELLED,
    LOST,
    INVALID_RESULT,
    INVALID_INPUT,
)
HOPELESS: Final = frozenset({PERMANENT, INVALID_RESULT, INVALID_INPUT})
"""Another try would end the same way."""

Rule = str | None | Callable[[Any], str | None]
"""A class, None for "nobody knows", or a function that tells it by looking at the exception."""

Key = type[BaseException] | str
"""An exception type, or its dotted name."""

Rules = Mapping[Any, Rule]
"""Keys are of `Key`: a type checker would refuse a mapping that has only texts."""


class ErrorClasses:
    """A table of exception types and their classes; subclasses count, the nearest one wins."""

    def __init__(self) -> None:
        self._tables = (_Table(), _KNOWN)

    def add(self, rules: Rules) -> None:
        """Put *rules* in front of all that is known; a later rule for a type replaces an earlier.

        Raises:
            InvalidValue: A key is no exception type or dotted name, or nobody knows the class.
        """
        for key, rule in rules.items():
            is_type = isinstance(key, type) and issubclass(key, BaseException)
            if not is_type and not (isinstance(key, str) and _is_dotted(key)):
                raise InvalidValue(
                    f"{key!r} is no exception type, and no dotted name like 'httpx.ConnectError'"
                )
            if rule is not None and not callable(rule):
                _checked(rule)
        self._tables[0].add(rules)

    def of(self, error: BaseException) -> str | None:
        """Give an exception's class; None when no rule knows it. Never raises."""
        if isinstance(error, asyncio.CancelledError):
            return CANCELLED
        for table in self._tables:
            try:
                is_known, found = table.look_up(error)
            except Exception:  # a rule, or a foreign class that answers with an error
                log.exception("a rule for the class of %s failed", type(error).__name__)
                continue
            if is_known:
                return found
        return None


class _Table:
    """Rules by type, and by the last part of a dotted name."""

    def __init__(self) -> None:
        self._types: dict[type, Rule] = {}
        self._names: dict[str, dict[str, Rule]] = {}

    def add(self, rules: Rules) -> _Table:
        for key, rule in rules.items():
            if isinstance(key, str):
                self._names.setdefault(key.rpartition(".")[2], {})[key] = rule
            else:
                self._types[key] = rule
        return self

    def look_up(self, error: BaseException) -> tuple[bool, str | None]:
        """Give whether a rule knows an exception, and its class."""
        for kind in type(error).__mro__:
            for rule in self._rules(kind):
                told = rule(error) if callable(rule) else rule
                if told is not None or not callable(rule):
                    return True, None if told is None else _checked(told)
        return False, None

    def _rules(self, kind: type) -> Iterator[Rule]:
        if kind in self._types:
            yield self._types[kind]
        for name, rule in self._names.get(kind.__name__, {}).items():
            if name == f"{kind.__module__}.{kind.__qualname__}" or _loaded(name) is kind:
                yield rule


def _checked(word: object) -> str:
    if word not in ERROR_CLASSES:
        known = ", ".join(ERROR_CLASSES)
        raise InvalidValue(f"unknown error class {word!r}: use one of {known}")
    return str(word)


def _is_dotted(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts)


def _loaded(name: str) -> type[BaseException] | None:
    """Give the type with a dotted name if its module is loaded; else no error can be of it."""
    module, _, attribute = name.rpartition(".")
    found = getattr(sys.modules.get(module), attribute, None)
    return found if isinstance(found, type) else None


# ── what is known of the usual libraries ────────────────────────────────────────────────────────
# Only what says so by itself. A KeyError, a ValueError, a broken constraint may be gone at the next
# try (a row that another transaction is about to commit), or never: they have no class.

_PASSING: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET", "EHOSTDOWN"),
        *("EHOSTUNREACH", "EINTR", "ENETDOWN", "ENETRESET", "ENETUNREACH", "EPIPE", "ETIMEDOUT"),
    )
    if hasattr(errno, name)
)
_TRY_LATER: Final = frozenset({408, 409, 423, 425, 429})
_SQLSTATES: Final = {
    **dict.fromkeys(("08", "53", "55P03", "57", "58030", "40"), TRANSIENT),
    **dict.fromkeys(("22", "28", "42", "3D", "3F"), PERMANENT),
}
"""Beginnings of SQLSTATE, as PostgreSQL uses them: connections, resources, shutdowns, deadlocks;
values, logins and statements that can never be right."""


def _by_errno(error: OSError) -> str | None:
    return TRANSIENT if error.errno in _PASSING else None


def _by_name_lookup(error: OSError) -> str | None:
    return TRANSIENT if error.errno == socket.EAI_AGAIN else None


def _by_http_status(error: Any) -> str | None:
    """Tell by an HTTP status: is it the server that has a bad day, or is the request wrong?"""
    answer = getattr(error, "response", None)
    for holder, name in (
        (answer, "status_code"),
        (answer, "status"),
        (error, "status"),
        (error, "code"),
    ):
        status = getattr(holder, name, None)
        if isinstance(status, int) and 400 <= status < 600:
            return TRANSIENT if status >= 500 or status in _TRY_LATER else PERMANENT
    return None


def _by_sqlstate(error: Any) -> str | None:
    """Tell by the five letters of a database; SQLAlchemy has its driver's error in ``orig``."""
    if getattr(error, "connection_invalidated", False) is True:
        return TRANSIENT
    for one in _with_origins(error):
        for name in ("sqlstate", "pgcode"):
            state = getattr(one, name, None)
            if isinstance(state, str):
                return next(
                    (told for head, told in _SQLSTATES.items() if state.startswith(head)), None
                )
        if isinstance(one, sqlite3.OperationalError):
            return TRANSIENT if "locked" in str(one) else None
    return None


def _by_sqlstate_if_any(error: Any) -> str | None:
    return _by_sqlstate(error) or TRANSIENT  # without one the connection failed


def _with_origins(error: Any) -> Iterator[Any]:
    yield error
    inner = getattr(error, "orig", None)
    if isinstance(inner, BaseException):
        yield inner
        if inner.__cause__ is not None:
            yield inner.__cause__


def _all(told: Rule, *names: Key) -> dict[Key, Rule]:
    return dict.fromkeys(names, told)


_KNOWN: Final = _Table().add(
    {
        InvalidResult: INVALID_RESULT,
        **_all(
            TRANSIENT,
            *(ConnectionError, TimeoutError, LockError, StoreUnavailable),
            "aiohttp.client_exceptions.ClientConnectionError",
            "aiohttp.client_exceptions.ClientPayloadError",
            "botocore.exceptions.ConnectionError",
            "httpx.TransportError",
            "pymongo.errors.AutoReconnect",
            "redis.exceptions.BusyLoadingError",
            "redis.exceptions.ClusterDownError",
            "redis.exceptions.ConnectionError",
            "redis.exceptions.MasterDownError",
            "redis.exceptions.ReadOnlyError",
            "redis.exceptions.TimeoutError",
            "redis.exceptions.TryAgainError",
            "requests.exceptions.ChunkedEncodingError",
            "requests.exceptions.ConnectionError",
            "requests.exceptions.Timeout",
            "sqlalchemy.exc.DisconnectionError",
            "sqlalchemy.exc.TimeoutError",
            "taskiq.exceptions.SendTaskError",
            "urllib3.exceptions.TimeoutError",
        ),
        **_all(
            PERMANENT,
            *(ImportError, LockReentry, NotImplementedError, SyntaxError, PermissionError),
            *(IsADirectoryError, NotADirectoryError, ssl.SSLCertVerificationError),
            "aiohttp.client_exceptions.ClientConnectorCertificateError",
            "aiohttp.client_exceptions.InvalidURL",
            "httpx.InvalidURL",
            "httpx.LocalProtocolError",
            "httpx.UnsupportedProtocol",
            "redis.exceptions.AuthenticationError",
            "redis.exceptions.AuthorizationError",
            "redis.exceptions.NoPermissionError",
            "requests.exceptions.InvalidSchema",
            "requests.exceptions.InvalidURL",
            "requests.exceptions.MissingSchema",
            "requests.exceptions.SSLError",
        ),
        **_all(
            _by_http_status,
            "aiohttp.client_exceptions.ClientResponseError",
            "httpx.HTTPStatusError",
            "requests.exceptions.HTTPError",
            "urllib.error.HTTPError",
        ),
        **_all(
            _by_sqlstate,
            sqlite3.OperationalError,
            "asyncpg.exceptions.PostgresError",
            "psycopg.Error",
            "psycopg2.Error",
            "sqlalchemy.exc.DBAPIError",
        ),
        **_all(_by_sqlstate_if_any, "psycopg.OperationalError", "psycopg2.OperationalError"),
        OSError: _by_errno,
        socket.gaierror: _by_name_lookup,
    }
)
