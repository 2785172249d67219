"""The lock on a real server: one holder, waiters in order, leases, fences, losses, cancellation."""

from __future__ import annotations

import asyncio
import copy
import enum
import math
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from redis.asyncio import Redis

from aiotrack import (
    InvalidSetting,
    InvalidValue,
    LockLost,
    LockNotAcquired,
    LockReentry,
    LockUnavailable,
    Tracker,
    TrackerNotFound,
    acquire_task_lock,
    is_task_locked,
    release_task_lock,
    task_lock,
)
from aiotrack.locks.lock import TaskLock
from aiotrack.locks.verbs import Locks
from aiotrack.testing.servers import ValkeyServer


@pytest.fixture
async def other(sqlite_url: str, redis_url: str, queue_name: str) -> AsyncIterator[Tracker]:
    """As another process has it."""
    tracker = Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name})
    yield tracker
    await tracker.shutdown()


@pytest.fixture
async def server(redis_url: str) -> AsyncIterator[Any]:
    """A client to look at the keys."""
    async with Redis.from_url(redis_url) as client:
        yield client


async def held(server: Any, namespace: str) -> list[str]:
    """Give the keys that say that something is held or waited for."""
    found = [key.decode() async for key in server.scan_iter(f"{{{namespace}:locks}}*")]
    return [key for key in found if not key.endswith("|fence") and "|gone:" not in key]


async def entered(lock: TaskLock) -> None:
    """Take a lock and free it."""
    async with lock:
        pass


async def lose_all(server: Any, namespace: str) -> None:
    """Let the server lose what it knows of our locks, as a restart without its data does."""
    keys = [key async for key in server.scan_iter(f"{{{namespace}:locks}}*")]
    if keys:
        await server.delete(*keys)


# ── one holder ──────────────────────────────────────────────────────────────────────────────────
async def test_one_at_a_time(tracker: Tracker, server: Any, queue_name: str) -> None:
    """Held elsewhere it is refused at once, with who has it; then it is free, without a trace."""
    async with task_lock("import", key=7, ttl=10) as lock:
        assert lock.lost is None
        assert await is_task_locked("import", key=7)
        assert not await is_task_locked("import", key=8)
        begun = time.monotonic()
        with pytest.raises(LockNotAcquired, match=r"'import/\w+' is held by worker") as caught:
            await asyncio.create_task(entered(tracker.lock("import", key=7)))
        assert time.monotonic() - begun < 3
        assert tracker.worker_id == caught.value.holder["worker"]

    assert not await is_task_locked("import", key=7)
    assert [] == await held(server, queue_name)


async def test_keys_differ_by_type_and_value(tracker: Tracker) -> None:
    """1, "1", 1.0, True, None and none at all are locks of their own; equal ones are the same."""
    keys: list[object] = [None, 1, "1", 1.0, True, "None", b"1", (1,), [1], {"a": 1}, {"a": "1"}]
    names = {tracker.lock("x", key=key).name for key in keys}

    assert len(keys) == len(names)
    assert (
        tracker.lock("x", key={"a": 1, "b": 2}).name == tracker.lock("x", key={"b": 2, "a": 1}).name
    )


async def test_fences_rise_with_every_grant(tracker: Tracker, server: Any, queue_name: str) -> None:
    """Also over a server that lost its data."""
    fences = []
    for number in range(20):
        async with task_lock("x") as lock:
            fences.append(lock.fence)
        if number == 10:
            await lose_all(server, queue_name)

    assert sorted(set(fences)) == fences


async def test_a_task_cannot_wait_for_itself(tracker: Tracker) -> None:
    """Re-entry is refused, rather than waited for."""
    lock = task_lock("x")
    async with lock:
        with pytest.raises(InvalidValue, match="entered twice"):
            async with lock:
                pass
        with pytest.raises(LockReentry, match="would wait for itself"):
            async with task_lock("x", wait=math.inf):
                pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ttl": 0}, "ttl is 0.05 to 86400 seconds, not 0"),
        ({"ttl": -1}, "not -1"),
        ({"ttl": math.nan}, "not nan"),
        ({"ttl": None}, "ttl is seconds, not NoneType"),
        ({"ttl": math.inf}, "not inf"),
        ({"wait": -1}, "wait is seconds, 0 to try once, math.inf"),
        ({"wait": None}, "not None"),
        ({"wait": math.nan}, "not nan"),
        ({"on_lost": "ignore"}, "on_lost is 'cancel' or 'flag'"),
        ({"key": object()}, "a lock's key is text, a number"),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any], words: str) -> None:
    """A ValueError that says what may be given, before anything is asked."""
    with pytest.raises(ValueError, match=words):
        task_lock("x", **arguments)


