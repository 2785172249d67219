"""Plain code without a broker: tracked blocks and functions, and progress."""

from __future__ import annotations

import asyncio
import functools
import gc
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest

from aiotrack import InvalidValue, TaskStatus, Tracker, current_execution, tracking
from tests.integration.bench import bench


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


async def _echo(value: Any) -> Any:
    return value


async def test_a_block_of_code_is_tracked(tracker: Tracker) -> None:
    """Start, progress and end of a block are in its record; inside it is STARTED."""
    with tracking(created_by=9, metadata={"a": 1}):
        async with tracker.track("shop.block", args=[1], kwargs={"b": 2}, metadata={"c": 3}) as run:
            await tracker.progress(40, "half way")
            inside = await tracker.get(run.task_id)
    record = await tracker.get(run.task_id)

    assert TaskStatus.STARTED is inside.status
    assert (TaskStatus.SUCCESS, "shop", "9", [1], {"b": 2}) == (
        *(record.status, record.module, record.created_by, record.args, record.kwargs),
    )
    expected = {"a": 1, "c": 3, "progress_percent": 40, "progress_message": "half way"}
    assert expected == record.metadata
    assert current_execution() is None


async def test_whoever_a_block_names_has_made_it(tracker: Tracker) -> None:
    """Also one whose number is 0, whatever is said around it."""
    with tracking(created_by=9):
        async with tracker.track("shop.block", created_by=0) as run:
            pass

    assert "0" == (await tracker.get(run.task_id)).created_by


async def test_an_exception_passes_through_a_tracked_block(tracker: Tracker) -> None:
    """The very exception comes out, and is the record's error."""
    boom = ValueError("boom")
    with pytest.raises(ValueError, match="boom") as caught:
        async with tracker.track("shop.block", task_id="b") as run:
            raise boom
    record = await tracker.get(run.task_id)

    assert boom is caught.value
    assert ("b", TaskStatus.FAILURE, "boom") == (record.task_id, record.status, record.error)


