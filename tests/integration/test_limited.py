"""Reads with a limit leave no broken connection behind, whatever ends them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from aiotrack import QueryTimeout, StoreUnavailable, Tracker
from aiotrack.testing.servers import PostgresServer


async def test_a_restart_of_the_server_costs_no_read_after_it(own_postgres: PostgresServer) -> None:
    """Connections that died in the pool are replaced: lists and counts work again."""
    async with Tracker(own_postgres.url) as tracker:
        await tracker.register("x", "shop.rows")
        await asyncio.gather(*(tracker.list() for _ in range(4)), tracker.stats())
        own_postgres.kill()
        with pytest.raises(StoreUnavailable):
            await tracker.list()
        await asyncio.to_thread(own_postgres.start)
        async with asyncio.timeout(15):
            while True:
                with contextlib.suppress(StoreUnavailable):
                    await tracker.list()
                    break
                await asyncio.sleep(0.1)
        for _ in range(3):
            assert ["x"] == [one.task_id for one in (await tracker.list()).items]
            assert 1 == (await tracker.stats()).total


async def test_a_read_that_ran_out_of_time_leaves_its_connection_usable(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is rolled back, and the next read is served."""
    from aiotrack.repository import limited

    async with Tracker(postgres_url) as tracker:
        await tracker.register("x", "shop.rows")
        monkeypatch.setattr(limited, "LIMIT", limited._MARGIN)  # no time at all
        for _ in range(8):
            with contextlib.suppress(QueryTimeout):
                await tracker.stats(metadata={"a": 1})
        monkeypatch.undo()

        assert 1 == (await tracker.stats()).total
        assert 1 == len((await tracker.list()).items)