@pytest.mark.parametrize("name", ["", 7, None, b"x"])
def test_what_is_no_name_is_refused(name: Any) -> None:
    """The message says where the rest goes."""
    with pytest.raises(InvalidValue, match="what else tells locks apart goes into key="):
        task_lock(name)


ODD = ["a b", "{x}", "ü", "ä", "import/7", "x" * 129, "\x00", "\ud800", "a~b", "{", "user:{7}"]


async def test_any_text_is_a_name(tracker: Tracker) -> None:
    """Each is a lock of its own, shown by what is readable of it, and found by what is shown."""
    for name in ODD:
        assert await acquire_task_lock(name, ttl=10)
        assert not await acquire_task_lock(name, ttl=10)
        assert await is_task_locked(name)
    listed = await tracker.locks.list()
    found = [await tracker.locks.info(one.name) for one in listed]

    assert len(ODD) == len(listed)
    assert [one.fence for one in listed] == [one and one.fence for one in found]
    assert 1 == sum(one.name.startswith("import_7~") for one in listed)
    assert await tracker.locks.force_release("import/7")
    assert not await is_task_locked("import/7")
    freed = [await tracker.locks.force_release(one.name) for one in listed]
    assert len(ODD) - 1 == sum(freed)


async def test_no_name_is_what_stands_beside_another_lock(tracker: Tracker) -> None:
    """Each is a lock of its own for its whole lease, also while others wait for the first."""
    beside = [f"{lock}{mark}{what}" for lock in ("jobs", "jobs/1") for mark in ":|"
              for what in ("fence", "queue", "waiters", "gone:x")]  # fmt: skip
    async with task_lock("jobs"):
        pass  # it has a last fence from now on
    tokens = {name: await acquire_task_lock(name, ttl=600) for name in (*beside, "jobs")}
    with pytest.raises(LockNotAcquired):
        await entered(tracker.lock("jobs", wait=0.3))
    listed = await tracker.locks.list()

    assert len(tokens) == len(listed)
    assert [] == [one.name for one in listed if one.left < 300 or one.waiting]
    for name, token in tokens.items():
        assert token is not None
        assert await release_task_lock(name, token)


class Color(enum.Enum):
    """A key."""

    RED = "red"
    BLUE = "blue"


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEYS = [
    *(UUID(int=1), UUID(int=2), str(UUID(int=1)), Color.RED, Color.BLUE, Decimal("1.5"), 1.5),
    *(NOON, NOON.replace(tzinfo=None), NOON.date(), NOON.time(), NOON + timedelta(hours=1)),
    {"id": UUID(int=1), "on": [NOON.date()]},
]


def test_ids_times_and_members_of_enums_are_keys() -> None:
    """Each is another lock; the same moment in another zone is the same."""
    names = [task_lock("x", key=key).name for key in KEYS]
    there = NOON.astimezone(timezone(timedelta(hours=5)))

    assert len(KEYS) == len(set(names))
    assert names == [task_lock("x", key=copy.deepcopy(key)).name for key in KEYS]
    assert task_lock("x", key=NOON).name == task_lock("x", key=there).name


async def test_who_loses_a_lock_to_somebody_hears_of_it_at_once(tracker: Tracker) -> None:
    """Long before the next renewal, which is twenty seconds away; the audit says who wanted it."""
    held = asyncio.Event()

    async def hold(lock: TaskLock) -> None:
        async with lock:
            held.set()
            await asyncio.sleep(60)

    for renew, on_lost in ((True, "cancel"), (False, "cancel"), (True, "flag")):
        held.clear()
        lock = tracker.lock("x", ttl=60, renew=renew, on_lost=on_lost)
        holding = asyncio.create_task(hold(lock))
        await held.wait()
        await listening(tracker)
        assert await tracker.locks.force_release("x", by="ada", reason="stuck")
        async with asyncio.timeout(10):
            if on_lost == "flag":
                while lock.lost is None:  # noqa: ASYNC110 - it is a flag
                    await asyncio.sleep(0.01)
                holding.cancel()
                await asyncio.wait({holding})
            else:
                with pytest.raises(LockLost, match="somebody took it away"):
                    await holding
        async with task_lock("x"):
            pass

    rows = await tracker.audit.list(action="lock.release")
    assert [("ada", "lock:x", "stuck")] * 3 == [(one.actor, one.target, one.reason) for one in rows]
    assert not await tracker.locks.force_release("x")
    assert 3 == len(await tracker.audit.list())