async def test_a_cancelled_block_says_cancelled(tracker: Tracker) -> None:
    """A cancelled body is FAILURE with the class cancelled, and the cancellation goes on."""
    entered = asyncio.Event()

    async def work() -> None:
        async with tracker.track("shop.block", task_id="c"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    record = await tracker.get("c")

    assert task.cancelled()
    assert (TaskStatus.FAILURE, "cancelled") == (record.status, record.error_class)


async def test_functions_are_tracked_async_sync_and_in_threads(small: Tracker) -> None:
    """A decorated function gives what it gave before; every call is a record."""

    @small.tracked("shop.async")
    async def one(value: int) -> int:
        await small.progress(10)
        return value

    @small.tracked("shop.sync", module="post")
    def two(value: int, *, note: str = "") -> int:
        small.progress_sync(20)
        return value

    @small.tracked()
    def three(value: int) -> None:
        raise KeyError(value)

    given = [await one(1), two(2, note="x"), await asyncio.to_thread(two, 3)]
    with pytest.raises(KeyError):
        three(4)
    with pytest.raises(KeyError):
        await asyncio.to_thread(three, 5)
    await asyncio.to_thread(lambda: None)
    records = (await small.list(order="created_at")).items

    assert [1, 2, 3] == given
    told = [(r.task_name.rpartition(".")[2], r.module, r.args, r.result, r.error) for r in records]
    assert told == [
        ("async", "shop", [1], 1, None),
        ("sync", "post", [2], 2, None),
        ("sync", "post", [3], 3, None),
        ("three", "tests", [4], None, "4"),
        ("three", "tests", [5], None, "5"),
    ]
    assert {"note": "x"} == records[1].kwargs
    assert [10, 20, 20] == [record.metadata["progress_percent"] for record in records[:3]]
    assert "one" == one.__name__


def plainly(function: Any) -> Any:
    """Decorate as many do: with a plain function, whatever is inside."""

    @functools.wraps(function)
    def around(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return around


class Job:
    """An object whose call is async."""

    async def __call__(self, tracker: Tracker, error: Exception | None) -> str:
        """Tell of the run that it is in, and end as asked."""
        await asyncio.sleep(0.01)
        await tracker.progress(50)
        if error is not None:
            raise error
        run = current_execution()
        return "" if run is None else run.task_name


async def test_what_a_call_only_began_is_recorded_to_its_end(small: Tracker) -> None:
    """Behind a plain decorator, in an object or in a future: one run, with its own end."""
    job = Job()

    def begin_it(*args: Any) -> asyncio.Task[str]:
        return asyncio.create_task(job(*args))

    for name, function in (
        ("object", job),
        ("wrapped", plainly(job.__call__)),
        ("future", begin_it),
    ):
        tracked: Any = small.tracked(f"shop.{name}")(function)
        made = tracked(small, None)
        before = current_execution()
        inside = [one.status for one in (await small.list(limit=1)).items if name != "object"]
        given = await (made if name == "future" else asyncio.create_task(made))
        with pytest.raises(KeyError) as raised:
            await tracked(small, KeyError("own"))
        await asyncio.sleep(0)
        failed, good = (await small.list(limit=2)).items

        assert (None, None, f"shop.{name}") == (before, current_execution(), given)
        assert inside in ([], [TaskStatus.STARTED])
        assert ("own",) == raised.value.args
        assert (TaskStatus.SUCCESS, given, 1) == (good.status, good.result, good.runs)
        assert (TaskStatus.FAILURE, "KeyError") == (failed.status, failed.error_type)
        assert [50, 50] == [one.metadata["progress_percent"] for one in (good, failed)]
        assert all(0.01 <= (one.duration or 0) < 5 for one in (good, failed))


async def test_a_coroutine_of_another_thread_goes_on_here(small: Tracker) -> None:
    """Its function was called where no loop runs."""
    tracked: Any = small.tracked("shop.apart")(plainly(Job().__call__))
    made = await asyncio.to_thread(tracked, small, None)
    given = await made
    (record,) = (await small.list()).items

    assert (TaskStatus.SUCCESS, "shop.apart") == (record.status, given)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
async def test_a_coroutine_that_nobody_awaits_is_no_success(small: Tracker) -> None:
    """What was never begun has not been done."""
    tracked: Any = small.tracked("shop.dropped")(plainly(Job().__call__))
    made = tracked(small, None)
    name = made.__qualname__
    del made
    gc.collect()
    await asyncio.sleep(0.01)
    (record,) = (await small.list()).items

    assert "Job.__call__" == name
    assert TaskStatus.FAILURE is record.status
    assert "never awaited" in str(record.error)


async def test_what_a_caller_uses_otherwise_is_given_as_it_is(small: Tracker) -> None:
    """A request that may be awaited or entered is no work that was begun."""

    class Request(Job):
        def __await__(self) -> Any:
            return self("", None).__await__()

    request = Request()

    assert request is small.tracked("shop.request")(lambda: request)()
    assert TaskStatus.SUCCESS is (await small.list()).items[0].status


async def test_a_generator_is_refused(small: Tracker) -> None:
    """Its body runs when somebody iterates, long after the call."""

    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    for one in (numbers, later):
        with pytest.raises(InvalidValue, match=f"{one.__name__} is a generator"):
            small.tracked(one)


async def test_a_secret_name_with_a_star_hides_all_that_follow(small: Tracker) -> None:
    """For a tracked function and for a task."""

    @small.tracked("shop.sync")
    def tracked(user: str, *passwords: str) -> None:
        """Take more than one."""

    tracked("u", "pw-one", "pw-two")
    async with bench(small) as b:

        @b.task("shop.task")
        async def task(user: str, *passwords: str) -> None:
            """Take more than one."""

        await b.run(task, "u", "pw-one", "pw-two")
    records = (await small.list()).items

    assert [["u", "[redacted]", "[redacted]"]] * 2 == [record.args for record in records]


async def test_tracked_code_is_the_parent_of_what_it_sends(small: Tracker) -> None:
    """Blocks nest, and tasks sent inside a block have it as their parent."""
    async with bench(small) as b:
        task = b.task("shop.rows")(_echo)
        async with small.track("outer", task_id="o"), small.track("inner", task_id="i"):
            sent = await b.run(task, 1)
    inner, outer = await small.get("i"), await small.get("o")

    assert ("i", "o", None) == (sent.parent_task_id, inner.parent_task_id, outer.parent_task_id)


# ── progress ────────────────────────────────────────────────────────────────────────────────────
async def test_a_loop_of_progress_is_coalesced_and_its_last_value_kept(tracker: Tracker) -> None:
    """Fifty thousand calls make a few reports, never one each."""
    calls = 50_000
    async with tracker.track("shop.loop") as run:
        before = tracker.recorder().counters["reports"]
        for number in range(calls):
            await tracker.progress(current=number, total=calls, order=number)
        reports = tracker.recorder().counters["reports"] - before
    record = await tracker.get(run.task_id)

    assert {"progress_percent": 99, "order": calls - 1} == record.metadata
    assert 100 > reports


async def test_a_loop_of_progress_lets_others_run(small: Tracker) -> None:
    """The loop yields by itself: another coroutine goes on while it runs."""
    turns = 0
    over = False

    async def other() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    async with small.track("shop.loop"):
        task = asyncio.create_task(other())
        for number in range(50_000):
            await small.progress(number % 100)
        over = True
        await task

    assert 3 < turns


NONSENSE = [float("nan"), "half", object(), [1], 1j]
PERCENTS = {-5: 0, 0: 0, 0.99: 0, 33.9: 33, 100: 100, 1e9: 100, float("inf"): 100, True: 1}


@pytest.mark.parametrize("percent", PERCENTS)
async def test_a_percentage_is_rounded_down_and_clamped(small: Tracker, percent: float) -> None:
    """What is stored is an int from 0 to 100."""
    async with small.track("shop.loop") as run:
        await small.progress(percent)
    record = await small.get(run.task_id)

    assert {"progress_percent": PERCENTS[percent]} == record.metadata
    assert int is type(record.metadata["progress_percent"])


async def test_nonsense_is_counted_and_never_raised(small: Tracker) -> None:
    """What is no number is left out; the rest of the call is kept."""
    async with small.track("shop.loop") as run:
        for value in NONSENSE:
            await small.progress(value, "still here")  # type: ignore[arg-type]
        await small.progress(current=1, total=0)
        await small.progress(current="x", total=3)  # type: ignore[arg-type]
        for one, two in (("0", "0"), ("Infinity", "Infinity"), ("sNaN", "2")):
            await small.progress(current=Decimal(one), total=Decimal(two))  # type: ignore[arg-type]
    record = await small.get(run.task_id)

    assert {"progress_message": "still here"} == record.metadata
    assert len(NONSENSE) + 5 == small.recorder().counters["nonsense"]


async def test_a_given_percentage_needs_no_total(small: Tracker) -> None:
    """What is done is said beside it; without a percentage and a total it tells no share."""
    told = []
    for sent in ({"percent": 50, "current": 5}, {"current": 5}, {"percent": 0, "current": 5}):
        async with small.track("shop.percent") as run:
            await small.progress(**sent)  # type: ignore[arg-type]
        told.append((await small.get(run.task_id)).metadata)
        async with small.track("shop.percent") as run:
            small.progress_sync(**sent)  # type: ignore[arg-type]
        told.append((await small.get(run.task_id)).metadata)

    assert [{"progress_percent": 50}] * 2 == told[:2]
    assert [{}] * 2 == told[2:4]
    assert [{"progress_percent": 0}] * 2 == told[4:]
    assert 0 == small.recorder().counters["nonsense"]


async def test_progress_outside_a_run_does_nothing(small: Tracker) -> None:
    """No record, no error; with an id it is an update of that record."""
    await small.progress(50)
    small.progress_sync(50)
    await small.register("x", "shop.rows")
    await small.progress(60, step="rows", task_id="x")
    record = await small.get("x")

    assert {"progress_percent": 60, "progress_step": "rows"} == record.metadata
    assert 1 == (await small.stats()).total
