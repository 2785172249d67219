"""Results against what a task promises: its return annotation, or a validator."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Annotated, Any

import pydantic
import pytest
from taskiq import SimpleRetryMiddleware
from taskiq.kicker import AsyncKicker

from aiotrack import (
    InvalidResult,
    TaskStatus,
    Tracker,
    prevent_duplicate_task,
    task_lock,
)
from tests.integration.bench import Bench, bench


class Invoice(pydantic.BaseModel):
    """A model."""

    number: int
    paid: bool = False


@dataclasses.dataclass
class Parcel:
    """A dataclass."""

    weight: float


class Broken(pydantic.BaseModel):
    """A model whose validator breaks, and quotes what it was given."""

    number: Any

    @pydantic.field_validator("number")
    @classmethod
    def check(cls, value: Any) -> Any:
        """Raise what pydantic lets through."""
        raise RuntimeError(f"cannot check {value}")


class Opaque:
    """A class that pydantic knows nothing of."""


class Stubborn:
    """A class that pydantic cannot make sense of."""

    @classmethod
    def __get_pydantic_core_schema__(cls, *_: Any) -> Any:
        raise RuntimeError("no schema")


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


def add_task(b: Bench, annotation: Any, *, in_thread: bool = False, **labels: Any) -> Any:
    """Register a task that returns what it is given as its default."""
    labels = {"validate_result": True} | labels
    values: list[Any] = []

    async def give() -> Any:
        return values[0]

    def give_in_a_thread() -> Any:
        return values[0]

    function: Any = give_in_a_thread if in_thread else give
    function.__annotations__ = {} if annotation is None else {"return": annotation}
    task = b.broker.register_task(function, task_name="shop.give", **labels)
    return task, values


FITS: list[tuple[Any, Any]] = [
    (int, 1),
    (int, "42"),
    ("int | None", None),
    (list[int], [1, "2"]),
    (dict[str, Invoice], {"a": {"number": 1}}),
    (Invoice, Invoice(number=1)),
    (Parcel, {"weight": 1.5}),
    (Opaque, Opaque()),
    (None.__class__, None),
    (Annotated[int, pydantic.Field(gt=3)], 4),
    (Any, print),
]
FITS_NOT: list[tuple[Any, Any, str]] = [
    (int, "x", "the value: Input should be a valid integer"),
    (None.__class__, 3, "the value: Input should be None"),
    (list[int], [1, "secret"], "1: Input should be a valid integer"),
    (dict[str, Invoice], {"a": {"paid": True}}, "a.number: Field required"),
    ("dict[str, Invoice]", {"a": 5}, "a: Input should be a valid dictionary or instance"),
    (Opaque, print, "the value: Input should be an instance of Opaque"),
    (Annotated[int, pydantic.Field(gt=3)], 3, "the value: Input should be greater than 3"),
]


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize(("annotation", "value"), FITS, ids=lambda one: str(one)[:30])
async def test_a_result_that_fits_is_kept_as_it_is(
    small: Tracker, annotation: Any, value: Any, in_thread: bool
) -> None:
    """Lax: a text that reads as an integer is one. Nothing is converted."""
    async with bench(small) as b:
        task, values = add_task(b, annotation, in_thread=in_thread)
        values.append(value)
        sent = await task.kiq()
        await b.settle()
        told = await b.broker.result_backend.get_result(sent.task_id)
        record = await small.get(sent.task_id)

    assert (TaskStatus.SUCCESS, None) == (record.status, record.error)
    assert value is told.return_value


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
@pytest.mark.parametrize(("annotation", "value", "fault"), FITS_NOT, ids=lambda one: str(one)[:30])
async def test_a_result_that_does_not_fit_is_a_failure_for_everybody(
    small: Tracker, annotation: Any, value: Any, fault: str, in_thread: bool
) -> None:
    """For the record and for who waits for the result; it is not retried, its value not told."""
    async with bench(small, after=[SimpleRetryMiddleware()]) as b:
        task, values = add_task(b, annotation, in_thread=in_thread, retry_on_error=True)
        values.append(value)
        sent = await task.kiq()
        await b.settle()
        told = await b.broker.result_backend.get_result(sent.task_id)
        record = await small.get(sent.task_id)

    assert (TaskStatus.FAILURE, "invalid_result", 1) == (
        *(record.status, record.error_class, record.runs),
    )
    assert record.error is not None
    assert "shop.give returned what does not fit its annotation" in record.error
    assert fault in record.error
    assert "secret" not in record.error + str(record.traceback)
    assert record.result is None
    assert told.is_err
    assert isinstance(told.error, InvalidResult)


async def test_many_faults_are_a_few_words(small: Tracker) -> None:
    """Five are told, the others counted."""
    async with bench(small) as b:
        task, values = add_task(b, list[int])
        values.append(["x"] * 1000)
        record = await b.run(task)

    assert record.error is not None
    assert record.error.endswith("and 995 more")
    assert len(record.error) < 500


def even(value: Any) -> bool:
    """Refuse odd numbers."""
    return bool(value % 2 == 0)


def strict(value: Any) -> None:
    """Refuse by raising."""
    if value < 0:
        raise ValueError(f"{value} is below zero")


@pytest.mark.parametrize(
    ("validator", "value", "error"),
    [
        (even, 2, None),
        (even, 3, "the result of shop.give was refused by its validator"),
        (strict, 0, None),
        (strict, -1, "the result of shop.give was refused: ValueError: -1 is below zero"),
        (strict, "x", "the result of shop.give was refused: TypeError: '<' not supported"),
    ],
)
async def test_a_validator_comes_instead_of_the_annotation(
    tracker: Tracker, validator: Any, value: Any, error: str | None
) -> None:
    """It refuses by False or by raising; on both databases."""
    async with bench(tracker) as b:
        task, values = add_task(b, str, validate_result=validator)
        values.append(value)
        record = await b.run(task)

    assert (None if error is None else "invalid_result") == record.error_class
    assert error is None or str(record.error).startswith(error)
    listed = await tracker.list(error_class="invalid_result")
    assert int(error is not None) == len(listed.items)


async def test_a_model_whose_validator_breaks_refuses(small: Tracker) -> None:
    """Its error is told by its type alone, and nothing is tried again."""
    async with bench(small, after=[SimpleRetryMiddleware()]) as b:
        task, values = add_task(b, Broken, retry_on_error=True)
        values.append({"number": "hunter2"})
        record = await b.run(task)

    assert ("invalid_result", 1) == (record.error_class, record.runs)
    assert "shop.give returned what cannot be checked: RuntimeError" == record.error
    assert "hunter2" not in str(record.traceback)


def parse(value: Any) -> None:
    """Refuse by a model."""
    pydantic.TypeAdapter(Invoice).validate_python({"number": value})


def parse_and_say(value: Any) -> None:
    """Refuse by a model, in other words."""
    try:
        parse(value)
    except pydantic.ValidationError as error:
        raise ValueError(error) from error


@pytest.mark.parametrize(
    ("validator", "name"), [(parse, "ValidationError"), (parse_and_say, "ValueError")]
)
async def test_a_validator_that_asks_pydantic_tells_no_value(
    small: Tracker, validator: Any, name: str
) -> None:
    """What a model refused is not in the record of a task that stores no results."""
    async with bench(small) as b:
        task, values = add_task(b, str, validate_result=validator, record_result=False)
        values.append("hunter2")
        record = await b.run(task)

    start = f"the result of shop.give was refused: {name}: 1 validation error for Invoice: number"
    assert "invalid_result" == record.error_class
    assert str(record.error).startswith(start)
    assert "hunter2" not in str(record.error) + str(record.traceback)


@pytest.mark.parametrize("make", [iter, lambda rows: map(int, rows), zip])
async def test_an_iterator_is_left_as_it_is(
    small: Tracker, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """To check it would use it up: a warning, once, and whoever waits has all of it."""
    async with bench(small) as b:
        task, values = add_task(b, list[int])
        expected = list(make([1, 2, 3]))
        for _ in range(2):
            values[:] = [make([1, 2, 3])]
            sent = await task.kiq()
            await b.settle()
            told = await b.broker.result_backend.get_result(sent.task_id)

            assert expected == list(told.return_value)
    warned = [line.message for line in caplog.records if "not checked" in line.message]

    assert 1 == len(warned)
    assert "shop.give" in warned[0]
    assert "an iterator, which can be read only once" in warned[0]


async def test_one_message_may_ask_for_it_or_not(small: Tracker) -> None:
    """By its label, as text too."""
    async with bench(small) as b:
        task, values = add_task(b, int)
        values.append("x")
        without = await b.run(task.kicker().with_labels(validate_result=False))
        told = await b.run(task.kicker().with_labels(validate_result="False"))
        task.labels.pop("validate_result")
        plain = await b.run(task)
        asked = await b.run(task.kicker().with_labels(validate_result=True))

        task.labels["validate_result"] = True
        by_name = await b.run(AsyncKicker("shop.give", b.broker, {}))

    assert [None, None, None, "invalid_result", "invalid_result"] == [
        one.error_class for one in (without, told, plain, asked, by_name)
    ]


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        (None, "no return annotation"),
        (Stubborn, "cannot be used: RuntimeError('no schema')"),
    ],
)
async def test_what_cannot_be_checked_is_told_once_and_harms_nothing(
    small: Tracker, annotation: Any, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A warning that names the task; its results pass."""
    async with bench(small) as b:
        task, values = add_task(b, annotation)
        values.append("x")
        records = [await b.run(task) for _ in range(3)]
    told = [line.message for line in caplog.records if "shop.give are not checked" in line.message]

    assert {TaskStatus.SUCCESS} == {record.status for record in records}
    assert 1 == len(told)
    assert why in told[0]