async def test_a_holder_may_ask_whether_it_is_one(
    tracker: Tracker, server: Any, queue_name: str
) -> None:
    """`verify` asks the server, and makes no lease longer."""
    with pytest.raises(InvalidValue, match="was never held"):
        await task_lock("x").verify()
    async with task_lock("x", ttl=30, renew=False) as lock:
        await asyncio.sleep(0.1)
        await lock.verify()
        info = await tracker.locks.info("x")
        assert info is not None
        assert info.left < 29.95
    with pytest.raises(LockLost, match="somebody took it away"):
        async with task_lock("x", ttl=30) as lock:
            await lose_all(server, queue_name)
            await acquire_task_lock("x")
            lock.check()
            await lock.verify()


async def listening(tracker: Tracker) -> None:
    """Wait until its process hears of locks that are taken away."""
    messages = tracker.feature(Locks).holders().space._messages
    while not messages.is_open:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


# ── tokens ──────────────────────────────────────────────────────────────────────────────────────
async def test_a_token_frees_its_own_lock_only(tracker: Tracker) -> None:
    """Without a block: taken, refused to others, freed by the token, which then frees nothing."""
    token = await acquire_task_lock("x", ttl=10)

    assert token is not None
    assert None is await acquire_task_lock("x", ttl=10)
    assert not await release_task_lock("x", "0" * 32)
    assert not await release_task_lock("x", "\udc80")
    for other in (None, 7):
        assert not await release_task_lock("x", other)  # type: ignore[arg-type]
    assert await is_task_locked("x")
    assert await release_task_lock("x", token)
    assert not await release_task_lock("x", token)
    assert not await is_task_locked("x")


async def test_a_token_ends_with_its_lease(tracker: Tracker) -> None:
    """It is not renewed; its late release frees nobody else's."""
    token = await acquire_task_lock("x", ttl=0.2)
    await asyncio.sleep(0.3)
    async with task_lock("x"):
        assert not await release_task_lock("x", token or "")
        assert await is_task_locked("x")


# ── waiting ─────────────────────────────────────────────────────────────────────────────────────
async def test_waiters_come_in_their_order(tracker: Tracker, other: Tracker) -> None:
    """From two processes, by hand-over: nobody overtakes, also not who comes when it is free."""
    order: list[int] = []
    waiting = []

    async def wait(number: int) -> None:
        async with (tracker, other)[number % 2].lock("x", wait=10):
            order.append(number)
            await asyncio.sleep(0.002)

    async with tracker.lock("x"):
        for number in range(20):
            waiting.append(asyncio.create_task(wait(number)))
            async with asyncio.timeout(5):
                while (await tracker.locks.list())[0].waiting <= number:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
    await asyncio.gather(*waiting)

    assert list(range(20)) == order


async def test_a_wait_ends_when_its_time_is_over(
    tracker: Tracker, server: Any, queue_name: str
) -> None:
    """And leaves no place in the queue."""
    async with task_lock("x"):
        begun = time.monotonic()
        with pytest.raises(LockNotAcquired):
            await asyncio.create_task(entered(tracker.lock("x", wait=0.3)))
        assert 0.3 <= time.monotonic() - begun < 3
    await asyncio.sleep(0.1)

    assert [] == await held(server, queue_name)


async def test_who_waits_gets_what_a_dead_holder_left(tracker: Tracker, other: Tracker) -> None:
    """Nobody tells of a lease that ends; the first of the queue gets it then."""
    await acquire_task_lock("x", ttl=0.5, tracker=other)
    begun = time.monotonic()
    async with tracker.lock("x", wait=5):
        assert 0.3 < time.monotonic() - begun < 4


async def test_the_dead_in_the_queue_cost_nothing(
    tracker: Tracker, sqlite_url: str, redis_url: str, queue_name: str
) -> None:
    """Who waits in a process that is gone is passed over at once."""
    dead = Tracker(sqlite_url, redis=redis_url, settings={"namespace": queue_name})

    async def wait_for_ever() -> None:
        async with dead.lock("x", wait=math.inf):
            pass

    async with tracker.lock("x"):
        lost = asyncio.create_task(wait_for_ever())
        await asyncio.sleep(0.2)
        from aiotrack.locks.verbs import Locks

        space = dead.feature(Locks).holders().space
        await space._messages.close()  # as a killed process does: nobody hears any more
        late = asyncio.create_task(acquire_soon(tracker))
        await asyncio.sleep(0.2)
        begun = time.monotonic()
    got = await late
    lost.cancel()
    await asyncio.wait({lost})
    await dead.shutdown()

    assert got - begun < 0.5


