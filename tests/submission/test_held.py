"""Held messages on both databases: chains, diamonds, failures, cancels, what is deleted."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from taskiq import SimpleRetryMiddleware

from aiotrack import (
    CancelOutcome,
    DependencyFailed,
    ExecutionNotFound,
    InvalidInput,
    TaskCancelled,
    TaskStatus,
    Tracker,
    tracking,
)
from aiotrack.report import Report, Witness
from aiotrack.submission import feature
from aiotrack.verdicts import presume
from tests.submission.shop import Shop
from tests.waits import until


class Parcel(BaseModel):
    """An argument that TaskIQ's kicker makes plain."""

    kilos: int


@dataclass
class Place:
    """Another one."""

    street: str


PENDING, SUCCESS, FAILURE = TaskStatus.PENDING, TaskStatus.SUCCESS, TaskStatus.FAILURE


@pytest.fixture(autouse=True)
def no_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be found by a look: what ends in this process is heard of at once."""
    monkeypatch.setattr(feature, "LOOK", 600.0)


async def test_what_waits_is_sent_as_soon_as_it_may(shop: Shop) -> None:
    """PENDING with its own time, what it waits for, and all that `kiq` would have handed on."""
    with tracking(created_by=42, metadata={"order": 7}):
        first = await shop.tracker.submit("shop.wait", ["a"])
        second = await shop.hold("b", first, priority="high", timeout=9)
    held = await shop.tracker.get(second.task_id)
    before = await shop.held()
    shop.gate.set()
    done = await shop.done(second)
    result = await second.wait_result(timeout=30)

    assert PENDING is held.status
    assert {"depends_on": [first.task_id], "order": 7} == held.metadata == done.metadata
    assert (1, 1) == before
    assert SUCCESS is done.status
    assert (held.created_at, "42", 8, 9.0) == (
        done.created_at,
        done.created_by,
        done.priority,
        done.time_limit,
    )
    assert "b" == result.return_value
    assert ["a", "b"] == shop.begun
    await until("nothing is held", lambda: is_empty(shop))


async def is_empty(shop: Shop) -> bool:
    """Whether nothing is held any more."""
    return await shop.held() == (0, 0)


async def test_what_has_succeeded_is_not_waited_for(shop: Shop) -> None:
    """The message goes at once, and nothing is kept."""
    first = await shop.tracker.submit(shop.note, ["a"])
    await shop.done(first)
    done = await shop.done(await shop.hold("b", await shop.tracker.get(first.task_id)))

    assert {"depends_on": [first.task_id]} == done.metadata
    assert (0, 0) == await shop.held()


async def test_nobody_waits_for_what_does_not_exist(shop: Shop) -> None:
    """So no ring can be made; and nothing is left behind."""
    first = await shop.tracker.submit("shop.wait", ["a"])

    with pytest.raises(ExecutionNotFound, match="no-such"):
        await shop.hold("b", first, "no-such")

    assert (0, 0) == await shop.held()
    assert 1 == (await shop.tracker.stats()).total


async def test_a_failure_fails_what_waits_for_it(shop: Shop) -> None:
    """In turn, with an error that names it; who waits for a result gets it, too."""
    first = await shop.tracker.submit("shop.fail", ["a"])
    second = await shop.hold("b", first)
    third = await shop.hold("c", second)
    other = await shop.hold("d", (await shop.tracker.submit("shop.wait", ["e"])))
    shop.gate.set()
    ends = [await shop.done(one) for one in (second, third, other)]
    result = await third.wait_result(timeout=30)

    assert [FAILURE, FAILURE, SUCCESS] == [one.status for one in ends]
    assert (
        f"it was never sent: it waited for {first.task_id} (shop.fail), which failed: "
        "ValueError: card declined"
    ) == ends[0].error
    assert ("DependencyFailed", "permanent", False, 0) == (
        ends[0].error_type,
        ends[0].error_class,
        ends[0].presumed,
        ends[0].runs,
    )
    assert second.task_id in str(ends[1].error)
    assert isinstance(result.error, DependencyFailed)
    assert second.task_id == result.error.needs
    assert ["a", "d", "e"] == sorted(shop.begun)
    assert [] == await shop.tracker.attempts(second.task_id)
    await until("nothing is held", lambda: is_empty(shop))


async def test_a_result_backend_that_is_away_does_no_harm(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    """The record says what happened."""

    async def away(*_: Any) -> None:
        raise ConnectionError("away")

    first = await shop.tracker.submit("shop.wait", ["a"])
    second = await shop.hold("b", first)
    shop.broker.result_backend.set_result = away
    await shop.tracker.cancel(first.task_id)

    assert FAILURE is (await shop.done(second)).status
    assert "is not told" in caplog.text


async def test_what_failed_before_fails_the_new_one_at_once(shop: Shop) -> None:
    """It is recorded: the next step of a pipeline may be submitted all the same."""
    shop.gate.set()
    first = await shop.tracker.submit("shop.fail", ["a"])
    await shop.done(first)
    second = await shop.hold("b", first)
    third = await shop.hold("c", second)

    assert [FAILURE, FAILURE] == [await shop.status(second), await shop.status(third)]
    assert (0, 0) == await shop.held()


async def test_a_diamond_waits_for_both_branches(shop: Shop) -> None:
    """The last one is sent once, after both."""
    top = await shop.tracker.submit("shop.wait", ["top"])
    left, right = await shop.hold("left", top), await shop.hold("right", top)
    last = await shop.hold("last", left, right, top)
    shop.gate.set()

    assert SUCCESS is (await shop.done(last)).status
    assert "top" == shop.begun[0]
    assert "last" == shop.begun[3]
    assert 4 == len(shop.begun)


async def test_a_broken_branch_fails_the_join(shop: Shop) -> None:
    """The other branch runs on."""
    left = await shop.tracker.submit("shop.fail", ["left"])
    right = await shop.tracker.submit("shop.wait", ["right"])
    last = await shop.hold("last", left, right)
    shop.gate.set()
    ends = [await shop.done(one) for one in (right, last)]

    assert [SUCCESS, FAILURE] == [one.status for one in ends]


async def test_a_chain_of_fifty(shop: Shop) -> None:
    """Each waits for the one before."""
    sent = await shop.tracker.submit("shop.wait", ["0"])
    for number in range(1, 50):
        sent = await shop.hold(str(number), sent)
    shop.gate.set()
    done = await shop.done(sent)

    assert SUCCESS is done.status
    assert [str(number) for number in range(50)] == shop.begun


async def test_many_wait_for_one(shop: Shop) -> None:
    """Each is sent once."""
    await fan_out(shop, 150)


@pytest.mark.chaos
@pytest.mark.timeout(180)
async def test_a_thousand_wait_for_one(shop: Shop) -> None:
    """The same, of more."""
    await fan_out(shop, 1000)


async def fan_out(shop: Shop, count: int) -> None:
    """Let so many wait for one, and see that each runs once."""
    first = await shop.tracker.submit("shop.wait", ["first"])
    await asyncio.gather(*(shop.hold(str(number), first) for number in range(count)))
    shop.gate.set()

    async def all_done() -> bool:
        return (await shop.tracker.stats()).success == count + 1

    await until("all are done", all_done, 120)

    assert sorted(["first", *map(str, range(count))]) == sorted(shop.begun)
    await until("nothing is held", lambda: is_empty(shop))


async def test_a_retry_decides_nothing(tracker: Tracker) -> None:
    """What waits for one that is tried again waits on, and is sent at its success."""
    shop = Shop(tracker, SimpleRetryMiddleware())
    first = await shop.tracker.submit("shop.flaky", ["a"])
    done = await shop.done(await shop.hold("b", first))

    assert SUCCESS is done.status
    assert ["a", "a", "a", "b"] == shop.begun


async def test_the_last_retry_fails_it(tracker: Tracker) -> None:
    """Only a failure that stays counts."""
    shop = Shop(tracker, SimpleRetryMiddleware())
    shop.flaky.labels["max_retries"] = 2
    first = await shop.tracker.submit("shop.flaky", ["a"])
    done = await shop.done(await shop.hold("b", first))

    assert FAILURE is done.status
    assert ["a", "a"] == shop.begun


async def test_a_presumed_verdict_decides_nothing(shop: Shop) -> None:
    """The worker's own word does, whatever was presumed of it."""
    first = await shop.tracker.submit("shop.wait", ["a"])
    second = await shop.hold("b", first)
    await shop.tracker.flush()

    def lose(history: Any) -> Any:
        report = presume(history, now=shop.tracker.clock.now(), error="lost", error_class="lost")
        return () if report is None else (report,)

    await shop.tracker.core().repository.modify(first.task_id, lose)
    await shop.look()
    third = await shop.hold("c", first)
    stands = [await shop.tracker.get(one.task_id) for one in (first, second, third)]
    shop.gate.set()
    ends = [await shop.done(second), await shop.done(third)]

    assert [(FAILURE, True), (PENDING, False), (PENDING, False)] == [
        (one.status, one.presumed) for one in stands
    ]
    assert [SUCCESS, SUCCESS] == [one.status for one in ends]


