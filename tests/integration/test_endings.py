"""Loops, processes and forks end, announced or not: nothing is lost, nothing is left open."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import event

from aiotrack import TaskStatus, Tracker, tracking
from aiotrack.journal import Journal
from aiotrack.report import Witness
from tests.integration.bench import bench
from tests.integration.endings import COUNT
from tests.integration.proxy import proxied
from tests.waits import until

ROOT = Path(__file__).parents[2]

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A context manager: a process of ``endings.py``; ended processes are checked."""

    @contextlib.asynccontextmanager
    async def run(module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-m", f"tests.integration.{module}", *arguments),
            cwd=ROOT,
            env={**os.environ, "AIOTRACK_JOURNAL_DIR": str(tmp_path / "journals")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    return run


async def told(run: Run, name: str, url: str) -> list[dict[str, Any]]:
    """Run a process to its end; give what it said. It must end well and complain about nothing."""
    async with run("endings", name, url) as process:
        out, complaints = await process.communicate()

    assert (0, "") == (process.returncode, complaints.decode())
    return [json.loads(line) for line in out.splitlines()]


async def counted(url: str, journals: Path | None = None) -> dict[str, int]:
    """Give how many final records there are by what stands before their number.

    With a folder, journals that others left there are replayed first.
    """
    settings = {} if journals is None else {"journal_dir": str(journals)}
    found: dict[str, int] = {}
    async with Tracker(url, settings=settings) as tracker:
        if journals is not None:

            async def is_replayed() -> bool:
                return not await asyncio.to_thread(lambda: list(journals.rglob("*.journal")))

            await until("journals are replayed", is_replayed, 10)
        page = None
        while page is None or page.next is not None:
            page = await tracker.list(limit=500, after=None if page is None else page.next)
            for one in page.items:
                assert (TaskStatus.SUCCESS, 1) == (one.status, one.runs)
                name = one.task_id.rpartition(" ")[0]
                found[name] = found.get(name, 0) + 1
    return found


# ── loops ───────────────────────────────────────────────────────────────────────────────────────
async def test_two_loops_in_two_threads_share_a_tracker(run: Run, database_url: str) -> None:
    """A loop each, at the same time: all is recorded, and nothing is left open."""
    await told(run, "threads", database_url)
    found = await counted(database_url)

    assert 16 == len(found)
    assert {COUNT} == set(found.values())


async def test_loops_one_after_the_other_need_no_stop(run: Run, database_url: str) -> None:
    """`asyncio.run` again and again: each writes what it has, and closes what it opened."""
    await told(run, "one_after_the_other", database_url)
    found = await counted(database_url)

    assert {f"{name}{more}": COUNT for name in "abc" for more in ("", " buffered")} == found


async def test_a_loop_that_was_closed_by_hand_hands_over(run: Run, database_url: str) -> None:
    """Without any hook of its end: the next loop writes what it left."""
    await told(run, "closed_by_hand", database_url)

    assert {"a": COUNT, "a buffered": COUNT} == await counted(database_url)


# ── ends ────────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("durability", ["commit", "async"])
async def test_a_script_that_stops_nothing_loses_nothing(
    run: Run, database_url: str, durability: str
) -> None:
    """It sends and ends: every send is recorded, and that its runs were cancelled."""
    await told(run, f"script_{durability}", database_url)
    async with Tracker(database_url) as tracker:
        page = await tracker.list(limit=500)

    assert COUNT == len(page.items)
    assert {(TaskStatus.FAILURE, "cancelled")} == {(o.status, o.error_class) for o in page.items}


@pytest.mark.parametrize("name", ["abandoned", "abandoned_in_a_child"])
async def test_a_loop_that_does_not_go_on_leaves_a_journal(
    run: Run, database_url: str, tmp_path: Path, name: str
) -> None:
    """The process ends and the loop was not closed: who comes next has what was in the buffer."""
    await told(run, name, database_url)
    before = await counted(database_url)
    after = await counted(database_url, tmp_path / "journals")

    whole = {"a": COUNT, "a buffered": COUNT}
    assert before in ({"a": COUNT}, whole)  # a write that was under way may have gone on alone
    assert whole == after


@pytest.mark.timeout(60)
async def test_a_stop_with_runs_in_flight_keeps_what_was_reported(
    postgres_url: str, tmp_path: Path
) -> None:
    """The database is away: sends and starts are journaled at once, ends when they come."""
    settings = {"journal_dir": str(tmp_path / "journals")}
    gate = asyncio.Event()
    async with proxied(postgres_url) as (proxy, url):
        tracker = Tracker(url, settings=settings)
        async with bench(tracker) as b:

            @b.task("shop.slow")
            async def slow() -> None:
                await gate.wait()

            await slow.kiq()
            await proxy.stop()
            with tracking(durability="async"):
                sent = {(await slow.kiq()).task_id for _ in range(COUNT)}
            begun = time.perf_counter()
            await b.broker.shutdown()
            took = time.perf_counter() - begun
            folder = tracker.core().keeper._journal._folder
            shutil.copytree(folder, tmp_path / "copy")
            gate.set()
            await b.settle()
            await proxy.start()
            flushed = await tracker.flush(10)
        stats = await tracker.stats()
        await tracker.shutdown()
    (left,) = Journal(tmp_path / "copy").adopt()
    kept, _ = left.read(0, 10 * COUNT)
    left.close()

    assert 5 > took
    for witness in (Witness.SENT, Witness.STARTED):
        assert sent <= {one.origin.task_id for one in kept if one.witness is witness}
    assert flushed
    assert (COUNT + 1, COUNT + 1) == (stats.total, stats.success)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_a_web_application_that_is_stopped_loses_no_send(
    run: Run, database_url: str, tmp_path: Path, sign: int
) -> None:
    """FastAPI's lifespan stops the broker: what the last requests sent is recorded."""
    socket = tmp_path / "socket"

    async def post(number: int) -> str:
        reader, writer = await asyncio.open_unix_connection(socket)
        writer.write(
            f"POST /orders/{number} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        )
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert answer.startswith(b"HTTP/1.1 200")
        return str(json.loads(answer.rpartition(b"\r\n\r\n")[2]))

    async def is_up() -> bool:
        return socket.exists()

    async with run("site", database_url, str(socket)) as process:
        await until("the application answers", is_up, 15)
        sent = await asyncio.gather(*(post(number) for number in range(COUNT)))
        process.send_signal(sign)
        complaints = (await process.communicate())[1].decode()
    async with Tracker(database_url) as tracker:
        page = await tracker.list(limit=500)

    assert sorted(sent) == sorted(one.task_id for one in page.items)
    assert {TaskStatus.PENDING} == {one.status for one in page.items}
    assert "aiotrack" not in complaints
    assert "Traceback" not in complaints.replace("KeyboardInterrupt", "") or sign is signal.SIGINT


# ── forks ───────────────────────────────────────────────────────────────────────────────────────
async def test_a_fork_shares_nothing_with_its_parent(run: Run, database_url: str) -> None:
    """Buffer, connections and name are the parent's; what it had reported it writes, once."""
    child, parent = await told(run, "fork", database_url)
    found = await counted(database_url)

    assert 0 == child["left"], "the child has the parent's buffer"
    assert child["worker"] != parent["worker"]
    assert (0, 0, 3 * COUNT) == (parent["status"], parent["failures"], parent["flushed"])
    assert dict.fromkeys(("parent", "buffered", "child", "afterwards"), COUNT) == found


async def test_processes_of_every_kind_have_trackers_of_their_own(
    run: Run, database_url: str
) -> None:
    """Forked, spawned, from a fork server, none of them stopped: all is recorded."""
    said = await told(run, "processes", database_url)
    found = await counted(database_url)

    assert 4 == len({one["worker"] for one in said})
    assert 9 == len(found)
    assert {COUNT} == set(found.values())


async def test_a_child_does_not_keep_its_parents_journal(
    run: Run, postgres_url: str, tmp_path: Path
) -> None:
    """The parent is killed and its child lives on: another process adopts the journal."""
    async with proxied(postgres_url) as (proxy, url):
        await proxy.stop()
        async with run("endings", "outlived", url) as process:
            pids = json.loads(await process.stdout.readline())
            process.kill()

            async def is_dead() -> bool:  # its pipes are not closed: the child has them
                return not psutil.pid_exists(process.pid) or (
                    psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
                )

            await until("the parent is dead", is_dead, 5)
            try:
                await proxy.start()
                found = await counted(url, tmp_path / "journals")
            finally:
                os.kill(pids["child"], signal.SIGKILL)

    assert {"last": 1} == found


async def test_a_child_does_not_keep_the_lock_of_a_file(run: Run, sqlite_url: str) -> None:
    """It was forked while a thread held it; its parent frees it for all."""
    (said,) = await told(run, "fork_inside_the_lock", sqlite_url)

    assert 4 > said["waited"], "a lock that nobody frees is waited for five seconds"


# ── cancellation ────────────────────────────────────────────────────────────────────────────────
async def cancel_at_random(tracker: Tracker, count: int) -> tuple[int, set[str]]:
    """Cancel *count* users of the tracker somewhere in their work, and see that nothing leaked.

    Gives how many were cancelled, and the tasks whose sends or runs were reported.
    """
    chance = random.Random(27)
    reported: set[str] = set()
    reached: list[BaseException | None] = []
    repository = tracker.core().repository
    pools = {engine.pool for engine in (repository.engine, repository._reads)}
    for pool in pools:
        event.listen(pool, "invalidate", lambda *told: reached.append(told[2]))
    async with bench(tracker, inplace=True) as b:

        @b.task("shop.work")
        async def work(number: int) -> int:
            await tracker.progress(number % 101, order=number)
            return number

        async def user(number: int) -> None:
            task_id = f"task {number}"
            if number % 3 == 0:
                async with tracker.track("shop.block", task_id=task_id):
                    reported.add(task_id)
                    await tracker.progress(50)
            elif number % 3 == 1:
                await tracker.register(task_id, "shop.registered", status="started")
                await tracker.update(task_id, "success", metadata={"number": number})
                reported.add(task_id)
                await tracker.list(limit=5)
            else:
                await work.kicker().with_task_id(task_id).kiq(number)
                reported.add(task_id)

        cancelled = 0
        for first in range(0, count, 20):
            pause = chance.choice([0.003, 0.03, 0.3])
            users = [asyncio.create_task(user(n)) for n in range(first, first + 20)]
            for one in users:
                asyncio.get_running_loop().call_later(chance.expovariate(1 / pause), one.cancel)
            done = await asyncio.gather(*users, return_exceptions=True)
            cancelled += sum(isinstance(one, asyncio.CancelledError) for one in done)
            faults = [one for one in done if isinstance(one, Exception)]
            assert [] == faults
        await tracker.flush(10)
        core = tracker.core()

        async def is_calm() -> bool:  # what a cancelled user began goes on without it
            return not core.repository._apart

        await until("nothing is under way", is_calm, 10)
        held = 0 if core.repository.dialect == "sqlite" else 1  # the writer's
        in_use = sum(pool.checkedout() for pool in pools)
        assert {repository.engine.pool, repository._reads.pool} == pools
        assert (held, False) == (in_use, core.recorder.is_busy)
        assert [] == reached
        assert 0 == core.recorder.counters["failures"], "a cancellation reached a write"
    return cancelled, reported


async def outlive_cancels(url: str, count: int) -> None:
    """See that nothing leaked, and that everything reported is there."""
    async with Tracker(url) as tracker:
        cancelled, reported = await cancel_at_random(tracker, count)
        found = set()
        page = None
        while page is None or page.next is not None:
            page = await tracker.list(limit=500, after=None if page is None else page.next)
            found |= {one.task_id for one in page.items}
    print(f"{cancelled} of {count} cancelled, {len(reported)} reported")

    assert set() == reported - found
    assert count // 20 < cancelled < count


async def test_cancelled_users_leak_no_connection(database_url: str) -> None:
    """Sends, runs, blocks, registrations, reads, cancelled anywhere: the pool is whole."""
    await outlive_cancels(database_url, 400)


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_cancelled_users_leak_no_connection_for_long(database_url: str) -> None:
    """The same with 20,000 users."""
    await outlive_cancels(database_url, 20_000)