async def acquire_soon(tracker: Tracker) -> float:
    """Wait for the lock and say when it came."""
    async with tracker.lock("x", wait=10):
        return time.monotonic()


# ── leases ──────────────────────────────────────────────────────────────────────────────────────
async def test_a_lease_is_renewed_also_while_the_loop_is_blocked(tracker: Tracker) -> None:
    """R07: a body of three leases, half of it in code that blocks the loop."""
    async with task_lock("x", ttl=0.8) as lock:
        await asyncio.sleep(1.2)
        time.sleep(2.4)  # noqa: ASYNC251 - this is what users do
        lock.check()
        assert await is_task_locked("x")
    assert lock.lost is None


async def test_without_renewal_it_ends_and_the_body_is_told(tracker: Tracker) -> None:
    """The body is cancelled before the server's lease ends."""
    begun = time.monotonic()
    with pytest.raises(LockLost, match="its lease is over"):
        async with task_lock("x", ttl=2, renew=False):
            await asyncio.sleep(5)

    assert time.monotonic() - begun < 2.5


async def test_a_flag_instead(tracker: Tracker, server: Any, queue_name: str) -> None:
    """The body goes on, may ask, and the end says it."""
    with pytest.raises(LockLost, match="somebody took it away"):
        async with task_lock("x", ttl=1.5, on_lost="flag") as lock:
            await lose_all(server, queue_name)
            await asyncio.sleep(1.2)
            assert lock.lost is not None
            with pytest.raises(LockLost):
                lock.check()


async def test_who_loses_it_is_cancelled(tracker: Tracker, server: Any, queue_name: str) -> None:
    """R03: the server lost its data; the holder hears of it within a third of its lease."""
    begun = time.monotonic()
    with pytest.raises(LockLost):
        async with task_lock("x", ttl=3):
            await lose_all(server, queue_name)
            await asyncio.sleep(5)

    assert time.monotonic() - begun < 2


async def test_a_lock_is_taken_away_by_its_fence(tracker: Tracker) -> None:
    """R13: only from the holder that was meant."""
    async with task_lock("x", on_lost="flag") as first:
        pass
    with pytest.raises(LockLost):
        async with task_lock("x", ttl=1.5) as lock:
            assert not await tracker.locks.force_release("x", fence=first.fence)
            assert await tracker.locks.force_release("x", fence=lock.fence)
            assert not await tracker.locks.force_release("x", fence=lock.fence)
            await asyncio.sleep(5)

    assert not await tracker.locks.force_release("x")


async def test_the_holder_is_visible(tracker: Tracker) -> None:
    """Who, since when, for how long, with what key."""
    async with (
        tracker.track("shop.rows") as run,
        task_lock("import", key=("a", 1), ttl=30) as lock,
    ):
        (info,) = await tracker.locks.list()
        one = await tracker.locks.info("import", key=("a", 1))

    assert one is not None
    assert (run.task_id, "shop.rows", tracker.worker_id) == (
        *(info.task_id, info.task_name, info.worker),
    )
    assert ("('a', 1)", 30, lock.fence, 0) == (info.key, info.ttl, info.fence, info.waiting)
    assert 29 < info.left <= 30
    assert one.fence == info.fence
    assert [] == await tracker.locks.list()


# ── cancellation and errors ─────────────────────────────────────────────────────────────────────
async def test_what_the_body_raises_comes_first(
    tracker: Tracker, server: Any, queue_name: str
) -> None:
    """R09: an error of its own and a cancellation from outside are never masked by the loss."""
    with pytest.raises(ZeroDivisionError):
        async with task_lock("x", ttl=0.3):
            await lose_all(server, queue_name)
            raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError):
        async with task_lock("y", ttl=0.3):
            await lose_all(server, queue_name)
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                raise ZeroDivisionError from None

    async def body() -> None:
        async with task_lock("z", ttl=5):
            await asyncio.sleep(5)

    task = asyncio.create_task(body())
    await asyncio.sleep(0.1)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await body()
    assert not await is_task_locked("z")