async def test_what_waits_can_be_cancelled(shop: Shop) -> None:
    """It is REVOKED at once, never sent, and fails what waits for it."""
    first = await shop.tracker.submit("shop.wait", ["a"])
    second = await shop.hold("b", first)
    third = await shop.hold("c", second)
    outcome = await shop.tracker.cancel(second.task_id, reason="wrong")
    end = await shop.done(third)
    await shop.look()
    left = await shop.held()
    result = await second.wait_result(timeout=30)
    shop.gate.set()
    await shop.done(first)
    await shop.look()

    assert CancelOutcome.REVOKED is outcome
    assert TaskStatus.REVOKED is await shop.status(second)
    assert FAILURE is end.status
    assert f"{second.task_id} (shop.note), which was cancelled" in str(end.error)
    assert (0, 0) == left
    assert isinstance(result.error, TaskCancelled)
    assert ["a"] == shop.begun


async def test_a_cancelled_need_fails_what_waits(shop: Shop) -> None:
    """REVOKED is no success."""
    first = await shop.tracker.submit("shop.wait", ["a"])
    second = await shop.hold("b", first)
    await shop.tracker.cancel(first.task_id)
    end = await shop.done(second)

    assert FAILURE is end.status
    assert "was cancelled" in str(end.error)


async def test_a_need_that_is_deleted_fails_what_waits(shop: Shop) -> None:
    """Nobody can tell any more how it ended."""
    await shop.tracker.register("by hand", "shop.pack", status="STARTED")
    second = await shop.hold("b", "by hand")
    await shop.tracker.cleanup(retention_days=0, only_completed=False)
    await shop.look()

    with pytest.raises(ExecutionNotFound):  # it was as old
        await shop.tracker.get(second.task_id)
    assert (0, 0) == await shop.held()

    await shop.tracker.register("again", "shop.pack", status="STARTED")
    third = await shop.hold("c", "again")
    await forget(shop.tracker, "again")
    await shop.look()
    end = await shop.tracker.get(third.task_id)

    assert FAILURE is end.status
    assert "it waited for again which was deleted before it had succeeded" in str(end.error)


