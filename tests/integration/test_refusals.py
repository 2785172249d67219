"""A database that refuses, and writers that meet on the same rows: every group goes in."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aiotrack import Tracker
from aiotrack.clock import Clock
from aiotrack.report import Witness
from aiotrack.repository import Repository
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import bench
from tests.integration.load import BUDGET, QUICK, Load, everything, run_report


# ── R20: refusals ───────────────────────────────────────────────────────────────────────────────
@contextlib.asynccontextmanager
async def no_connections(server: PostgresServer) -> AsyncIterator[None]:
    """53300: others hold every connection, and ours are ended."""
    held = []
    try:
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while len(held) < 100:
                held.append(await asyncpg.connect(server.dsn))
        query = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE "
        await held[0].execute(f"{query} application_name = 'aiotrack'")
        with contextlib.suppress(asyncpg.PostgresError, OSError):
            while len(held) < 100:
                held.append(await asyncpg.connect(server.dsn))
        yield
    finally:
        for one in held:
            await one.close()


@contextlib.asynccontextmanager
async def setting(server: PostgresServer, *words: str) -> AsyncIterator[None]:
    """Change the server's settings for every session."""
    for word in words:
        await asyncio.to_thread(server.psql, f"ALTER SYSTEM SET {word}")
    await asyncio.to_thread(server.psql, "SELECT pg_reload_conf()")
    try:
        yield
    finally:
        for word in words:
            name = word.partition(" ")[0]
            await asyncio.to_thread(server.psql, f"ALTER SYSTEM RESET {name}")
        await asyncio.to_thread(server.psql, "SELECT pg_reload_conf()")


@contextlib.asynccontextmanager
async def locked(server: PostgresServer, *words: str) -> AsyncIterator[None]:
    """55P03, 57014, or no answer at all: somebody locks the table."""
    async with setting(server, *words):
        holder = await asyncpg.connect(server.dsn)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE aiotrack_executions IN ACCESS EXCLUSIVE MODE")
                yield
        finally:
            await holder.close()


CAUSES: dict[str, Callable[[PostgresServer], Any]] = {
    "53300 too many connections": no_connections,
    "25006 read only": lambda server: setting(server, "default_transaction_read_only = on"),
    "55P03 lock timeout": lambda server: locked(server, "lock_timeout = 200"),
    "57014 statement timeout": lambda server: locked(server, "statement_timeout = 300"),
    "a lock for ever": locked,
}


@pytest.mark.timeout(100)
async def test_every_refusal_is_recovered_from_without_a_restart(tmp_path: Path) -> None:
    """R20: whatever the database says, tasks go on; within 10 s after its cause all is stored."""
    limits = {"max_connections": "14", "superuser_reserved_connections": "0"}
    recovery = {}
    with PostgresServer(settings=limits) as server:
        async with Tracker(server.url) as tracker, bench(tracker) as b:
            load = Load(b)
            for name, cause in CAUSES.items():
                await load.batch()
                async with cause(server):
                    await load.batch()
                    await asyncio.sleep(BUDGET)
                    quick = await load.batch()
                    failures = tracker.recorder().counters["failures"]
                begun = time.perf_counter()
                flushed = await tracker.flush(15)
                recovery[name] = (flushed, time.perf_counter() - begun)

                assert 0 < failures, name
                assert QUICK > quick, name
                tracker.recorder().counters["failures"] = 0
            wrong = load.faults(await everything(tracker))
            dropped = tracker.recorder().counters["dropped"]
    print({name: round(took, 2) for name, (_, took) in recovery.items()})

    assert [] == wrong[:5]
    assert 0 == dropped
    assert {} == {name: one for name, one in recovery.items() if not one[0] or one[1] > 10}


# ── R23: the same rows from everywhere ──────────────────────────────────────────────────────────
@pytest.mark.timeout(60)
async def test_writers_that_meet_on_the_same_rows_never_fail(postgres_url: str) -> None:
    """R23: four writers, the same 200 tasks in any order, 50 rounds: no group fails."""
    stores = [Repository(postgres_url, clock=Clock()) for _ in range(4)]

    async def write(number: int, store: Repository) -> None:
        chance = random.Random(number)
        writer = store._make_writer()
        for round_ in range(50):
            reports = [
                run_report(f"task {n}", attempt=1 + (n + round_) % 3 // 2, witness=witness)
                for n in range(200)
                for witness in chance.choices([Witness.STARTED, Witness.ENDED])
            ]
            chance.shuffle(reports)
            await writer.write(reports)
        await writer.release()

    await asyncio.gather(*(write(number, store) for number, store in enumerate(stores)))
    async with Tracker(postgres_url) as tracker:
        stats = await tracker.stats()
    for store in stores:
        await store.close()

    assert (200, 200) == (stats.total, stats.success)
