"""What TaskIQ's scheduler sends: once, on time, whatever stands in Redis and whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from taskiq import InMemoryBroker, SimpleRetryMiddleware
from taskiq.cli.scheduler.run import SchedulerLoop

from aiotrack import (
    DefinitionScheduleSource,
    InvalidValue,
    ScheduleUnavailable,
    Tracker,
    TrackerMiddleware,
)
from aiotrack.schedules import entry, timetable
from aiotrack.testing.servers import ValkeyServer
from tests.schedules.site import Beat, Site, ticks


def name_of(definition_id: int, moment: int) -> str:
    """Give the task_id of a due time."""
    return entry.task_id(definition_id, moment)


async def test_taskiq_s_own_loop_sends_every_second_once(one_site: Site) -> None:
    """With two schedulers; a pause begins and ends within two seconds and keeps the grid."""
    site = one_site
    made = await site.define(schedule={"seconds": 1}, parameters={"a": 40})
    beats = [Beat(site), Beat(site)]
    async with contextlib.AsyncExitStack() as stack:
        loops = []
        for beat in beats:
            await stack.enter_async_context(beat)
            loops.append(asyncio.create_task(SchedulerLoop(beat.scheduler).run()))
        await site.tracker.schedules.start("count")
        await until_sent(site, made, 3)
        await site.tracker.schedules.pause("count")
        paused = len(await site.sent(made))
        await asyncio.sleep(1.2)
        still = len(await site.sent(made))
        await site.tracker.schedules.resume("count")
        await until_sent(site, made, still + 2)
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
    found = (await site.tracker.list(config_id=made.id, order="created_at")).items

    assert still - paused <= 1, "one may have been on its way"
    assert len(found) == len({one.task_id for one in found})
    assert {(42, 1, f"task_{made.id}", made.id, 5, 30.0)} == {
        (one.result, one.runs, one.schedule_id, one.config_id, one.priority, one.time_limit)
        for one in found
    }
    moments = [datetime.fromisoformat(one.task_id.partition(":")[2]) for one in found]
    assert {0} == {one.microsecond for one in moments}
    late = [(one.created_at - due).total_seconds() for one, due in zip(found, moments, strict=True)]
    assert min(late) > -0.05
    assert max(late) < 10


async def until_sent(site: Site, definition: Any, count: int) -> None:
    """Wait until a definition has sent so many."""
    async with asyncio.timeout(30):
        while len(await site.sent(definition)) < count:  # noqa: ASYNC110 - a database tells nobody
            await asyncio.sleep(0.1)


async def test_several_schedulers_send_what_is_due_once(site: Site) -> None:
    """Ten definitions, three schedulers, one tick."""
    made = [await site.define(f"n{number}") for number in range(10)]
    for one in made:
        await site.tracker.schedules.start(one.id)
    moments = [await site.rewind(one, 3) for one in made]
    async with Beat(site) as first, Beat(site) as second, Beat(site) as third:
        await ticks([first, second, third])
        await ticks([first, second, third])

    for one, moment in zip(made, moments, strict=True):
        assert [name_of(one.id, moment)] == await site.sent(one)
    assert 0 == await site.redis.zcard(site.sending)


async def test_the_list_is_one_object_and_changes_by_itself(one_site: Site) -> None:
    """TaskIQ asks for it once a minute; a change is in it within the second."""
    await one_site.define()
    async with Beat(one_site) as beat:
        listed = await beat.source.get_schedules()
        sizes = [len(listed)]
        for verb in ("start", "pause", "resume", "stop"):
            await getattr(one_site.tracker.schedules, verb)("count")
            wanted = int(verb in {"start", "resume"})
            async with asyncio.timeout(20):
                while len(listed) != wanted:  # noqa: ASYNC110 - as TaskIQ looks at it
                    await asyncio.sleep(0.02)
            sizes.append(len(listed))

    assert [0, 1, 0, 1, 0] == sizes


@pytest.mark.parametrize(("catch_up", "count"), [("skip", 0), ("one", 1)])
async def test_what_nobody_saw_is_skipped_or_sent_once(
    one_site: Site, catch_up: str, count: int
) -> None:
    """A day without a scheduler: the grid goes on in both cases."""
    made = await one_site.define()
    await one_site.tracker.schedules.start("count")
    moment = await one_site.rewind(made, 86_400)
    async with Beat(one_site, catch_up=catch_up) as beat:
        await beat.tick()
        await beat.tick()
        await beat.tick()
    sent = await one_site.sent(made)
    next_run = await one_site.tracker.schedules.next_run("count")

    assert [name_of(made.id, moment)][:count] == [
        one for one in sent if one == name_of(made.id, moment)
    ]
    assert len(sent) <= count + 1, "the grid's own time may be a few seconds old"
    assert next_run is not None
    assert datetime.now(UTC) < next_run <= datetime.now(UTC) + timedelta(seconds=60)


async def test_a_scheduler_that_stood_still_makes_up_for_seconds(one_site: Site) -> None:
    """Five due times of a second each that came while it was there are all sent."""
    made = await one_site.define(schedule={"seconds": 1})
    async with Beat(one_site) as beat:
        await one_site.tracker.schedules.start("count")
        board = beat.source._board
        assert board._since is not None
        board._since -= 60_000
        await one_site.rewind(made, 5)
        await one_site.redis.zincrby(one_site.changes, 0, str(made.id))
        board.stale.add(made.id)
        await beat.tick()
        sent = await one_site.sent(made)

    assert 6 == len(sent)


@pytest.mark.parametrize(("catch_up", "count"), [("skip", 0), ("one", 1)])
async def test_a_moment_that_came_in_a_pause(one_site: Site, catch_up: str, count: int) -> None:
    """It is sent when the pause ends, or never; then it is over."""
    at = datetime.now(UTC) + timedelta(hours=1)
    made = await one_site.define(schedule_kind="once", schedule={"at": at.isoformat()})
    await one_site.tracker.schedules.start("count")
    await one_site.tracker.schedules.pause("count")
    past = datetime.now(UTC) - timedelta(hours=1)
    await one_site.redis.hset(
        one_site.entries,
        str(made.id),
        (await one_site.redis.hget(one_site.entries, str(made.id))).replace(  # type: ignore[misc]
            at.isoformat().encode(), past.isoformat().encode()
        ),
    )
    await one_site.tracker.definitions.update("count", schedule={"at": past.isoformat()})
    assert "active" == await one_site.tracker.schedules.resume("count")
    async with Beat(one_site, catch_up=catch_up) as beat:
        await beat.tick()
        await beat.tick()

    assert count == len(await one_site.sent(made))
    assert "inactive" == await one_site.tracker.schedules.status("count")
    assert await one_site.tracker.schedules.next_run("count") is None


async def test_a_moment_is_sent_once(one_site: Site) -> None:
    """Then it is over, and starting it again changes nothing."""
    at = (datetime.now(UTC) - timedelta(seconds=2)).isoformat()
    made = await one_site.define(schedule_kind="once", schedule={"at": at})
    await one_site.tracker.schedules.start("count")
    async with Beat(one_site) as first, Beat(one_site) as second:
        await ticks([first, second])
        state = await one_site.tracker.schedules.status("count")
        again = await one_site.tracker.schedules.start("count")
        await ticks([first, second])

    assert ("inactive", "inactive") == (state, again)
    assert 1 == len(await one_site.sent(made))


async def test_one_bad_entry_of_a_hundred_is_set_aside(
    one_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A pickle, half a JSON, an odd id: nothing is executed, it is said once, ninety-nine fire."""
    made = [await one_site.define(f"n{number}") for number in range(100)]
    for one in made:
        await one_site.tracker.schedules.start(one.id)
        await one_site.rewind(one, 2)
    pickle = b"cos\nsystem\n(S'touch /tmp/aiotrack-was-here'\ntR."
    await one_site.redis.hset(one_site.entries, str(made[50].id), pickle)
    await one_site.redis.hset(one_site.entries, "a name", b'{"state":')
    await one_site.redis.zadd(one_site.due, {"another": 5})
    with caplog.at_level(logging.ERROR, "aiotrack"):
        async with Beat(one_site) as beat:
            for _ in range(3):
                beat.source._board.forget_version()
                await beat.tick()
    sent = [await one_site.sent(one) for one in made]
    states = await one_site.tracker.schedules.statuses()

    assert 2 == len([one for one in caplog.records if "set aside" in one.getMessage()])
    assert [] == sent.pop(50)
    assert {1} == set(map(len, sent))
    assert ("inactive", 99) == (states[made[50].id], list(states.values()).count("active"))