async def forget(tracker: Tracker, task_id: str) -> None:
    """Delete a record."""
    await tracker.core().repository.execute(
        "DELETE FROM aiotrack_executions WHERE task_id = $1 RETURNING task_id", (task_id,)
    )


async def test_a_success_counts_when_its_record_is_gone(shop: Shop) -> None:
    """One need is met and cleaned up long before the other."""
    await shop.tracker.register("long ago", "shop.pack", status="STARTED")
    await shop.tracker.register("still", "shop.pack", status="STARTED")
    sent = await shop.hold("b", "long ago", "still")
    await shop.tracker.update("long ago", "done")

    async def is_met() -> bool:
        return await shop.held() == (1, 1)

    await until("one need is left", is_met)
    await forget(shop.tracker, "long ago")
    await shop.tracker.update("still", "done")

    assert SUCCESS is (await shop.done(sent)).status


async def test_sweeps_leave_alone_what_waits(tracker: Tracker) -> None:
    """What is held is not late: it waits for others."""
    shop = Shop(tracker)
    await tracker.register("long", "shop.pack", status="PENDING")
    sent = await shop.hold("b", "long")
    late = Tracker(tracker.database, settings={"pending_timeout_minutes": 0})
    async with late:
        ended = await late.mark_timed_out()

    assert 1 == ended
    assert PENDING is await shop.status(sent)


async def test_what_nobody_records_is_recorded_while_it_waits(small_shop: Shop) -> None:
    """Else nobody could say what became of it."""
    small_shop.note.labels["track"] = False
    first = await small_shop.tracker.submit("shop.wait", ["a"])
    second = await small_shop.hold("b", first)
    small_shop.gate.set()

    assert SUCCESS is (await small_shop.done(second)).status


async def test_arguments_come_back_as_they_were(small_shop: Shop) -> None:
    """Of every kind that JSON knows; what it does not know is refused, and nothing is left."""
    got: list[Any] = []

    @small_shop.broker.task("shop.take", rate=0.5, raw=b"\x00\xff", flag=True)
    async def take(*args: Any, **kwargs: Any) -> None:
        got.append((args, kwargs))

    first = await small_shop.tracker.submit("shop.wait", ["a"])
    values = [1, 1.5, None, True, "\x00 ü \ud800", {"a": [1, {"b": None}]}, 10**30]
    sent = await small_shop.tracker.submit(take, values, {"key": values}, depends_on=first)
    rich = await small_shop.tracker.submit(
        take, [Parcel(kilos=2), Place("Elm St")], depends_on=first
    )
    with pytest.raises(InvalidInput, match="kept as JSON"):
        await small_shop.tracker.submit(take, [{1: object()}], depends_on=first)
    assert (2, 2) == await small_shop.held()
    small_shop.gate.set()

    assert SUCCESS is (await small_shop.done(sent)).status
    assert SUCCESS is (await small_shop.done(rich)).status
    assert (tuple(values), {"key": values}) in got
    assert (({"kilos": 2}, {"street": "Elm St"}), {}) in got


