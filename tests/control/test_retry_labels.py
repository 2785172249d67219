"""Retries by class of error, with a delay that grows: whichever middleware sends them."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from taskiq import SimpleRetryMiddleware, SmartRetryMiddleware, TaskiqMessage, TaskiqMiddleware

from aiotrack import (
    InvalidSetting,
    InvalidValue,
    TaskStatus,
    Tracker,
    current_execution,
    get_task_retry_labels,
)
from aiotrack.validation.retries import space
from tests.integration.bench import Bench, bench

MIDDLEWARES = {
    "simple": SimpleRetryMiddleware,
    "smart": SmartRetryMiddleware,
}


class Wire(TaskiqMiddleware):
    """Notes the labels of every message that is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []

    @property
    def delays(self) -> list[float | None]:
        """The label ``delay`` of each, None without one."""
        found = [labels.get("delay") for labels in self.sent]
        return [None if one is None else float(one) for one in found]

    async def post_send(self, message: TaskiqMessage) -> None:
        self.sent.append(dict(message.labels))


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


@pytest.fixture(params=[f"{kind}, {place}" for kind in MIDDLEWARES for place in ("first", "last")])
def around(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Both retry middlewares, before and behind the tracker."""
    kind, place = request.param.split(", ")
    return {"after" if place == "first" else "before": [MIDDLEWARES[kind]()]}


def add_failing(b: Bench, error: BaseException, **labels: Any) -> Any:
    """Register a task that always raises *error*, in a thread too."""

    @b.task("shop.fails", **labels)
    async def fails() -> None:
        raise error

    return fails


async def test_n_retries_are_n_more_attempts(small: Tracker, around: dict[str, Any]) -> None:
    """TaskIQ's label counts attempts: one more than retries."""
    async with bench(small, **around) as b:
        task = add_failing(b, ConnectionError("no"), **get_task_retry_labels(2, 0))
        record = await b.run(task)
        told = await b.told(record)

    assert (TaskStatus.FAILURE, "transient", 3) == (
        *(record.status, record.error_class, record.attempt),
    )
    assert ["RETRY", "RETRY", "FAILURE"] == [status for _, _, status, _ in told]


@pytest.mark.parametrize("in_thread", [False, True])
@pytest.mark.parametrize("labels", [{"retry_on_error": True}, get_task_retry_labels(5, 0)])
async def test_a_permanent_error_is_not_retried(
    small: Tracker, around: dict[str, Any], labels: dict[str, Any], in_thread: bool
) -> None:
    """Also where the user's own labels ask for retries; another error of the same task is."""
    small.classify({LookupError: "permanent"})
    async with bench(small, **around) as b:
        if in_thread:

            @b.task("shop.find", **labels)
            def find(name: str) -> None:
                raise (KeyError if name == "gone" else ValueError)(name)
        else:

            @b.task("shop.find", **labels)
            async def find(name: str) -> None:
                raise (KeyError if name == "gone" else ValueError)(name)

        gone, odd = await b.run(find, "gone"), await b.run(find, "odd")

    assert (TaskStatus.FAILURE, "permanent", 1, 1) == (
        *(gone.status, gone.error_class, gone.attempt, gone.runs),
    )
    assert odd.error_class is None
    assert odd.runs > 1


async def test_wrong_arguments_are_not_retried(small: Tracker, around: dict[str, Any]) -> None:
    """They stay wrong; a TypeError of the body's own code has no class, and is retried."""
    async with bench(small, **around) as b:

        @b.task("shop.add", retry_on_error=True, max_retries=2)
        async def add(number: int) -> int:
            return number + None  # type: ignore[operator]

        @b.task("shop.add_in_a_thread", retry_on_error=True, max_retries=2)
        def add_in_a_thread(number: int) -> int:
            return number

        wrong = await b.run(add, 1, 2, 3)
        unknown = await b.run(add, numbr=1)
        threaded = await b.run(add_in_a_thread)
        inside = await b.run(add, 1)

    assert ["invalid_input"] * 3 == [one.error_class for one in (wrong, unknown, threaded)]
    assert [1, 1, 1, 2] == [one.runs for one in (wrong, unknown, threaded, inside)]
    assert inside.error_class is None


async def test_arguments_that_a_decorator_adds_are_no_wrong_input(small: Tracker) -> None:
    """The body ran: its TypeError is its own."""

    def with_session(function: Any) -> Any:
        @functools.wraps(function)
        async def around(*args: Any) -> Any:
            return await function("session", *args)

        return around

    async with bench(small) as b:

        @b.task("shop.add")
        @with_session
        async def add(session: str, number: int) -> str:
            return session + number  # type: ignore[operator]

        inside = await b.run(add, 1)
        wrong = await b.run(add, 1, 2, 3)

    assert (None, "invalid_input") == (inside.error_class, wrong.error_class)


async def test_the_delay_grows_with_each_attempt(small: Tracker, around: dict[str, Any]) -> None:
    """Each is delay * backoff ** (n - 1) before attempt n + 1, in the label that is read."""
    wire = Wire()
    around = {**around, "after": [*around.get("after", ()), wire]}
    async with bench(small, **around) as b:
        labels = get_task_retry_labels(3, 0.5, 3.0, jitter=False)
        record = await b.run(add_failing(b, ConnectionError("no"), **labels))

    assert 4 == record.attempt
    assert [None, 0.5, 1.5, 4.5] == wire.delays


async def test_jitter_makes_a_delay_longer_never_shorter(small: Tracker) -> None:
    """By up to a quarter, and not always by the same."""
    wire = Wire()
    async with bench(small, after=[SmartRetryMiddleware(), wire]) as b:
        labels = get_task_retry_labels(30, 2, 1, jitter=True)
        await b.run(add_failing(b, ConnectionError("no"), **labels))
    delays = [one for one in wire.delays if one is not None]

    assert 30 == len(delays)
    assert all(2 <= delay <= 2.5 for delay in delays)
    assert len(set(delays)) > 5


async def test_a_backoff_ends_at_an_hour(small: Tracker) -> None:
    """Unless the delay was longer from the beginning."""
    wire = Wire()
    async with bench(small, after=[SimpleRetryMiddleware(), wire]) as b:
        steep = get_task_retry_labels(3, 10, 1000, jitter=False)
        await b.run(add_failing(b, ConnectionError("no"), **steep))
        long = get_task_retry_labels(1, 7200, 2, jitter=False)
        await b.run(b.broker.find_task("shop.fails").kicker().with_labels(**long))  # type: ignore[union-attr]

    assert [None, 10, 3600, 3600, None, 7200] == wire.delays


async def test_labels_of_the_user_keep_their_meaning(
    small: Tracker, around: dict[str, Any]
) -> None:
    """A delay without ours stays as it is, on the first message too; no retry means none."""
    wire = Wire()
    around = {**around, "after": [*around.get("after", ()), wire]}
    async with bench(small, **around) as b:
        own = add_failing(b, ConnectionError("no"), retry_on_error=True, max_retries=3, delay=7)
        await b.run(own)
        delayed = own.kicker().with_labels(**get_task_retry_labels(0, 5) | {"delay": 60})
        await b.run(delayed)
        never = await b.run(own.kicker().with_labels(retry_on_error=False))

    assert [7, 7, 7, 60, 7] == wire.delays
    assert 1 == never.runs


async def test_a_run_out_of_time_is_retried_after_the_delay(
    small: Tracker, around: dict[str, Any]
) -> None:
    """A time limit is no permanent error."""
    wire = Wire()
    around = {**around, "after": [*around.get("after", ()), wire]}
    async with bench(small, **around) as b:

        @b.task("shop.slow", timeout=0.05, **get_task_retry_labels(1, 3, jitter=False))
        async def slow() -> int:
            run = current_execution()
            assert run is not None
            if run.attempt == 1:
                await asyncio.sleep(60)
            return run.attempt

        record = await b.run(slow)
        attempts = await b.attempts(record)

    assert (TaskStatus.SUCCESS, 2) == (record.status, record.result)
    assert ["timeout", None] == [one.error_class for one in attempts]
    assert [None, 3.0] == wire.delays


def test_what_is_not_given_comes_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's, or those of a tracker."""
    plain = get_task_retry_labels()
    monkeypatch.setenv("AIOTRACK_RETRY_MAX_RETRIES", "7")
    monkeypatch.setenv("AIOTRACK_RETRY_DELAY_SECONDS", "0.5")
    monkeypatch.setenv("AIOTRACK_RETRY_JITTER", "off")
    told = get_task_retry_labels(backoff=1)
    tracker = Tracker("sqlite+aiosqlite:///x.db", settings={"retry_max_retries": 1})
    given = get_task_retry_labels(tracker=tracker)

    assert (4, 5.0, True) == (plain["max_retries"], plain["delay"], plain["retry_on_error"])
    assert (2.0, True) == (plain["aiotrack_retry_backoff"], plain["aiotrack_retry_jitter"])
    assert (8, 0.5, False) == (*(told["max_retries"], told["delay"]), told["aiotrack_retry_jitter"])
    assert 2 == given["max_retries"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_retries": -1},
        {"max_retries": True},
        {"max_retries": 1.5},
        {"delay": -1},
        {"delay": float("inf")},
        {"delay": "5"},
        {"backoff": 0.5},
        {"backoff": 1e300},
        {"backoff": float("nan")},
    ],
    ids=str,
)
def test_a_value_outside_its_range_is_refused(wrong: dict[str, Any]) -> None:
    """At once, by name."""
    with pytest.raises(InvalidValue, match=next(iter(wrong))):
        get_task_retry_labels(**wrong)


