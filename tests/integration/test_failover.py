"""The server that takes writes is another one now: it is found, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from sqlalchemy import text

from aiotrack import InvalidSetting, Tracker
from aiotrack.clock import Clock
from aiotrack.repository import Repository
from aiotrack.testing.servers import PostgresServer
from tests.integration.bench import bench
from tests.integration.proxy import proxied
from tests.integration.test_faults import Load, everything, run_report

RECOVERY = 10.0
"""Seconds after a promotion until recording goes on, at most."""


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    """The server that takes writes at first."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """A server that follows it; each commit waits for both."""
    with PostgresServer(standby_of=primary) as server:
        wait_for_both(primary)
        yield server


def wait_for_both(primary: PostgresServer) -> None:
    """Let each commit wait until a standby has it on its disk."""
    primary.psql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.psql("SELECT pg_reload_conf()")
    query = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
    end = time.monotonic() + 10
    while primary.psql(query) == "0":
        assert time.monotonic() < end, "the standby does not follow"
        time.sleep(0.02)


def url_of_both(*servers: PostgresServer) -> str:
    """Give the URL of several servers, as libpq writes it."""
    account = servers[0].url.rpartition("@")[0]
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"{account}@{hosts}/postgres?target_session_attrs=read-write"


async def fail_over(load: Load, old: PostgresServer, new: PostgresServer, how: str) -> float:
    """Let *new* take over under load; give the seconds until its first record is committed."""
    async with load.all_the_time():
        await asyncio.sleep(0.3)
        await asyncio.to_thread(old.kill if how == "killed" else old.pause)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(new.promote)
        begun = time.perf_counter()
        recorder = load._bench.tracker.recorder()
        flushed = recorder.counters["flushed"]
        while recorder.counters["flushed"] == flushed:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        took = time.perf_counter() - begun
        await asyncio.sleep(0.2)
    return took


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["killed", "silent"])
async def test_a_promoted_standby_is_found_and_nothing_is_lost(
    primary: PostgresServer, standby: PostgresServer, how: str
) -> None:
    """R22: the primary dies, or says nothing any more; its standby goes on with every record."""
    async with Tracker(url_of_both(primary, standby)) as tracker, bench(tracker) as b:
        load = Load(b)
        took = await fail_over(load, primary, standby, how)
        flushed = await tracker.flush(20)
        wrong = load.faults(await everything(tracker))
        dropped = tracker.recorder().counters["dropped"]
    print(f"{how}: {took:.2f} s after the promotion, {len(load.sent)} tasks")

    assert flushed
    assert [] == wrong[:5]
    assert 0 == dropped
    assert RECOVERY > took


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_ten_fail_overs_in_a_row_lose_nothing() -> None:
    """R22, long: the primary dies ten times, and comes back as the standby of its standby."""
    took = []
    with contextlib.ExitStack() as servers:
        old = servers.enter_context(PostgresServer())
        new = servers.enter_context(PostgresServer(standby_of=old))
        async with Tracker(url_of_both(old, new)) as tracker, bench(tracker) as b:
            load = Load(b)
            for number in range(10):
                await asyncio.to_thread(wait_for_both, old)
                how = "silent" if number % 3 == 2 else "killed"
                took.append(await fail_over(load, old, new, how))
                port = old.port
                await asyncio.to_thread(old.kill)
                old, gone = new, old
                gone.close()
                new = PostgresServer(standby_of=old, port=port)
                await asyncio.to_thread(servers.enter_context, new)
            flushed = await tracker.flush(20)
            wrong = load.faults(await everything(tracker))
            dropped = tracker.recorder().counters["dropped"]
    print(f"{len(load.sent)} tasks; recording went on after {sorted(round(x, 2) for x in took)} s")

    assert flushed
    assert [] == wrong[:5]
    assert 0 == dropped
    assert RECOVERY > max(took)


@contextlib.asynccontextmanager
async def connections(repository: Repository, count: int) -> AsyncIterator[list[bool]]:
    """Hold so many at once; give for each whether it leads to a standby."""
    async with contextlib.AsyncExitStack() as stack:
        held = [await stack.enter_async_context(repository.connection()) for _ in range(count)]
        query = text("SELECT pg_is_in_recovery()")
        yield [(await one.execute(query)).scalar_one() for one in held]


async def test_a_read_only_server_costs_all_connections_to_it(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    """R22, 25006: one address that led to the standby for a while; reads go to the writer, too."""
    async with proxied(primary.url) as (proxy, url), Tracker(url) as tracker:
        repository = tracker.core().repository
        proxy.lead_to(standby.port)
        proxy.cut()
        await repository.release()
        async with connections(repository, 2) as before:  # in use, while the writer finds out
            await tracker.recorder().commit(run_report("a"), at_once=True)
            refused = tracker.recorder().counters["failures"]
            proxy.lead_to(primary.port)
            flushed = await tracker.flush(10)
        async with connections(repository, 2) as after:
            pass

    assert flushed
    assert 0 < refused
    assert [True, True] == before
    assert [False, False] == after


# ── URLs ────────────────────────────────────────────────────────────────────────────────────────
FORMS = [
    "postgresql+asyncpg://u:p@one:1,two:2/name",
    "postgres://u:p@one:1,two:2/name?target_session_attrs=read-write",
    "postgresql://u:p@/name?host=one:1&host=two:2",
    "postgresql://u:p@/name?host=two,one&port=2,1",
]


@pytest.mark.parametrize("url", FORMS)
def test_hosts_may_be_written_in_every_usual_way(url: str) -> None:
    """The form of libpq and both of SQLAlchemy name the same database, in any order."""
    name = Repository(url, clock=Clock()).name

    assert "postgresql:u@one:1,two:2/name" == name


def test_ports_and_brackets_of_hosts_are_understood() -> None:
    """A host without a port has 5432; an IPv6 address stands in brackets."""
    name = Repository("postgresql://u@[::1]:7,[fe80::2],three/n", clock=Clock()).name

    assert "postgresql:u@::1:7,fe80::2:5432,three:5432/n" == name


@pytest.mark.parametrize("asked", ["any", "standby", "read-only", "prefer-standby"])
def test_a_standby_cannot_be_asked_for(asked: str) -> None:
    """Records are written: an address that may lead to a standby is refused, with what to say."""
    with pytest.raises(InvalidSetting, match="say read-write"):
        Repository(f"postgresql://u@one,two/n?target_session_attrs={asked}", clock=Clock())


async def test_no_writer_among_several_hosts_is_told_for_each(
    primary: PostgresServer, standby: PostgresServer
) -> None:
    """The error names every host with its reason."""
    ports = (primary.port, standby.port)
    url = url_of_both(primary, standby)
    await asyncio.to_thread(primary.kill)
    tracker = Tracker(url)
    with pytest.raises(Exception, match="no host takes writes") as caught:
        await tracker.startup()
    await tracker.shutdown()

    assert all(f"127.0.0.1:{port}: " in str(caught.value) for port in ports)