RICH: tuple[Any, ...] = (
    *(datetime(2026, 3, 1, 8, tzinfo=UTC), date(2026, 3, 1), timedelta(hours=2), UUID(int=7)),
    *(Decimal("1.50"), {1}, b"raw", (1, (2,)), {3: "x"}, math.nan, [Place("Elm St")]),
    *([Parcel(kilos=2)], TaskStatus.SUCCESS),
)


async def test_what_waits_gets_what_it_would_get_at_once(small_shop: Shop) -> None:
    """As text where the function does not say what it is, and as that where it does."""
    got: list[Any] = []

    @small_shop.broker.task("shop.take")
    async def take(*args: Any) -> None:
        got.append(args)

    @small_shop.broker.task("shop.know")
    async def know(at: datetime, key: UUID, price: Decimal, kinds: set[int], raw: bytes) -> None:
        got.append((at, key, price, kinds, raw))

    first = await small_shop.tracker.submit("shop.wait", ["a"])
    known = [RICH[0], *RICH[3:7]]
    held = [
        await small_shop.tracker.submit(take, RICH, depends_on=first),
        await small_shop.tracker.submit(know, known, depends_on=first),
    ]
    at_once = [await small_shop.tracker.submit(take, RICH), await take.kiq(*RICH)]
    for one in at_once:
        await one.wait_result(timeout=10)
    small_shop.gate.set()
    for one in held:
        assert SUCCESS is (await small_shop.done(one)).status

    assert 4 == len(got)
    assert tuple(known) in got
    assert 3 == sum(repr(one) == repr(got[0]) for one in got)


async def test_a_rerun_of_what_waited_waits_for_nobody(small_shop: Shop) -> None:
    """Nor does its record say so."""
    small_shop.gate.set()
    broken = await small_shop.tracker.submit(small_shop.fail, ["a"])
    held = await small_shop.hold("b", broken)
    await small_shop.tracker.wait(held.task_id, 10)
    new = await small_shop.tracker.rerun(held.task_id, by="ada")
    ended = await small_shop.tracker.wait(new.task_id, 10)

    assert TaskStatus.SUCCESS is ended.status
    assert {"rerun_by": "ada"} == ended.metadata


async def test_many_needs_are_named_in_part(small_shop: Shop) -> None:
    """The metadata stays small, and says how many there are."""
    for number in range(25):
        await small_shop.tracker.register(f"n{number:02}", "shop.pack", status="STARTED")
    sent = await small_shop.hold("a", *(f"n{number:02}" for number in range(25)))
    named = (await small_shop.tracker.get(sent.task_id)).metadata["depends_on"]

    assert [*(f"n{number:02}" for number in range(20)), "and 5 more"] == named
    assert (1, 25) == await small_shop.held()


async def test_a_run_may_hold_what_follows_it(small_shop: Shop) -> None:
    """A body submits what waits for itself; the child knows its parent."""
    sent: list[Any] = []

    @small_shop.broker.task("shop.plan")
    async def plan() -> None:
        from aiotrack import current_execution

        run = current_execution()
        assert run is not None
        sent.append(await small_shop.hold("after", run))

    first = await small_shop.tracker.submit(plan)
    await small_shop.done(first)
    done = await small_shop.done(sent[0])

    assert SUCCESS is done.status
    assert first.task_id == done.parent_task_id


async def test_a_late_success_of_a_failure_is_no_harm(shop: Shop) -> None:
    """What was failed stays so: its need did truly fail."""
    shop.gate.set()
    first = await shop.tracker.submit("shop.fail", ["a"])
    second = await shop.hold("b", first)
    end = await shop.done(second)
    now = shop.tracker.clock.now()

    def succeed(history: Any) -> list[Report]:
        origin = history.origin()
        origin.echoes = True
        run = Report(origin, Witness.ENDED, SUCCESS, "again", requeues=1)
        run.started_at = run.finished_at = now
        return [run]

    await shop.tracker.core().repository.modify(first.task_id, succeed)
    await shop.look()

    assert FAILURE is end.status
    assert FAILURE is await shop.status(second)
    assert SUCCESS is await shop.status(first)