async def test_a_cancellation_after_the_loss_is_not_left_behind(
    tracker: Tracker, server: Any, queue_name: str
) -> None:
    """The task that lost a lock works on, uncancelled."""
    with pytest.raises(LockLost):
        async with task_lock("x", ttl=0.3):
            await lose_all(server, queue_name)
            await asyncio.sleep(5)
    task = asyncio.current_task()
    assert task is not None
    assert 0 == task.cancelling()
    await asyncio.sleep(0.01)
    with pytest.raises(LockLost):
        async with task_lock("x", ttl=0.3):
            await lose_all(server, queue_name)
            time.sleep(0.5)  # noqa: ASYNC251 - the loss is known only when the body has ended
            await asyncio.sleep(0)
    await asyncio.sleep(0.01)

    assert 0 == task.cancelling()


@pytest.mark.parametrize("wait", [0, 5])
async def test_cancelling_leaks_nothing(
    tracker: Tracker, server: Any, queue_name: str, wait: float
) -> None:
    """R06: cancelled at each step of the loop, in every phase: nothing is held or waited for."""

    async def body(name: str) -> None:
        async with tracker.lock(name, wait=wait):
            await asyncio.sleep(0)

    await body("warm")
    holder = tracker.lock("busy")
    async with holder:
        for step in range(60):
            for name in ("free", "busy"):
                task = asyncio.create_task(body(name))
                for _ in range(step):
                    await asyncio.sleep(0)
                task.cancel()
                if step % 2:
                    task.cancel()
                await asyncio.wait({task})
    async with asyncio.timeout(2):
        while await held(server, queue_name):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)


# ── trouble ─────────────────────────────────────────────────────────────────────────────────────
async def test_without_redis_the_way_is_told(sqlite_url: str) -> None:
    """A tracker without it says where to give it; no tracker says that, too."""
    async with Tracker(sqlite_url) as tracker:
        with pytest.raises(InvalidSetting, match="AIOTRACK_REDIS_URL"):
            async with tracker.lock("x"):
                pass
        with pytest.raises(InvalidSetting, match="AIOTRACK_REDIS_URL"):
            await acquire_task_lock("x")
    with pytest.raises(TrackerNotFound):
        await acquire_task_lock("x")


async def test_several_trackers_are_named(tracker: Tracker, tmp_path: Any, redis_url: str) -> None:
    """Who means one has to say which."""
    async with Tracker(f"sqlite+aiosqlite:///{tmp_path}/other.db", redis=redis_url):
        with pytest.raises(TrackerNotFound, match="several trackers are running"):
            await is_task_locked("x")
        assert not await is_task_locked("x", tracker=tracker)


async def test_the_environment_is_enough(
    redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code without any tracker may lock."""
    monkeypatch.setenv("AIOTRACK_REDIS_URL", redis_url)
    monkeypatch.setenv("AIOTRACK_NAMESPACE", queue_name)
    async with task_lock("x"):
        assert await is_task_locked("x")
    assert not await is_task_locked("x")


async def test_redis_away_fails_closed_and_soon(sqlite_url: str, own_valkey: ValkeyServer) -> None:
    """R08: refused and mute: an error within some two seconds; a holder is told before its end."""
    async with Tracker(sqlite_url, redis=own_valkey.url) as tracker:
        async with tracker.lock("warm"):
            pass
        for stop, start in (
            (own_valkey.kill, own_valkey.start),
            (own_valkey.pause, own_valkey.resume),
        ):
            begun = time.monotonic()
            with pytest.raises(LockLost):
                async with tracker.lock("x", ttl=2):
                    await asyncio.to_thread(stop)
                    await asyncio.sleep(5)
            assert time.monotonic() - begun < 3
            begun = time.monotonic()
            with pytest.raises(LockUnavailable, match="is Redis running"):
                async with tracker.lock("y", wait=0):
                    pass
            assert time.monotonic() - begun < 4
            await asyncio.to_thread(start)
            async with tracker.lock("z", wait=3):
                pass


async def test_scripts_that_the_server_forgot_are_sent_again(own_valkey: ValkeyServer) -> None:
    """R05: SCRIPT FLUSH between any two requests."""
    async with (
        Tracker("sqlite+aiosqlite://", redis=own_valkey.url),
        Redis.from_url(own_valkey.url) as server,
    ):
        for _ in range(20):
            await server.script_flush()
            async with task_lock("x"):
                await server.script_flush()
