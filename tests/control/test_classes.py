"""Classes of errors: by type, by dotted name, by what an exception says; users' rules in front."""

from __future__ import annotations

import asyncio
import errno
import socket
import sqlite3
import ssl
import urllib.error
from email.message import Message
from typing import Any

import aiohttp
import asyncpg
import pytest
import redis.exceptions
import sqlalchemy.exc
from taskiq import SendTaskError

from aiotrack import (
    InvalidResult,
    InvalidValue,
    LockNotAcquired,
    LockReentry,
    StoreUnavailable,
    Tracker,
)
from aiotrack.classes import ErrorClasses
from aiotrack.errors import MissingExtra


class Answer:
    """A response, as far as a status goes."""

    def __init__(self, status: int) -> None:
        self.status_code = status


def of_httpx(name: str, *bases: str, status: int | None = None) -> BaseException:
    """Make an error as httpx names it: it is no dependency, and known by its names alone."""
    kind: type[BaseException] = Exception
    for one in (*bases, name):
        kind = type(one, (kind,), {"__module__": "httpx"})
    error = kind("no")
    if status is not None:
        vars(error)["response"] = Answer(status)
    return error


def database_error(inner: BaseException) -> sqlalchemy.exc.DBAPIError:
    """Wrap a driver's error as SQLAlchemy does."""
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, inner)


KNOWN: list[tuple[BaseException, str | None]] = [
    (ConnectionResetError(), "transient"),
    (TimeoutError(), "transient"),
    (asyncio.CancelledError(), "cancelled"),
    (OSError(errno.EHOSTUNREACH, "no way"), "transient"),
    (OSError(errno.ENOSPC, "full"), None),
    (FileNotFoundError(errno.ENOENT, "not yet"), None),
    (PermissionError(errno.EACCES, "no"), "permanent"),
    (socket.gaierror(socket.EAI_AGAIN, "later"), "transient"),
    (socket.gaierror(socket.EAI_NONAME, "who"), None),
    (ssl.SSLCertVerificationError("stranger"), "permanent"),
    (NotImplementedError(), "permanent"),
    (MissingExtra("httpx", "api", "the client"), "permanent"),
    (KeyError("x"), None),
    (ValueError("x"), None),
    (TypeError("x"), None),
    (SystemExit(1), None),
    (of_httpx("ConnectError", "HTTPError", "TransportError"), "transient"),
    (of_httpx("HTTPError"), None),
    (of_httpx("UnsupportedProtocol", "HTTPError", "TransportError"), "permanent"),
    (of_httpx("HTTPStatusError", "HTTPError", status=503), "transient"),
    (of_httpx("HTTPStatusError", "HTTPError", status=429), "transient"),
    (of_httpx("HTTPStatusError", "HTTPError", status=404), "permanent"),
    (urllib.error.HTTPError("http://shop", 502, "bad", Message(), None), "transient"),
    (urllib.error.HTTPError("http://shop", 410, "gone", Message(), None), "permanent"),
    (aiohttp.ClientConnectionError(), "transient"),
    (aiohttp.InvalidURL("shop"), "permanent"),
    (redis.exceptions.ConnectionError(), "transient"),
    (redis.exceptions.AuthenticationError(), "permanent"),
    (redis.exceptions.ResponseError("WRONGTYPE"), None),
    (asyncpg.DeadlockDetectedError("both"), "transient"),
    (asyncpg.TooManyConnectionsError("full"), "transient"),
    (asyncpg.UndefinedTableError("no such"), "permanent"),
    (asyncpg.UniqueViolationError("twice"), None),
    (asyncpg.ForeignKeyViolationError("not yet committed?"), None),
    (database_error(asyncpg.SerializationError("again")), "transient"),
    (database_error(sqlite3.OperationalError("database is locked")), "transient"),
    (database_error(sqlite3.OperationalError("no such table: x")), None),
    (sqlalchemy.exc.TimeoutError("pool"), "transient"),
    (SendTaskError(), "transient"),
    (LockNotAcquired("import", {}), "transient"),
    (LockReentry("import", {}), "permanent"),
    (StoreUnavailable("away"), "transient"),
    (InvalidResult("no"), "invalid_result"),
]


