"""Who sends what is held: once, whatever ends, is killed, or looks at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from taskiq import BrokerMessage, TaskiqMiddleware

from aiotrack import StoreUnavailable, TaskStatus, Tracker, TrackerMiddleware
from aiotrack.repository.control import held
from aiotrack.repository.control.held import Held
from aiotrack.submission import Submission, feature, release
from tests.control.crew import QuietBroker
from tests.submission.shop import Shop, count
from tests.waits import until

ROOT = Path(__file__).resolve().parents[2]
SUCCESS, FAILURE = TaskStatus.SUCCESS, TaskStatus.FAILURE

BURST = 30
"""Submits that race at once."""


class Mute(QuietBroker):
    """A broker that keeps what is sent, and may be broken, or slow but for one message."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.add_middlewares(TrackerMiddleware(tracker))
        self.is_broken = False
        self.hold_up: asyncio.Event | None = None
        self.swift = ""

        @self.task("shop.note")
        async def note(name: str) -> None:
            """Never run here."""

        self.note = note

    async def kick(self, message: BrokerMessage) -> None:
        """Keep a message."""
        if self.is_broken:
            raise ConnectionError("the broker is away")
        if self.hold_up is not None and message.task_id != self.swift:
            await self.hold_up.wait()
        await super().kick(message)


@pytest.fixture
def no_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look but the test."""
    monkeypatch.setattr(Submission, "_watch", lambda _: None)


async def look(tracker: Tracker) -> None:
    """Look after all that is held, now."""
    await tracker.feature(Submission).releaser.look()


async def settle(tracker: Tracker, sent: Any) -> None:
    """Look after one message."""
    await tracker.feature(Submission).releaser.settle([sent.task_id])


def wait_for_claims(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let time pass until every claim is given up."""
    later = tracker.clock.now() + int(release.GIVEN_UP * 1e6) + 1
    monkeypatch.setattr(tracker.clock, "now", lambda: later)


async def send_and_keep(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, drop: Callable[..., Any]
) -> tuple[Any, int]:
    """Send what waited, with *drop* in place of its deletion; give it, and how many are kept."""
    await tracker.register("need", "shop.pack", status="STARTED")
    sent = await tracker.submit("shop.note", ["a"], depends_on="need")
    with monkeypatch.context() as patch:
        patch.setattr(Held, "drop", drop)
        await tracker.update("need", "done")
        with contextlib.suppress(StoreUnavailable):
            await settle(tracker, sent)
    return sent, await count(tracker, "held")


async def race(database: str, rounds: int) -> list[TaskStatus]:
    """Let needs end, by the word of another process, while what waits for them is submitted."""
    async with Tracker(database) as tracker, Tracker(database) as other:
        shop = Shop(tracker)

        async def one(number: int) -> Any:
            await other.register(f"need {number}", "shop.pack", status="STARTED")
            word = "failed" if number % 4 == 0 else "done"

            async def end() -> None:
                await asyncio.sleep(number % 10 / 1000)
                await other.update(f"need {number}", word)

            ending = asyncio.create_task(end())
            sent = await shop.hold(str(number), f"need {number}")
            await ending
            return sent

        found: list[TaskStatus] = []
        for start in range(0, rounds, BURST):
            numbers = range(start, min(start + BURST, rounds))
            sends = await asyncio.gather(*map(one, numbers))
            found += [(await shop.done(sent)).status for sent in sends]

        async def is_empty() -> bool:
            return await shop.held() == (0, 0)

        await until("nothing is held", is_empty)

    assert sorted(shop.begun) == sorted(str(number) for number in range(rounds) if number % 4)
    return found


async def test_nothing_that_ends_meanwhile_is_missed(database_url: str) -> None:
    """Before, while, and after the submit looks at it."""
    rounds = 60
    found = await race(database_url, rounds)

    assert [SUCCESS if number % 4 else FAILURE for number in range(rounds)] == found


@pytest.mark.chaos
@pytest.mark.timeout(300)
async def test_nothing_is_missed_a_thousand_times(database_url: str) -> None:
    """The same, for long."""
    found = await race(database_url, 1000)

    assert (250, 750) == (found.count(FAILURE), found.count(SUCCESS))


