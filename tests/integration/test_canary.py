"""A secret in every place that a tracker sees: nowhere in databases, journals and logs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from taskiq import Context, TaskiqDepends

from aiotrack import TaskStatus, Tracker, tracking
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import Bench, bench
from tests.unit.poison import Row

CANARY = "c4n4ry-in-the-mine"
URL = f"postgres://user:{CANARY}@db.example/app"
BEARER = f"Bearer {CANARY}"
NUMBER = 719_284_417_013
"""A secret that is no text; no other number has these digits."""


class Login(BaseModel):
    """A model with secrets."""

    user: str = "u"
    password: str = CANARY
    pin_token: int = NUMBER
    hidden: SecretStr = SecretStr(CANARY)


class Telling:
    """Its repr tells all."""

    def __repr__(self) -> str:
        return f"<Telling password='{CANARY}' {URL}>"


class TellingError(Exception):
    """Its text tells all."""

    def __str__(self) -> str:
        return f"cannot reach {URL} with api_key={CANARY}, header Authorization: {BEARER}"


def nested(levels: int = 10) -> Any:
    """Return the secret, so many containers deep."""
    made: Any = {"password": CANARY, "token": NUMBER, "secrets": [CANARY, NUMBER]}
    for level in range(levels):
        made = {"next": [made]} if level % 2 else [{"next": (made,)}]
    return made


def fail() -> None:
    """Raise with causes, notes and groups, and the secret in each."""
    try:
        try:
            raise KeyError({"password": CANARY, "pin_token": NUMBER})
        except KeyError as first:
            raise TellingError from first
    except TellingError as second:
        error = ValueError(f"password={CANARY}", {"token": CANARY})
        error.add_note(f"while connecting to {URL}")
        error.add_note(f"secret: '{CANARY}'")
        error.add_note(str(CalledProcessError(1, ["x", "--api-key", CANARY])))
        raise ExceptionGroup("all", [error, TellingError(CANARY)]) from second


def add_tasks(b: Bench) -> list[Any]:
    """Make tasks that meet the secret in every way."""

    @b.task("canary.login")
    async def login(user: str, password: str, api_key: str = "", data: Any = None) -> Any:
        await b.tracker.progress(50, f"connecting to {URL}", token=CANARY, more={"pwd": NUMBER})
        return [nested(), Login().model_dump(), f"password is at {URL}", {"note": BEARER}]

    @b.task("canary.fails")
    async def fails(password: str) -> None:
        b.tracker.progress_sync(step=f"secret={CANARY}", cookie=CANARY)
        fail()

    @b.task("canary.telling")
    async def telling() -> Any:
        return Telling()

    @b.task("canary.model")
    async def model(context: Context = TaskiqDepends()) -> Any:
        return {"row": Row("n", CANARY), "login": Login(), "by": BEARER.encode()}

    async def leaving() -> Any:
        yield 1
        raise ConnectionError(f"cannot leave {URL} with password={CANARY}")

    @b.task("canary.dies")
    async def dies(_: int = TaskiqDepends(leaving)) -> None:
        """End outside the body."""

    return [login, fails, telling, model, dies]


async def use_everything(b: Bench) -> None:
    """Send, run, register and update with the secret in every field."""
    tracker = b.tracker
    login, fails, telling, model, dies = add_tasks(b)
    secret = {"password": CANARY, "deep": nested(), "seen": URL, "token": NUMBER}
    labels = {
        "created_by": f"user with {URL}",
        "password": CANARY,
        "authorization": BEARER,
        "aiotrack_metadata": {"token": CANARY, "deep": nested(3), "text": f"pwd={CANARY}"},
    }
    with tracking(metadata=secret, created_by=BEARER, module=f"m {URL}"):
        await login.kiq("u", CANARY, data=nested())
        await login.kiq("u", password=CANARY, api_key=CANARY, data=[BEARER, URL])
        await login.kicker().with_labels(**labels).kiq("u", CANARY)
        await fails.kiq(CANARY)
        await telling.kiq()
        await model.kiq()
        await dies.kiq()
    await b.settle()
    with contextlib.suppress(ExceptionGroup):
        async with tracker.track(
            f"canary {URL}", kwargs={"password": CANARY}, metadata=secret, args=[Login()]
        ):
            await tracker.progress(1, f"token={CANARY}", password=NUMBER)
            fail()

    @tracker.tracked("canary.tracked")
    def tracked(password: str) -> Any:
        return {"token": password}

    tracked(CANARY)


async def use_by_hand(tracker: Tracker) -> None:
    """Register and update with the secret in every field; these need the database."""
    secret = {"password": CANARY, "deep": nested(), "seen": URL, "token": NUMBER}
    await tracker.register(
        "by hand",
        "canary.registered",
        args=[nested()],
        kwargs={"password": CANARY, "pin_token": NUMBER},
        created_by=BEARER,
        metadata=secret,
        status=TaskStatus.STARTED,
    )
    await tracker.update("by hand", metadata={"cookie": CANARY, "log": f"password={CANARY}"})
    trace = f"Traceback:\n  password={CANARY}\n{URL}"
    error = f"no {URL}, api_key='{CANARY}'"
    await tracker.update("by hand", "failed", error=error, traceback=trace)
    with contextlib.suppress(ExceptionGroup):
        await tracker.register("by hand 2", "canary.registered", result={"token": CANARY})
        fail()
    await tracker.update("by hand 2", TaskStatus.SUCCESS, result=[nested(), BEARER])


async def dump(url: str) -> str:
    """Give every value of every row, as text."""
    engine = create_async_engine(url)
    found = []
    async with engine.connect() as connection:
        for table in ("aiotrack_executions", "aiotrack_attempts"):
            found += list((await connection.execute(text(f"SELECT * FROM {table}"))).all())
    await engine.dispose()
    return "\n".join(map(repr, found))


def journals(folder: Path) -> str:
    """Give every byte of the journals, as text."""
    return b"".join(path.read_bytes() for path in folder.rglob("*.journal")).decode("latin-1")


def leaks(where: str) -> list[str]:
    """Give what stands around the secret in *where*."""
    places = []
    for secret in (CANARY, str(NUMBER)):
        at = where.find(secret)
        while at >= 0:
            places.append(where[max(at - 120, 0) : at + 40])
            at = where.find(secret, at + 1)
    return places


class NotTaskiq(logging.Filter):
    """Lets TaskIQ's own lines go: it logs whole messages."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is kept."""
        return not record.name.startswith("taskiq")