async def later(value: Any) -> bool:
    """Answer where nobody awaits it."""
    return bool(value)


class Later:
    """As `later`."""

    async def __call__(self, value: Any) -> bool:
        """Answer."""
        return bool(value)


@pytest.mark.parametrize(
    ("validator", "warned"),
    [
        (later, True),
        (Later(), True),
        (functools.partial(later), True),
        (lambda value: later(int(value)), False),
        (lambda value: asyncio.get_running_loop().create_future(), False),
    ],
)
async def test_an_async_validator_refuses(
    small: Tracker, validator: Any, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Its answer is never known, so it never counts as fine; once it is told at the start."""
    async with bench(small, after=[SimpleRetryMiddleware()]) as b:
        task, values = add_task(b, int, validate_result=validator, retry_on_error=True)
        values.append(1)
        records = [await b.run(task) for _ in range(2)]

    assert [("invalid_result", 1)] * 2 == [(one.error_class, one.runs) for one in records]
    assert "its validator is async" in str(records[0].error)
    assert int(warned) == caplog.text.count("every result of shop.give will be refused")


async def test_an_awaitable_result_is_told(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be checked where bodies end: a warning, no harm."""
    async with bench(small) as b:

        @b.task("shop.lazy", validate_result=True)
        def lazy() -> Awaitable[int]:
            async def give() -> Any:
                return "x"

            return give()

        record = await b.run(lazy)

    assert TaskStatus.SUCCESS is record.status
    assert "the result of shop.lazy is not checked" in caplog.text


@pytest.mark.parametrize("in_thread", [False, True], ids=["async", "thread"])
async def test_a_skip_is_exempt(
    sqlite_url: str, redis_url: str, queue_name: str, in_thread: bool
) -> None:
    """What `prevent_duplicate_task` answers is no result of the body; the body's is checked."""
    tracker = Tracker(sqlite_url, redis=redis_url)
    async with bench(tracker) as b:
        if in_thread:

            @b.task("shop.import", validate_result=True)
            @prevent_duplicate_task(queue_name)
            def load() -> int:
                return "x"  # type: ignore[return-value]
        else:

            @b.task("shop.import", validate_result=True)
            @prevent_duplicate_task(queue_name)
            async def load() -> int:
                return "x"  # type: ignore[return-value]

        async with task_lock(queue_name, tracker=tracker):
            skipped = await b.run(load)
        ran = await b.run(load)

    assert (TaskStatus.SUCCESS, "skipped") == (skipped.status, skipped.result["status"])
    assert "invalid_result" == ran.error_class


async def test_a_body_that_calls_itself_is_checked_once_at_its_end(small: Tracker) -> None:
    """What it calls are plain functions: only the task's own result counts."""
    async with bench(small) as b:

        @b.task("shop.count", validate_result=True)
        async def count(depth: int = 3) -> int:
            if depth:
                inner: Any = await count(depth - 1)
                return len(inner)
            return "four"  # type: ignore[return-value]

        with_text = await b.run(count, 0)
        with_length = await b.run(count, 1)

    assert ("invalid_result", None) == (with_text.error_class, with_length.error_class)
    assert 4 == with_length.result


async def test_nothing_is_checked_unless_asked_for(
    small: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain task may return what it likes."""
    caplog.set_level(logging.WARNING)
    async with bench(small) as b:

        @b.task("shop.free")
        async def free() -> int:
            return "x"  # type: ignore[return-value]

        record = await b.run(free)

    assert (TaskStatus.SUCCESS, "x") == (record.status, record.result)
    assert [] == caplog.records