async def test_what_ends_right_before_the_commit_is_seen(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The submit looks once more when its message is kept."""
    monkeypatch.setattr(feature, "LOOK", 600.0)
    shop = Shop(tracker)
    await tracker.register("need", "shop.pack", status="STARTED")
    keep = Held.hold

    async def hold(self: Held, *args: Any) -> None:
        await tracker.update("need", "done")
        await keep(self, *args)

    monkeypatch.setattr(Held, "hold", hold)

    assert SUCCESS is (await shop.done(await shop.hold("a", "need"))).status


async def test_what_is_kept_is_not_lost_when_nobody_can_look(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away right after the message was kept: a look finds it later."""
    shop = Shop(tracker)
    await tracker.register("need", "shop.pack", status="STARTED")
    keep, ask = Held.hold, Held.states

    async def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    async def hold(self: Held, *args: Any) -> None:
        await keep(self, *args)
        await tracker.update("need", "done")
        monkeypatch.setattr(Held, "states", away)

    monkeypatch.setattr(Held, "hold", hold)
    sent = await shop.hold("a", "need")
    monkeypatch.setattr(Held, "states", ask)

    assert SUCCESS is (await shop.done(sent)).status


@pytest.mark.usefixtures("no_watch")
async def test_very_many_are_looked_at_in_turns(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each piece comes, and then the first one again."""
    monkeypatch.setattr(held, "_LAST", held._LAST.replace(f"LIMIT {held.PIECE}", "LIMIT 3"))
    monkeypatch.setattr(held, "PIECE", 3)
    broker = Mute(tracker)
    for number in range(10):
        await tracker.register(f"n{number}", "shop.pack", status="STARTED")
        await tracker.submit("shop.note", [str(number)], depends_on=f"n{number}")
        await tracker.update(f"n{number}", "done" if number % 2 else None)
    looks = [await tracker.feature(Submission).releaser.look() for _ in range(4)]
    early = len(broker.sent)
    for number in range(10):
        await tracker.update(f"n{number}", "done")
    for _ in range(4):
        await look(tracker)

    assert 5 == sum(looks) == early
    assert 10 == len(broker.sent)


@pytest.mark.usefixtures("no_watch")
async def test_releasers_send_once(database_url: str) -> None:
    """Four processes' worth of them find the same messages at the same time."""
    messages = 60
    async with (
        Tracker(database_url) as one,
        Tracker(database_url) as two,
        Tracker(database_url) as three,
    ):
        trackers = [one, two, three]
        brokers = [Mute(tracker) for tracker in trackers]
        for number in range(messages):
            await one.register(f"n{number % 7}", "shop.pack", status="STARTED")
            await one.submit("shop.note", [str(number)], depends_on=f"n{number % 7}")
        for number in range(7):
            await two.update(f"n{number}", "done")

        await asyncio.gather(*(look(tracker) for tracker in 3 * trackers))

        async def all_sent() -> bool:
            return await count(one, "held") == 0

        await until("all are sent", all_sent)

    assert messages == sum(len(broker.sent) for broker in brokers)
    assert messages == len({bytes(text) for broker in brokers for text in broker.sent})


@pytest.mark.usefixtures("no_watch")
async def test_what_fails_is_failed_once(database_url: str) -> None:
    """Whoever looks, and however many at once."""
    messages = 60
    async with Tracker(database_url) as one, Tracker(database_url) as two:
        brokers = [Mute(one), Mute(two)]
        needs = [f"n{number}" for number in range(5)]
        for need in needs:
            await one.register(need, "shop.pack", status="STARTED")
        sent = [
            await one.submit("shop.note", [str(number)], depends_on=needs)
            for number in range(messages)
        ]
        await two.update("n3", "failed", error="broken")
        await asyncio.gather(*(look(tracker) for tracker in 4 * [one, two]))
        ends = [await one.get(task.task_id) for task in sent]
        left = [await count(one, table) for table in ("held", "needs")]

    assert {(FAILURE, "DependencyFailed")} == {(end.status, end.error_type) for end in ends}
    assert [0, 0] == left
    assert [] == [text for broker in brokers for text in broker.sent]


@pytest.mark.usefixtures("no_watch")
async def test_a_broker_that_is_away_gets_it_later(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim is given up after a while; until then nobody else tries."""
    broker = Mute(tracker)
    broker.is_broken = True
    await tracker.register("need", "shop.pack", status="STARTED")
    await tracker.submit("shop.note", ["a"], depends_on="need")
    await tracker.update("need", "done")
    await look(tracker)
    broker.is_broken = False
    await look(tracker)
    early = len(broker.sent)
    wait_for_claims(tracker, monkeypatch)
    await look(tracker)

    assert (0, 1) == (early, len(broker.sent))
    assert (0, 0) == (await count(tracker, "held"), await count(tracker, "needs"))


@pytest.mark.usefixtures("no_watch")
async def test_a_claim_that_is_too_old_sends_nothing(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stood still for half a minute leaves it to the others."""
    broker = Mute(tracker)
    await tracker.register("need", "shop.pack", status="STARTED")
    await tracker.submit("shop.note", ["a"], depends_on="need")
    monkeypatch.setattr(release, "GIVEN_UP", release.SEND - 1.0)
    await tracker.update("need", "done")
    await look(tracker)

    assert [] == broker.sent
    assert 1 == await count(tracker, "held")


@pytest.mark.usefixtures("no_watch")
async def test_what_was_sent_and_runs_is_not_sent_again(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sender was killed before he could delete it; a worker has it already."""
    broker = Mute(tracker)

    async def forget(*_: Any) -> None:
        """Be killed."""

    sent, kept = await send_and_keep(tracker, monkeypatch, forget)
    await tracker.update(sent.task_id, "running")
    await look(tracker)

    assert (1, 1) == (kept, len(broker.sent))
    assert 0 == await count(tracker, "held")


@pytest.mark.usefixtures("no_watch")
async def test_what_was_sent_is_deleted_before_it_could_be_sent_again(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database went away between the send and the deletion; nobody was killed."""
    broker = Mute(tracker)

    async def fail(*_: Any) -> None:
        raise StoreUnavailable("away")

    _, kept = await send_and_keep(tracker, monkeypatch, fail)
    wait_for_claims(tracker, monkeypatch)
    await look(tracker)

    assert (1, 1) == (kept, len(broker.sent))
    assert 0 == await count(tracker, "held")


async def held_up(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> tuple[Mute, asyncio.Event]:
    """Give a broker that takes nothing until the event, is waited for briefly, and a need."""
    monkeypatch.setattr(release, "SEND", 0.05)
    broker = Mute(tracker)
    hold_up = broker.hold_up = asyncio.Event()
    await tracker.register("need", "shop.pack", status="STARTED")
    return broker, hold_up


@pytest.mark.usefixtures("no_watch")
async def test_a_slow_broker_holds_up_nobody_for_ever(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it takes late is forgotten late."""
    broker, hold_up = await held_up(tracker, monkeypatch)
    sent = await tracker.submit("shop.note", ["a"], depends_on="need")
    await tracker.update("need", "done")
    await settle(tracker, sent)
    kept = await count(tracker, "held")
    hold_up.set()

    async def is_empty() -> bool:
        return await count(tracker, "held") == 0

    await until("it is forgotten", is_empty)

    assert 1 == kept
    assert 1 == len(broker.sent)


@pytest.mark.usefixtures("no_watch")
async def test_a_message_that_hangs_keeps_no_other(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent with it is deleted: else another process would send that again."""
    broker, hold_up = await held_up(tracker, monkeypatch)
    await tracker.submit("shop.note", ["a"], depends_on="need")
    broker.swift = (await tracker.submit("shop.note", ["b"], depends_on="need")).task_id
    await tracker.update("need", "done")
    await look(tracker)
    sent, kept = len(broker.sent), await count(tracker, "held")
    hold_up.set()

    assert (1, 1) == (sent, kept)


@pytest.mark.usefixtures("no_watch")
async def test_a_middleware_that_fails_after_the_send_does_no_harm(tracker: Tracker) -> None:
    """It was sent: nothing is sent again."""

    class Clumsy(TaskiqMiddleware):
        async def post_send(self, message: Any) -> None:
            raise RuntimeError("too late")

    broker = Mute(tracker)
    broker.add_middlewares(Clumsy())
    await tracker.register("need", "shop.pack", status="STARTED")
    sent = await tracker.submit("shop.note", ["a"], depends_on="need")
    await tracker.update("need", "done")
    await settle(tracker, sent)

    assert 1 == len(broker.sent)
    assert 0 == await count(tracker, "held")


@pytest.mark.usefixtures("no_watch")
async def test_a_process_leaves_alone_what_it_does_not_know(database_url: str) -> None:
    """Only who has the task can send it."""
    async with Tracker(database_url) as one, Tracker(database_url) as two:
        knows = Mute(one)
        QuietBroker().add_middlewares(TrackerMiddleware(two))
        await one.register("need", "shop.pack", status="STARTED")
        sent = await one.submit("shop.note", ["a"], depends_on="need")
        other = two.feature(Submission).releaser
        await two.update("need", "done")
        found = await other.look()
        await settle(one, sent)

    assert 0 == found
    assert 1 == len(knows.sent)


async def test_workers_hear_through_redis_what_is_waited_for(
    made_sqlite_url: str, redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle worker, whose next look is far away, sends what waited for what it ends."""
    monkeypatch.setattr(feature, "LOOK", 600.0)
    settings = {"heartbeat_seconds": 600, "namespace": queue_name}
    async with (
        Tracker(made_sqlite_url, redis=redis_url, settings=settings) as client,
        Tracker(made_sqlite_url, redis=redis_url, settings=settings) as worker,
    ):
        Mute(client)
        broker = Mute(worker)
        client.feature(Submission)._watch = lambda: None
        serving = worker.feature(Submission)
        serving.serve(broker)

        async def is_listening() -> bool:
            return serving._bulletin is not None and serving._bulletin.is_open

        await until("the worker listens", is_listening)
        await client.register("need", "shop.pack", status="STARTED")
        await client.submit("shop.note", ["a"], depends_on="need")

        async def has_heard() -> bool:
            return "need" in serving._needed

        await until("the worker has heard of it", has_heard)
        await worker.update("need", "done")

        async def is_sent() -> bool:
            return len(broker.sent) == 1

        await until("it is sent", is_sent)
        serving._read(b"no json")
        serving._read(b"7")
        await asyncio.sleep(0.1)  # neither harms

    assert 1 == len(broker.sent)


async def test_redis_that_is_away_holds_up_nothing(
    made_sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever holds or sends does not wait for it."""
    async with Tracker(made_sqlite_url, redis="redis://127.0.0.1:1") as tracker:
        broker = Mute(tracker)
        tracker.feature(Submission).serve(broker)
        await tracker.register("need", "shop.pack", status="STARTED")
        await tracker.submit("shop.note", ["a"], depends_on="need")
        await tracker.update("need", "done")

        async def is_sent() -> bool:
            return len(broker.sent) == 1

        await until("it is sent", is_sent)

    assert "ERROR" not in {one.levelname for one in caplog.records}


async def test_what_is_released_at_a_stop_is_not_lost(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop waits a moment for it; what it does not wait for is sent by the next process."""
    monkeypatch.setattr(feature, "PATIENCE", 0.05)
    async with Tracker(database_url) as tracker:
        broker = Mute(tracker)
        broker.hold_up = asyncio.Event()
        await tracker.register("need", "shop.pack", status="STARTED")
        await tracker.submit("shop.note", ["a"], depends_on="need")
        await tracker.update("need", "done")

        async def is_claimed() -> bool:
            query = "SELECT count(*) FROM aiotrack_held WHERE claimed_at IS NOT NULL"
            rows = await tracker.core().repository.execute(query, ())
            return bool(rows[0][0] == 1)

        await until("it is claimed", is_claimed)
    async with Tracker(database_url) as tracker:
        after = Mute(tracker)
        await tracker.core().repository.connect()
        wait_for_claims(tracker, monkeypatch)
        await look(tracker)
    broker.hold_up.set()  # the process of the first would have ended by now

    assert 1 == len(after.sent)


async def test_a_look_goes_on_after_an_outage(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What ended while the database did not answer is found later; the trouble is told once."""
    monkeypatch.setattr(feature, "LOOK", 0.05)
    shop = Shop(tracker)
    first = await tracker.submit("shop.wait", ["a"])
    second = await shop.hold("b", first)

    async def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        for verb in ("dependants", "needed", "claim"):  # a look may be under way
            patch.setattr(Held, verb, away)
        shop.gate.set()
        await shop.done(first)
        await asyncio.sleep(0.3)
        before = await shop.status(second)
    done = await shop.done(second)

    assert TaskStatus.PENDING is before
    assert SUCCESS is done.status
    assert 1 == caplog.text.count("not looked after for now")


KILLED = """
import asyncio, sys
from aiotrack import Tracker, TrackerMiddleware
from aiotrack.submission import Submission
from tests.control.crew import QuietBroker

class Stuck(QuietBroker):
    async def kick(self, message):
        print("kicking", flush=True)
        await asyncio.sleep(60)

async def main():
    async with Tracker(sys.argv[1]) as tracker:
        broker = Stuck()
        broker.add_middlewares(TrackerMiddleware(tracker))
        broker.register_task(lambda name: None, task_name="shop.note")
        await tracker.feature(Submission).releaser.look()

asyncio.run(main())
"""


@pytest.mark.usefixtures("no_watch")
async def test_a_killed_releaser_is_followed_by_the_next(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its claim is given up, and not before."""
    async with Tracker(database_url) as tracker:
        broker = Mute(tracker)
        await tracker.register("need", "shop.pack", status="STARTED")
        await tracker.submit("shop.note", ["a"], depends_on="need")
        await tracker.update("need", "done")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", KILLED, database_url),
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        await look(tracker)
        early = len(broker.sent)
        wait_for_claims(tracker, monkeypatch)
        await look(tracker)

        assert b"kicking\n" == line
        assert (0, 1) == (early, len(broker.sent))
        assert 0 == await count(tracker, "held")
