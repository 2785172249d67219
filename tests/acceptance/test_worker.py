"""Real workers, real queues, real databases: every record right in every field."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from aiotrack import Execution, TaskStatus, Tracker
from tests.acceptance.app import Project
from tests.acceptance.kinds import Expected, faults, send, time_faults
from tests.waits import until

pytestmark = pytest.mark.timeout(150)

SENDERS = 50


async def send_all(project: Project, count: int) -> dict[str, Expected]:
    """Send the mix at full speed from many senders at once."""
    numbers = iter(range(count))
    expected: dict[str, Expected] = {}

    async def sender() -> None:
        for number in numbers:
            expected.update(await send(project, number))

    await asyncio.gather(*(sender() for _ in range(SENDERS)))
    return expected


async def all_records(tracker: Tracker) -> list[Execution]:
    """Read every record, page by page, but those of sweeps: a scheduler sends them by the clock."""
    found: list[Execution] = []
    after = None
    while True:
        page = await tracker.list(limit=500, after=after, order="created_at")
        found += [one for one in page.items if one.module != "aiotrack"]
        after = page.next
        if after is None:
            return found


async def finished(tracker: Tracker, count: int, deadline: float = 90) -> None:
    """Wait until *count* records are there and none is unfinished."""

    async def done() -> bool:
        stats = await tracker.stats()
        return stats.total >= count and stats.total == stats.success + stats.failure

    try:
        await until(f"{count} finished records", done, deadline)
    except BaseException:
        print(await tracker.stats())
        raise


def keyed(records: list[Execution], expected: dict[str, Expected]) -> dict[str, Execution]:
    """Give records by task_id; a task's child, whose id nobody could know, by its parent's."""
    found = {}
    for record in records:
        is_child = record.task_id not in expected
        found[f"child of {record.parent_task_id}" if is_child else record.task_id] = record
    return found


def compare(
    records: list[Execution], expected: dict[str, Expected], queue: str
) -> dict[str, list[str]]:
    """Give what is wrong, by task_id; a few are enough to see why."""
    found = keyed(records, expected)
    wrong = {
        task_id: faults(found[task_id], fields, queue) if task_id in found else ["missing"]
        for task_id, fields in expected.items()
    }
    wrong |= {task_id: ["unexpected"] for task_id in found.keys() - expected.keys()}
    told = {task_id: [expected[task_id].task_name, *w] for task_id, w in wrong.items() if w}
    return dict(list(told.items())[:20])


@pytest.mark.parametrize(
    ("kind", "count", "place"),
    [("stream", 2000, "first"), ("list", 300, "last")],
)
async def test_mixed_tasks_leave_every_record_right(
    start_project: Callable[..., Any], database_url: str, kind: str, count: int, place: str
) -> None:
    """Mixed tasks at full speed: every record there, finished, and right in every field."""
    async with start_project(database_url, kind=kind, place=place) as (project, workers):
        workers.worker()

        async def are_there() -> bool:
            return len(await project.tracker.workers()) == 2

        await until("both processes are there", are_there, 30)
        expected = await send_all(project, count)
        await finished(project.tracker, len(expected))
        records = await all_records(project.tracker)

    assert {} == compare(records, expected, project.queue)
    assert len(expected) == len(records)
    assert 2 == len({record.worker for record in records}), "both processes work"
    assert [] == workers.trouble()


async def test_the_record_of_a_sent_task_is_there_before_any_worker_is(
    start_project: Callable[..., Any], database_url: str
) -> None:
    """A sender reads PENDING as soon as its send returns; workers that come later complete it."""
    async with start_project(database_url) as (project, workers):
        expected = await send_all(project, 60)
        waiting = await project.tracker.stats()
        workers.worker()
        await finished(project.tracker, len(expected))
        records = await all_records(project.tracker)

    children = sum(task_id.startswith("child of") for task_id in expected)

    assert (len(expected) - children, 0) == (waiting.pending, waiting.total - waiting.pending)
    assert {} == compare(records, expected, project.queue)
    assert [] == workers.trouble()


RETRIED = {
    "shop.gives_up": ("ValueError", 3, 3),
    "shop.recovers": ("ConnectionError", 2, 3),
    "shop.sync_recovers": ("OSError", 1, 2),
}
"""Task → type of its errors, how many attempts fail, how many there are."""


@pytest.mark.parametrize(
    ("kind", "retry", "place", "count"),
    [
        ("stream", "simple", "first", 300),
        ("stream", "smart", "last", 150),
        ("list", "simple", "last", 150),
        ("stream", "scheduled", "first", 30),
        ("stream", "scheduled", "last", 30),
    ],
)
async def test_every_attempt_is_there_with_its_true_error(
    start_project: Callable[..., Any],
    database_url: str,
    kind: str,
    retry: str,
    place: str,
    count: int,
) -> None:
    """Retries at full speed: each attempt keeps its own error, and the record its outcome."""
    names = list(RETRIED)
    sent: dict[str, tuple[str, int]] = {}
    async with start_project(database_url, kind=kind, retry=retry, place=place) as (
        project,
        workers,
    ):
        workers.worker()
        if retry == "scheduled":
            workers.scheduler()
        numbers = iter(range(count))

        async def sender() -> None:
            for number in numbers:
                name = names[number % len(names)]
                sent[await project.kiq(name, number)] = (name, number)

        await asyncio.gather(*(sender() for _ in range(SENDERS)))
        await finished(project.tracker, count)
        records = await all_records(project.tracker)
        wrong = {}
        for record in records:
            name, number = sent[record.task_id]
            if told := await retry_faults(project, record, name, number):
                wrong[record.task_id] = told

    assert {} == dict(list(wrong.items())[:10])
    assert set(sent) == {record.task_id for record in records}
    assert [] == workers.trouble()


async def retry_faults(project: Project, record: Execution, name: str, number: int) -> list[str]:
    """Compare a record and its attempts with what the task did; give what is wrong in words."""
    kind, failing, total = RETRIED[name]
    errors = [f"attempt {n} of {number}" if n <= failing else None for n in range(1, total + 1)]
    ends = failing == total
    statuses = [TaskStatus.RETRY] * (total - 1)
    statuses.append(TaskStatus.FAILURE if ends else TaskStatus.SUCCESS)
    attempts = await project.tracker.attempts(record.task_id)
    queue = project.queue
    pairs = [
        ("task_name", name, record.task_name),
        ("args", [number], record.args),
        ("queue", queue, record.queue),
        ("status", statuses[-1], record.status),
        ("result", None if ends else f"attempt {total}", record.result),
        ("error", errors[-1], record.error),
        ("error_type", kind if ends else None, record.error_type),
        ("attempt", total, record.attempt),
        ("runs, duplicates", (total, 0), (record.runs, record.duplicates)),
        ("attempts", list(range(1, total + 1)), [one.attempt for one in attempts]),
        ("causes", ["first", *["retry"] * (total - 1)], [one.cause.value for one in attempts]),
        ("statuses", statuses, [one.status for one in attempts]),
        ("errors", errors, [one.error for one in attempts]),
        ("types", [kind if e else None for e in errors], [one.error_type for one in attempts]),
        (
            "tracebacks",
            [f"{kind}: {error}" if error else "" for error in errors],
            [last_line(one.traceback) for one in attempts],
        ),
        ("last times", (record.started_at, record.finished_at, record.duration), (
            attempts[-1].started_at, attempts[-1].finished_at, attempts[-1].duration,
        )),
    ]  # fmt: skip
    told = [
        f"{what}: expected {left!r}, got {right!r}" for what, left, right in pairs if left != right
    ]
    told += [
        f"an attempt without times: {one}"
        for one in attempts
        if None in {one.worker, one.started_at, one.finished_at, one.duration}
    ]
    return told + time_faults(record)


def last_line(text: str | None) -> str:
    """Give a traceback's last line, in which the error stands."""
    return text.strip().splitlines()[-1] if text else ""
