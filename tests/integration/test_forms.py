"""What may be said in more than one form means the same; what means nothing is refused at once."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from sqlalchemy import create_engine, make_url

from aiotrack import InvalidSetting, InvalidValue, Tracker, current_execution, tracking
from tests.integration.bench import bench


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


# ── what a tracker is made of ───────────────────────────────────────────────────────────────────
async def test_a_url_may_be_sqlalchemys(database_url: str) -> None:
    """With its password, which ``str`` of it hides."""
    async with Tracker(make_url(database_url)) as tracker:
        await tracker.register("a", "m:f")
    async with Tracker(database_url) as tracker:
        assert "a" == (await tracker.get("a")).task_id


@pytest.mark.parametrize("database", [Path("a.db"), 5, b"sqlite://", create_engine("sqlite://")])
def test_what_is_no_database_is_refused_at_once(database: Any) -> None:
    """With its type, and what may be given."""
    with pytest.raises(InvalidSetting, match="neither a URL nor an AsyncEngine"):
        Tracker(database)


@pytest.mark.parametrize(
    "client",
    [5, b"redis://x", redis.ConnectionPool(), redis.Redis(), redis.asyncio.RedisCluster("there")],
)
def test_what_is_no_client_of_redis_is_refused_at_once(client: Any) -> None:
    """A client that blocks would block the loop; a cluster's lends no connection."""
    with pytest.raises(InvalidSetting, match="redis"):
        Tracker("sqlite+aiosqlite://", redis=client)


def test_settings_may_be_written_as_in_the_environment() -> None:
    """In upper case; what is not known is told as it was before."""
    tracker = Tracker("sqlite+aiosqlite://", settings={"LOGS": "off", "retention_days": 3})

    assert ("off", 3) == (tracker.options.logs, tracker.options.retention_days)
    assert "keyword" == tracker.options.source_of("logs")
    with pytest.raises(InvalidSetting, match="unknown setting"):
        Tracker("sqlite+aiosqlite://", settings={"LOG": "off"})


@pytest.mark.parametrize("redact", ["iban", re.compile("^iban$"), ["iban"], {"iban"}])
async def test_one_name_to_redact_needs_no_list(small: Tracker, redact: Any) -> None:
    """A text is one name: not each of its letters."""
    async with bench(small, redact=redact) as b:

        @b.task("shop.pay")
        async def pay(iban: str, i: int) -> dict[str, int]:
            return {"a": 1, "n": 2}

        record = await b.run(pay, iban="DE1", i=4)

    assert {"iban": "[redacted]", "i": 4} == record.kwargs
    assert {"a": 1, "n": 2} == record.result


# ── plain code ──────────────────────────────────────────────────────────────────────────────────
async def test_tracked_needs_no_parentheses(small: Tracker) -> None:
    """Async and sync; the functions stay what they were."""

    @small.tracked
    async def first(value: int) -> int:
        return value

    @small.tracked
    def second(value: int) -> int:
        """Say something."""
        return value

    assert (1, 2) == (await first(1), second(2))
    assert "Say something." == second.__doc__
    named = {one.task_name.rpartition(".")[2] for one in await small.list()}
    assert {"first", "second"} == named


async def test_an_error_may_be_told_as_an_exception(tracker: Tracker) -> None:
    """`register` takes what `update` takes."""
    old = await tracker.register("a", "m:f", status="failed", error=TimeoutError("too late"))
    new = await tracker.register("b", "m:f")
    new = await tracker.update("b", "failed", error=TimeoutError("too late"))

    for record in (old, new):
        assert ("too late", "TimeoutError", "transient") == (
            *(record.error, record.error_type, record.error_class),
        )


async def test_a_parent_may_be_the_execution_itself(small: Tracker) -> None:
    """Or what `track` gives, or an id."""
    parents = []
    async with bench(small) as b:

        @b.task("shop.child")
        async def child() -> None:
            pass

        record = await small.register(7, "m:f")
        async with small.track("m:g", task_id="run") as run:
            for parent in (record, run, "text", 5):
                with tracking(parent=parent):
                    parents.append((await b.run(child)).parent_task_id)

    assert ["7", "run", "text", "5"] == parents


@pytest.mark.parametrize("timeout", [-1, float("nan"), "5", timedelta(seconds=1), object()])
async def test_a_time_that_cannot_be_waited_for_is_refused(small: Tracker, timeout: Any) -> None:
    """Before anything is asked, as an error of ours."""
    with pytest.raises(InvalidValue, match="timeout must be seconds"):
        await small.wait("a", timeout)


# ── progress ────────────────────────────────────────────────────────────────────────────────────
async def test_progress_under_ones_own_id_is_coalesced_too(tracker: Tracker) -> None:
    """A loop that names its own execution costs no transaction for each call."""
    async with bench(tracker) as b:

        @b.task("shop.rows")
        async def rows() -> int:
            own = current_execution()
            assert own is not None
            before = tracker.recorder().counters["flushed"]
            for row in range(20_000):
                await tracker.progress(current=row + 1, total=20_000, task_id=own.task_id)
            return tracker.recorder().counters["flushed"] - before

        record = await b.run(rows)

    assert {"progress_percent": 100} == record.metadata
    assert record.result < 2_000


async def test_a_tracker_beside_the_brokers_tells_the_run_that_there_is(
    small: Tracker, tmp_path: Path
) -> None:
    """A second tracker, which knows nothing of the run, makes no record of its own of it."""
    async with Tracker(f"sqlite+aiosqlite:///{tmp_path}/other.db") as other, bench(small) as b:

        @b.task("shop.rows")
        async def rows() -> None:
            await other.progress(50)

        record = await b.run(rows)
        assert [] == (await other.list()).items

    assert {"progress_percent": 50} == record.metadata


async def test_a_run_shows_itself_in_a_line(small: Tracker) -> None:
    """Without arguments and labels, where secrets may be."""
    async with small.track("m:f", task_id="a", kwargs={"note": "private"}) as run:
        shown = repr(run)

    assert "Run(task_id='a', task_name='m:f', attempt=1, cancelled=False)" == shown
