"""When a group starts, with no database: the counts and the timers alone."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiotrack.pace import FEW, GATHER, GRACE, HOLD, LATE, RECENT, STEP, STRIDE, Alarm, Pace, Waiting


class Watch:
    """A pace, and the moments (seconds from its making) at which it started a group."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.begun = self.loop.time()
        self.pace = Pace(self.loop, self._go)
        self.moments: list[float] = []
        self.started = asyncio.Event()

    def _go(self) -> None:
        self.moments.append(self.loop.time() - self.begun)
        self.started.set()

    async def next_start(self) -> float:
        """Wait for the next start of a group; give its moment."""
        self.started.clear()
        async with asyncio.timeout(5):
            await self.started.wait()
        return self.moments[-1]

    def run(self, count: int) -> None:
        """Let so many runs begin."""
        for _ in range(count):
            self.pace.begin()

    def join(self, count: int) -> None:
        """Let so many wait."""
        for _ in range(count):
            self.pace.join(at_once=False)

    def write(self, ended: int) -> None:
        """Write a group: its hooks go on, and their runs are over."""
        self.pace.take().release(True)
        for _ in range(ended):
            self.pace.end()
        self.pace.done()


async def test_a_lone_run_meets_no_timer() -> None:
    """It is all that is in flight."""
    watch = Watch()
    watch.run(1)
    watch.join(1)

    assert 1 == len(watch.moments)


async def test_a_sender_meets_no_timer() -> None:
    """Whoever is no run in flight waits for nobody."""
    watch = Watch()
    watch.run(50)
    watch.pace.join(at_once=True)

    assert 1 == len(watch.moments)


async def test_a_group_starts_when_nobody_joins() -> None:
    """One long run does not hold up a short one for longer than a step."""
    watch = Watch()
    watch.run(2)
    watch.join(1)
    started = await watch.next_start()

    assert STEP <= started + 0.001  # timers may fire a clock tick early


async def test_a_group_gathers_while_others_join_but_not_for_ever() -> None:
    """As long as somebody joins in each step it goes on, up to the limit."""
    watch = Watch()
    watch.run(100_000)
    while not watch.moments:
        watch.join(1)
        await asyncio.sleep(0)

    assert GATHER <= watch.moments[0] + 0.001
    assert 1 == len(watch.moments)


async def test_a_group_gathers_while_the_last_one_is_acknowledged() -> None:
    """Runs that end make room for others: those are worth waiting for."""
    watch = Watch()
    watch.run(100)
    watch.join(1)
    until = watch.loop.time() + 3 * STEP
    while watch.loop.time() < until:
        watch.pace.end()
        watch.pace.begin()
        await asyncio.sleep(0)
    during = len(watch.moments)
    await watch.next_start()

    assert 0 == during


async def test_hooks_go_on_a_few_at_a_time() -> None:
    """A crowd that goes on at once would acknowledge over as many connections."""
    watch = Watch()
    watch.run(3 * STRIDE)
    watch.join(3 * STRIDE)
    waiting = watch.pace.take()
    waiting.release(True)
    told = []
    while not all(one.done() for one in waiting.futures):
        told.append(sum(one.done() for one in waiting.futures))
        await asyncio.sleep(0)

    assert [STRIDE, 2 * STRIDE] == told


async def test_all_hooks_go_on_at_once_when_nothing_is_committed() -> None:
    """The loop may be about to end."""
    watch = Watch()
    watch.run(3 * STRIDE)
    watch.join(3 * STRIDE)
    waiting = watch.pace.take()
    waiting.release(False)

    assert [False] * 3 * STRIDE == [one.result() for one in waiting.futures]


async def test_a_body_that_blocks_the_loop_holds_up_no_crowd() -> None:
    """Runs that begin between two strides may take long: then all others go on."""
    watch = Watch()
    watch.run(10 * STRIDE)
    watch.join(10 * STRIDE)
    waiting = watch.pace.take()
    waiting.release(True)
    time.sleep(2 * HOLD)  # noqa: ASYNC251 - as a body that blocks
    await asyncio.sleep(0)

    assert all(one.done() for one in waiting.futures)


@pytest.mark.parametrize(
    ("count", "enough"), [(2, 1), (3, 1), (5, 2), (10, 4), (FEW, 7), (FEW + 1, 11), (100, 50)]
)
async def test_some_are_written_while_the_others_work(count: int, enough: int) -> None:
    """Where all in flight wait no more fit; from then on a half, or a third of few, is a group."""
    watch = Watch()
    watch.run(count)
    watch.join(count)
    first = len(watch.moments)
    watch.write(count)
    watch.run(count)
    watch.join(enough - 1)
    fewer = len(watch.moments)
    watch.join(1)

    assert (1, 1, 2) == (first, fewer, len(watch.moments))


async def test_a_limit_that_is_passed_is_forgotten() -> None:
    """More runs at once than ever waited: a share of the old number is not worth a write."""
    watch = Watch()
    watch.run(10)
    watch.join(10)
    watch.write(10)
    watch.run(30)
    watch.join(9)

    assert 1 == len(watch.moments)


async def test_a_lull_is_no_limit() -> None:
    """Few runs in flight, moments after many: the many may be back, few are no group."""
    watch = Watch()
    watch.run(50)
    watch.join(50)
    watch.write(50)
    watch.run(3)
    watch.join(3)
    lull = len(watch.moments)
    watch.write(3)
    for _ in range(2):
        await asyncio.sleep(1.1 * RECENT)
        watch.run(3)
        watch.join(3)
        watch.write(3)
    watch.run(3)
    watch.join(3)

    assert 1 == lull
    assert 2 <= len(watch.moments)


async def test_what_gathered_during_a_write_follows_it() -> None:
    """The others wait already when the first are written: they need no timer."""
    watch = Watch()
    watch.run(4)
    watch.join(4)
    watch.write(4)
    watch.run(4)
    watch.join(2)
    group = watch.pace.take()
    watch.join(2)
    during = len(watch.moments)
    group.release(True)
    watch.pace.done()

    assert (2, 3) == (during, len(watch.moments))


# ── the alarm ───────────────────────────────────────────────────────────────────────────────────
class Group:
    """A group that waits, and what became of it."""

    def __init__(self, budget: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.waiting = Waiting(self.loop)
        self.given_up: list[float] = []
        self.alarm = Alarm(self.loop, budget, lambda: [self.waiting], self._give_up)
        self.alarm.watch(self.waiting)

    def _give_up(self, waiting: Waiting) -> None:
        self.given_up.append(self.loop.time())
        waiting.release(False)


async def test_an_answer_that_came_while_the_loop_was_blocked_is_in_time() -> None:
    """Who wrote is woken a turn after the alarm; without an answer it rings a moment later."""
    answered, silent = Group(0.05), Group(0.05)
    answer: asyncio.Future[bool] = answered.loop.create_future()

    async def write() -> None:
        answered.waiting.release(await answer)

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(answered.loop.call_soon_threadsafe, answer.set_result, True)
    time.sleep(0.05 + 2 * LATE)  # noqa: ASYNC251 - as a body that blocks
    begun = answered.loop.time()
    await writing
    await asyncio.sleep(GRACE + 0.1)

    assert [] == answered.given_up
    assert 1 == len(silent.given_up)
    assert GRACE / 2 < silent.given_up[0] - begun