@contextlib.asynccontextmanager
async def listening(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Keep what aiotrack and the libraries below it log, down to DEBUG."""
    caplog.set_level(logging.DEBUG)
    with caplog.filtering(NotTaskiq()):  # the handler is the same for every test of the process
        yield


async def test_a_secret_reaches_no_database_and_no_log(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R38: arguments, labels, results, errors, progress, metadata, by hooks and by hand."""
    async with listening(caplog), Tracker(database_url) as tracker, bench(tracker) as b:
        await use_everything(b)
        await use_by_hand(tracker)
        assert await tracker.flush(10)
    stored = await dump(database_url)

    assert "ended outside its body" in caplog.text
    assert 10 <= stored.count("canary.")
    assert 50 <= stored.count("[redacted]")
    assert [] == leaks(stored)
    assert [] == leaks(caplog.text)


async def test_a_secret_reaches_no_journal_either(
    own_postgres: PostgresServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R38: the same while the database is away; what is replayed has no secret, too."""
    settings = {"journal_dir": str(tmp_path / "journals"), "commit_budget": 0.1}
    async with (
        listening(caplog),
        Tracker(own_postgres.url, settings=settings) as tracker,
        bench(tracker) as b,
    ):
        await tracker.flush(5)
        await asyncio.to_thread(own_postgres.kill)
        await use_everything(b)
        kept = await asyncio.to_thread(journals, tmp_path)
        await asyncio.to_thread(own_postgres.start)
        assert await tracker.flush(20)
    stored = await dump(own_postgres.url)
    dsn = own_postgres.url.replace("+asyncpg", "", 1)
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetchval("SELECT count(*) FROM aiotrack_executions")
    await connection.close()

    assert 8 <= rows
    assert 10 <= kept.count("[redacted]")
    assert [] == leaks(kept)
    assert [] == leaks(stored)
    assert [] == leaks(caplog.text)
