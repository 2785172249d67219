"""The reader on both databases: one execution, attempts, pages, counts, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest
from sqlalchemy import text

from aiotrack.clock import EPOCH, Clock
from aiotrack.counts import Counts
from aiotrack.encode import encode_task_id
from aiotrack.errors import ExecutionNotFound, InvalidQuery, QueryTimeout, StoreUnavailable
from aiotrack.model import Cause, TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import Repository
from aiotrack.repository.read import Reader

NOW = 1_700_000_000_000_000
"""Microseconds; any moment would do."""


def sent(task_id: str = "a", **birth) -> Report:
    """Tell that a task was sent."""
    facts = {"task_name": "shop.mail:send", "module": "shop", "created_at": NOW} | birth
    return Report(Origin(encode_task_id(task_id), **facts), Witness.SENT, TaskStatus.PENDING)


def ran(task_id: str = "a", *, after: int = 1000, birth=None, **run) -> Report:
    """Tell that a task ran to its end, *after* so many microseconds."""
    origin = sent(task_id, **(birth or {})).origin
    facts = {"run_id": "r1", "worker": "w1", "duration": 0.25} | run
    facts.setdefault("started_at", origin.created_at + after)
    facts.setdefault("finished_at", facts["started_at"] + 250_000)
    return Report(origin, Witness.ENDED, facts.pop("status", TaskStatus.SUCCESS), **facts)


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[Repository]:
    """An open repository."""
    repository = Repository(database_url, clock=Clock())
    yield repository
    await repository.close()


@pytest.fixture
def reader(repository: Repository) -> Reader:
    """A reader of it."""
    return Reader(repository)


# ── one execution ───────────────────────────────────────────────────────────────────────────────
async def test_an_execution_shows_what_was_told(repository, reader):
    """Every field comes back in its own type, times aware and UTC to the microsecond."""
    birth = {
        "created_by": "42",
        "queue": "fast",
        "priority": 3,
        "parent_task_id": "p",
        "schedule_id": "task_7",
        "config_id": 7,
        "rerun_of": "old",
        "trace_id": "t",
        "time_limit": 30.0,
        "args": '[1,"two"]',
        "kwargs": '{"three":3.5}',
        "metadata": '{"order_id":7}',
    }
    failed = {"error": "no", "error_type": "builtins.OSError", "traceback": "Traceback …"}
    await repository.write(
        [ran(status=TaskStatus.FAILURE, error_class="transient", birth=birth, **failed)]
    )

    found = await reader.get("a")

    assert (1, "two") == tuple(found.args)
    assert {"three": 3.5} == found.kwargs
    assert {"order_id": 7} == found.metadata
    assert ("42", "fast", 3) == (found.created_by, found.queue, found.priority)
    assert ("p", "task_7", 7) == (found.parent_task_id, found.schedule_id, found.config_id)
    assert ("old", "t", "w1") == (found.rerun_of, found.trace_id, found.worker)
    assert (TaskStatus.FAILURE, 30.0) == (found.status, found.time_limit)
    assert ("no", "builtins.OSError") == (found.error, found.error_type)
    assert ("transient", "Traceback …") == (found.error_class, found.traceback)
    assert EPOCH + timedelta(microseconds=NOW) == found.created_at
    assert timedelta(0) == found.finished_at.utcoffset()
    assert (0.25, 0.001) == (found.duration, found.wait)
    assert (1, 1, 0, False) == (found.attempt, found.runs, found.duplicates, found.presumed)
    assert found == await reader.get_by_id(found.id)


async def test_a_value_that_was_cut_still_has_the_fields_type(repository, reader):
    """Arguments are always a list and keyword arguments a dict, also when a marker stands there."""
    await repository.write([sent(args='{"$truncated":true}', kwargs='["x"]', metadata="{}")])

    found = await reader.get("a")

    assert [{"$truncated": True}] == found.args
    assert {"$value": ["x"]} == found.kwargs


@pytest.mark.parametrize("task_id", ["", "100%", "%25", "nul\0", "lone\udc80", "ä☃😀", "'\";--\\"])
async def test_any_text_is_a_task_id(repository, reader, task_id):
    """What was sent under an id is found under it, and shows it."""
    await repository.write([ran(task_id)])

    assert task_id == (await reader.get(task_id)).task_id
    assert 1 == len(await reader.attempts(task_id))
    assert [task_id] == [item.task_id for item in (await reader.list(text=task_id)).items]


@pytest.mark.parametrize("task_id", ["b", "", "\0", "\udc80", "x" * 100_000, "%"])
async def test_an_unknown_task_id_is_not_found(repository, reader, task_id):
    """The error has the key, and is a LookupError."""
    await repository.write([sent("a")])

    with pytest.raises(ExecutionNotFound) as caught:
        await reader.get(task_id)
    with pytest.raises(LookupError):
        await reader.attempts(task_id)

    assert task_id == caught.value.key


async def test_a_task_id_given_as_a_number_is_a_text(repository, reader):
    """It is found under its digits, and missed as a task_id, not as an id."""
    await repository.write([sent("7")])

    assert "7" == (await reader.get(7)).task_id
    with pytest.raises(ExecutionNotFound, match="task_id '8'"):
        await reader.get(8)


@pytest.mark.parametrize("number", [0, -1, 2**63, -(2**200)])
async def test_an_unknown_id_is_not_found(reader, number):
    """Also one that no database could hold."""
    with pytest.raises(ExecutionNotFound) as caught:
        await reader.get_by_id(number)

    assert number == caught.value.key


@pytest.mark.parametrize("number", ["1", True, None, 1.0])
async def test_an_id_is_a_whole_number(reader, number):
    """Anything else is refused before a database is asked."""
    with pytest.raises(InvalidQuery, match="whole number"):
        await reader.get_by_id(number)


# ── attempts ────────────────────────────────────────────────────────────────────────────────────
async def test_a_task_that_was_only_sent_has_no_attempt(repository, reader):
    """It is known, so the answer is an empty list."""
    await repository.write([sent()])

    assert [] == await reader.attempts("a")


@pytest.mark.parametrize(("rerun_of", "cause"), [(None, Cause.FIRST), ("b", Cause.RERUN)])
async def test_a_single_run_is_its_only_attempt(repository, reader, rerun_of, cause):
    """It is told by the execution's own row."""
    await repository.write([ran(birth={"rerun_of": rerun_of})])

    (attempt,) = await reader.attempts("a")

    assert (1, cause, "w1") == (attempt.attempt, attempt.cause, attempt.worker)
    assert (TaskStatus.SUCCESS, 0.25) == (attempt.status, attempt.duration)