async def test_foreign_keys_cost_a_tick_nothing(
    made_sqlite_url: str, own_valkey: ValkeyServer
) -> None:
    """Two hundred thousand of them: no command of ours looks at the key space."""
    async with Site(made_sqlite_url, own_valkey.url, "aiotrack") as site:
        for number in range(20):
            await site.define(f"n{number}")
            await site.tracker.schedules.start(f"n{number}")
        for block in range(10):
            await site.redis.mset({f"foreign:{block}:{one}": b"x" for one in range(20_000)})
        async with Beat(site) as beat:
            took = []
            for _ in range(20):
                begun = time.perf_counter()
                listed = await beat.source.get_schedules()
                took.append(time.perf_counter() - begun)
        stats = await site.redis.info("commandstats")

    assert 20 == len(listed)
    assert set() == {"cmdstat_scan", "cmdstat_keys"} & set(stats)
    assert min(took) < 0.05


async def test_who_dies_while_sending_is_followed_by_another(
    one_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same execution is sent, after the dead one's time; what has a record is not."""
    monkeypatch.setattr(timetable, "LEASE", 300)
    lost, known = await one_site.define("lost"), await one_site.define("known")
    moments = []
    for one in (lost, known):
        await one_site.tracker.schedules.start(one.id)
        moments.append(await one_site.rewind(one, 1))
    async with Beat(one_site) as dying, Beat(one_site) as living:
        for task in await dying.due():
            await dying.source.pre_send(task)  # and no more is heard of it
        await one_site.tracker.register(name_of(known.id, moments[1]), "shop.add")
        await living.tick()
        early = await one_site.sent(lost)
        await asyncio.sleep(0.5)
        await ticks([living, dying])
        await ticks([living, dying])
        await ticks([living, dying])

    assert [] == early
    assert [name_of(lost.id, moments[0])] == await one_site.sent(lost)
    assert [] == await one_site.sent(known)
    assert 1 == (await one_site.tracker.get(name_of(lost.id, moments[0]))).runs
    assert 0 == await one_site.redis.zcard(one_site.sending)


async def test_what_the_broker_does_not_take_is_sent_later(
    one_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever comes first, the same scheduler too."""
    monkeypatch.setattr(timetable, "LEASE", 200)
    made = await one_site.define()
    await one_site.tracker.schedules.start("count")
    moment = await one_site.rewind(made, 1)
    kick = one_site.broker.kick

    async def refuse(*_: object) -> None:
        raise ConnectionError("the broker is away")

    async with Beat(one_site) as beat:
        one_site.broker.kick = refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(Exception, match="send"):
            await beat.tick()
        one_site.broker.kick = kick  # type: ignore[method-assign]
        await asyncio.sleep(0.4)
        await beat.tick()

    assert [name_of(made.id, moment)] == await one_site.sent(made)


async def test_who_paused_in_time_gets_nothing(one_site: Site) -> None:
    """Between the list and the send: the claim fails."""
    made = await one_site.define()
    await one_site.tracker.schedules.start("count")
    await one_site.rewind(made, 1)
    async with Beat(one_site) as beat:
        (task,) = await beat.due()
        await one_site.tracker.schedules.pause("count")
        await beat.scheduler.on_ready(beat.source, task)
        left = await beat.source.get_schedules()

    assert ([], []) == (left, await one_site.sent(made))


async def test_a_clock_that_is_off_is_seen_through(
    one_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list tells times by the host's clock, Redis decides."""
    from aiotrack.schedules import board, source

    made = await one_site.define()
    await one_site.tracker.schedules.start("count")
    hour = 3_600_000
    true = board.host_now
    monkeypatch.setattr(board, "host_now", lambda: true() + hour)
    monkeypatch.setattr(source, "host_now", lambda: true() + hour)
    async with Beat(one_site) as beat:
        (task,) = await beat.source.get_schedules()
        next_run = await one_site.tracker.schedules.next_run("count")
        await beat.tick()

    assert task.time is not None
    assert next_run is not None
    assert abs((task.time - next_run).total_seconds() - 3600) < 1
    assert [] == await one_site.sent(made)


async def test_redis_may_restart_with_its_data(
    made_sqlite_url: str, own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """While it is away nothing is sent and the list stays; then what was due is sent once."""
    async with Site(made_sqlite_url, own_valkey.url, "aiotrack") as site:
        made = await site.define()
        await site.tracker.schedules.start("count")
        async with Beat(site) as beat:
            await site.rewind(made, -0.2)
            beat.source._board.stale.add(made.id)
            (listed,) = await beat.source.get_schedules()
            own_valkey.kill()
            with caplog.at_level(logging.WARNING, "aiotrack"):
                kept = list(await beat.source.get_schedules())
                await asyncio.sleep(0.3)
                await beat.tick()
            own_valkey.start()
            await site.redis.connection_pool.disconnect()
            async with asyncio.timeout(30):
                while not await site.sent(made):
                    await beat.tick()
                    await asyncio.sleep(0.1)
            await beat.tick()
        sent = await site.sent(made)

    assert [listed] == kept
    assert 1 == len(sent)
    assert 1 == len([one for one in caplog.records if "no schedule is sent" in one.getMessage()])


async def test_redis_may_come_back_with_older_data(one_site: Site) -> None:
    """Its versions begin again below what schedulers have seen: they follow all the same."""
    first = await one_site.define()
    second = await one_site.define("second", schedule={"seconds": 1})
    verbs, redis = one_site.tracker.schedules, one_site.redis
    await verbs.start(first.id)
    copies = {key: await redis.dump(key) for key in one_site.keys if await redis.exists(key)}
    for _ in range(3):
        await verbs.pause(first.id)
        await verbs.resume(first.id)
    async with Beat(one_site) as beat:
        await beat.tick()
        for key, copy in copies.items():
            await redis.restore(key, 0, copy, replace=True)
        await verbs.start(second.id)
        async with asyncio.timeout(10):
            while not await one_site.sent(second):
                await asyncio.sleep(0.3)
                await beat.tick()

    assert "active" == await verbs.status(first.id)


async def test_redis_may_lose_its_data(one_site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The scheduler makes them anew by itself, and says so."""
    made = await one_site.define(schedule={"seconds": 2})
    await one_site.define("rests")
    for name in ("count", "rests"):
        await one_site.tracker.schedules.start(name)
    await one_site.tracker.schedules.pause("rests")
    async with Beat(one_site) as beat:
        await one_site.redis.delete(*one_site.keys)
        with caplog.at_level(logging.WARNING, "aiotrack"):
            async with asyncio.timeout(30):
                while not await one_site.sent(made):
                    await beat.tick()
                    await asyncio.sleep(0.1)

    assert {"paused", "active"} == set((await one_site.tracker.schedules.statuses()).values())
    assert any("1 active, 1 paused" in one.getMessage() for one in caplog.records)


async def test_a_source_needs_redis_and_a_known_word(made_sqlite_url: str, redis_url: str) -> None:
    """Both are said when it is made."""
    with pytest.raises(ScheduleUnavailable):
        DefinitionScheduleSource(Tracker(made_sqlite_url))
    with pytest.raises(InvalidValue, match="catch_up"):
        DefinitionScheduleSource(
            Tracker(made_sqlite_url, redis=redis_url),
            catch_up="all",  # type: ignore[arg-type]
        )


async def test_what_a_definition_sends_is_recorded(one_site: Site) -> None:
    """Also of a task that otherwise is not, by its schedule and by hand."""

    @one_site.broker.task("shop.hidden", track=False)
    async def hidden() -> None: ...

    definition = await one_site.define("hidden", task_type="shop.hidden", parameters={})
    await one_site.tracker.schedules.start("hidden")
    await one_site.rewind(definition, 1)
    async with Beat(one_site) as beat:
        await beat.tick()
    by_hand = await one_site.tracker.schedules.trigger("hidden")
    tick, again = await one_site.sent(definition)
    found = await one_site.tracker.wait(tick, 10)

    assert by_hand.task_id == again
    assert ("SUCCESS", definition.id, f"task_{definition.id}") == (
        *(found.status, found.config_id, found.schedule_id),
    )


async def test_a_retried_definition_is_retried(one_site: Site) -> None:
    """max_retries of the definition reach TaskIQ's retry middleware."""
    tracker = one_site.tracker
    broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker), SimpleRetryMiddleware())

    @broker.task("shop.fails")
    async def fails() -> None:
        raise ValueError

    tracker.brokers.reverse()
    await tracker.definitions.create(name="fails", task_type="shop.fails", max_retries=2)
    execution = await tracker.schedules.trigger("fails")
    found = await tracker.wait(execution.task_id, timeout=20)
    attempts = await tracker.attempts(execution.task_id)

    assert 3 == len(attempts)
    assert (f"task_{found.config_id}", "FAILURE") == (found.schedule_id, found.status)