@pytest.mark.parametrize(("error", "expected"), KNOWN, ids=lambda one: type(one).__name__)
def test_the_usual_errors_have_a_class(error: BaseException, expected: str | None) -> None:
    """What says so by itself; what may be either has none."""
    assert expected == ErrorClasses().of(error)


class OutOfStockError(ValueError):
    """An error of the user's own."""


class OutOfScrewsError(OutOfStockError):
    """A nearer one."""


@pytest.mark.parametrize("name", [OutOfStockError, f"{__name__}.OutOfStockError"])
def test_a_rule_counts_for_subclasses_and_the_nearest_wins(name: Any) -> None:
    """By type and by dotted name alike."""
    tracker = Tracker("sqlite+aiosqlite:///unused.db")
    tracker.classify({name: "permanent"})
    before = tracker.classes.of(OutOfScrewsError())
    tracker.classify({OutOfScrewsError: "transient"})

    assert "permanent" == before
    assert "transient" == tracker.classes.of(OutOfScrewsError())
    assert "permanent" == tracker.classes.of(OutOfStockError())
    assert tracker.classes.of(ValueError()) is None


def test_a_rule_of_the_user_comes_before_ours() -> None:
    """Even one for a base class; None takes a class away."""
    classes = ErrorClasses()
    classes.add({"httpx.HTTPError": "permanent", ConnectionError: None})

    assert "permanent" == classes.of(of_httpx("ConnectError", "HTTPError", "TransportError"))
    assert classes.of(ConnectionResetError()) is None
    assert "transient" == classes.of(TimeoutError())


def test_a_rule_may_look_at_the_error() -> None:
    """A function that gives None leaves it to the next rule."""
    classes = ErrorClasses()
    classes.add({OSError: lambda error: "permanent" if error.errno == errno.ENOSPC else None})

    assert "permanent" == classes.of(OSError(errno.ENOSPC, "full"))
    assert "transient" == classes.of(OSError(errno.EPIPE, "gone"))


def test_a_rule_that_fails_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, and ours are asked."""
    classes = ErrorClasses()
    classes.add({OSError: lambda error: error.no_such_thing})
    raised = classes.of(ConnectionResetError())
    classes.add({OSError: lambda _: "hopeless"})
    unknown = classes.of(ConnectionResetError())

    assert ("transient", "transient") == (raised, unknown)
    assert 2 == len(caplog.records)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({ValueError: "hopeless"}, "unknown error class 'hopeless': use one of transient, perm"),
        ({"ValueError": "permanent"}, "'ValueError' is no exception type, and no dotted name"),
        ({int: "permanent"}, "is no exception type"),
        ({"a b.c": "permanent"}, "no dotted name"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rules: Any, told: str) -> None:
    """At once, with what would be right; nothing of it counts."""
    classes = ErrorClasses()
    with pytest.raises(InvalidValue, match=told):
        classes.add({KeyError: "permanent"} | rules)

    assert classes.of(KeyError()) is None


async def test_every_way_of_recording_gives_the_same_class(tracker: Tracker) -> None:
    """A tracked block, a tracked function and an update by hand; on both databases."""
    tracker.classify({OutOfStockError: "permanent"})

    @tracker.tracked("shop.sell")
    async def sell() -> None:
        raise OutOfScrewsError

    with pytest.raises(OutOfScrewsError):
        await sell()
    with pytest.raises(ConnectionError):
        async with tracker.track("shop.pay", task_id="pay"):
            raise ConnectionError("away")
    await tracker.register("pack", "shop.pack")
    packed = await tracker.update("pack", "failed", error=OutOfStockError("none left"))
    sold = (await tracker.list(task_name="shop.sell")).items[0]
    listed = await tracker.list(error_class="permanent")

    assert "permanent" == sold.error_class == packed.error_class
    assert "transient" == (await tracker.get("pay")).error_class
    assert {"shop.sell", "shop.pack"} == {one.task_name for one in listed.items}