def test_a_setting_outside_its_range_is_refused() -> None:
    """At start, by name."""
    with pytest.raises(InvalidSetting, match="retry_backoff"):
        Tracker("sqlite+aiosqlite:///x.db", settings={"retry_backoff": 0.1})


async def test_labels_without_a_retry_middleware_are_told(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """They would do nothing: a worker says so when it meets its tasks."""
    async with bench(small) as b:
        add_failing(b, ConnectionError("no"), **get_task_retry_labels(2, 0))
        record = await b.run(b.broker.find_task("shop.fails"))

    assert 1 == record.runs
    assert ["shop.fails will not be retried"] == [
        line.message[:30] for line in caplog.records if "will not be retried" in line.message
    ]


async def test_it_is_told_once_where_two_brokers_take_turns(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is met once, whichever ran before."""
    async with bench(small) as b, bench(small) as other:
        add_failing(b, ConnectionError("no"), **get_task_retry_labels(2, 0))

        @other.task("shop.ok")
        async def ok() -> None:
            """Do nothing."""

        for _ in range(3):
            await b.run(b.broker.find_task("shop.fails"))
            await other.run(ok)

    told = [line for line in caplog.records if "will not be retried" in line.message]
    assert 1 == len(told)


def test_a_thousand_attempts_are_no_overflow() -> None:
    """The delay ends at its bound, whatever the power comes to."""
    labels = get_task_retry_labels(5, 1, 1000, jitter=False)
    space(labels, 1000)

    assert 3600 == labels["delay"]