async def test_every_attempt_keeps_its_cause_and_its_own_error(repository, reader):
    """A redelivery, a retry, a requeue and a redelivery of that, in the order they began."""
    failed = {"status": TaskStatus.FAILURE}
    reports = [
        ran(run_id="r1", after=1, error="first", **failed),
        ran(run_id="r2", after=2, error="second", **failed),
        ran(run_id="r3", after=3, attempt=2, error="third", **failed),
        replace(
            ran(run_id="r4", after=4, attempt=2, requeues=1, status=TaskStatus.PENDING),
            witness=Witness.HANDED_BACK,
        ),
        ran(run_id="r5", after=5, attempt=2, requeues=1),
        replace(sent(), run_id="!cancel", status=TaskStatus.REVOKED, witness=Witness.ENDED),
    ]
    await repository.write(reports[::-1])

    found = await reader.attempts("a")

    assert [1, 1, 2, 2, 2] == [run.attempt for run in found]
    assert ["first", "redelivery", "retry", "requeue", "redelivery"] == [r.cause for r in found]
    assert ["first", "second", "third", None, None] == [run.error for run in found]
    assert TaskStatus.PENDING is found[3].status


async def test_the_first_known_run_of_a_second_attempt_is_a_retry(repository, reader):
    """What came before was not recorded; the number tells of it all the same."""
    await repository.write([ran(attempt=2, birth={"rerun_of": "b"})])

    assert [Cause.RETRY] == [run.cause for run in await reader.attempts("a")]


# ── counts ──────────────────────────────────────────────────────────────────────────────────────
async def test_stats_count_by_status_module_and_name(repository, reader):
    """Our own sweeps do not count unless asked for."""
    name = {"task_name": "shop:pay"}
    own = {"module": "aiotrack", "task_name": "aiotrack:cleanup"}
    await repository.write(
        [
            sent("a"),
            ran("b", birth=name),
            ran("c", birth=name, status=TaskStatus.FAILURE),
            sent("d", module="crm", **name),
            ran("e", birth=own),
        ]
    )

    found = await reader.stats()

    assert (4, 2, 1, 1) == (found.total, found.pending, found.success, found.failure)
    assert 0.5 == found.failure_rate
    assert Counts(total=1, pending=1) == found.by_module["crm"]
    assert Counts(total=3, pending=1, success=1, failure=1) == found.by_task_name["shop:pay"]
    assert {"crm", "shop"} == set(found.by_module)
    assert 1 == (await reader.stats(module="aiotrack")).total
    assert 1 == (await reader.stats(status="failed", task_name="shop:pay")).total
    assert 0 == (await reader.stats(module="nobody")).total


# ── time ────────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture
async def slow(repository, database_url):
    """A database whose executions take for ever to read, and a way to end that."""
    await repository.connect()
    if repository.dialect == "postgresql":
        other = await asyncpg.connect(database_url.replace("+asyncpg", ""))
        hold = other.transaction()
        await hold.start()
        await other.execute("LOCK TABLE aiotrack_executions")
        yield hold.rollback
        await other.close()
        return
    endless = (
        "CREATE VIEW aiotrack_executions AS WITH RECURSIVE n(i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT kept.* FROM n CROSS JOIN kept "
        "WHERE n.i < 0"
    )

    async def run(*statements: str) -> None:
        async with repository.engine.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))

    await run("ALTER TABLE aiotrack_executions RENAME TO kept", endless)
    yield lambda: run(
        "DROP VIEW aiotrack_executions", "ALTER TABLE kept RENAME TO aiotrack_executions"
    )


async def test_a_query_that_no_index_serves_ends_after_two_seconds(repository, reader, slow):
    """It ends with the seconds and an advice, and the reader goes on working."""
    with pytest.raises(QueryTimeout, match="narrow the filter") as caught:
        await reader.list(order="finished_at")
    await slow()

    assert 2.0 == caught.value.seconds
    assert [] == (await reader.list()).items
    assert 0 == (await reader.stats()).total


async def test_a_database_that_fails_is_unavailable_not_slow(repository, reader):
    """Only the end of the two seconds is told as a time-out."""
    await repository.connect()
    async with repository.engine.begin() as connection:
        await connection.execute(text("DROP TABLE aiotrack_executions"))

    for read in (reader.list, reader.stats, lambda: reader.get("a")):
        with pytest.raises(StoreUnavailable, match="aiotrack_executions"):
            await read()


async def test_a_caller_who_gives_up_breaks_no_connection(repository, reader):
    """Reads that are cancelled at any moment leave the reader whole."""
    await repository.write([sent()])
    for steps in range(8):
        reading = asyncio.ensure_future(reader.list())
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    assert "a" == (await reader.get("a")).task_id
