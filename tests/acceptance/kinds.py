"""What every task of ``app.py`` has to leave in its record, field by field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiotrack import Execution, TaskStatus, tracking
from tests.acceptance.app import BIG, Project

SLACK = 0.25
"""Seconds by which a duration may differ from the times beside it, on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The fields of one record; those with a default are the same for most tasks."""

    task_name: str
    args: list[Any]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    status: TaskStatus = TaskStatus.SUCCESS
    result: Any = None
    error: str | None = None
    error_type: str | None = None
    error_class: str | None = None
    created_by: str | None = None
    module: str = "shop"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    queue: str | None = None
    """None: the broker's own."""
    priority: int | None = None
    attempt: int = 1
    runs: int = 1
    trace: str | None = None
    """A line that the traceback must have."""
    parent_task_id: str | None = None


Sender = Callable[[Project, int], Any]


def big_marker(result: Any) -> Any:
    """Give what stands for a big result: its size and its beginning."""
    assert isinstance(result, dict), result
    assert result["$truncated"] is True
    return BIG


def failure(name: str, number: int, error: str, kind: str, **more: Any) -> Expected:
    """Give the record of a task that failed."""
    return Expected(
        task_name=name,
        args=[number],
        status=TaskStatus.FAILURE,
        error=error,
        error_type=kind,
        trace=more.pop("trace", f"{kind}: {error}" if error else kind),
        **more,
    )


def success(name: str, number: int, result: Any, **more: Any) -> Expected:
    """Give the record of a task that succeeded."""
    return Expected(task_name=name, args=[number], result=result, **more)


async def send(project: Project, number: int) -> dict[str, Expected]:
    """Send the *number*-th task of the mix; give what is expected by task_id."""
    kind = KINDS[number % len(KINDS)]
    return await kind(project, number)


async def _add(project: Project, n: int) -> dict[str, Expected]:
    task_id = await project.kiq("shop.sums:add", n, 2, note=f"grüße {n}")
    result = {"sum": n + 2, "note": f"grüße {n}"}
    kwargs = {"note": f"grüße {n}"}
    return {task_id: Expected(task_name="shop.sums:add", args=[n, 2], kwargs=kwargs, result=result)}


async def _tracked(project: Project, n: int) -> dict[str, Expected]:
    with tracking(created_by=n, module="billing", metadata={"order_id": n, "tags": ["a", "b"]}):
        task_id = await project.kiq("shop.sums:add", n)
    return {
        task_id: success(
            "shop.sums:add",
            n,
            {"sum": n + 1, "note": ""},
            created_by=str(n),
            module="billing",
            metadata={"order_id": n, "tags": ["a", "b"]},
        )
    }


def _simple(name: str, expected: Callable[[str, int], Expected]) -> Sender:
    async def sender(project: Project, n: int) -> dict[str, Expected]:
        return {await project.kiq(name, n): expected(name, n)}

    return sender


async def _hostile(project: Project, n: int) -> dict[str, Expected]:
    text = f"{n}\x00 \U0001f600 %00"
    task_id = await project.kiq("shop.hostile", text)
    safe = text.replace("\x00", "\u2400")
    return {task_id: Expected(task_name="shop.hostile", args=[safe], result=safe + "\u2400")}


async def _parent(project: Project, n: int) -> dict[str, Expected]:
    task_id = await project.kiq("shop.parent", n)
    child = success("shop.child", n, n, parent_task_id=task_id, metadata={"from": n})
    return {task_id: success("shop.parent", n, None), f"child of {task_id}": child}


async def _untracked(project: Project, n: int) -> dict[str, Expected]:
    await project.kiq("shop.untracked", n)
    return {}


KINDS: list[Sender] = [
    _add,
    _tracked,
    _hostile,
    _parent,
    _untracked,
    _simple("shop.fail", lambda name, n: failure(name, n, f"no {n}", "ValueError")),
    _simple(
        "shop.sync",
        lambda name, n: success(
            name,
            n,
            n * 2,
            metadata={
                "progress_percent": 100 * (n % 3) // 3,
                "progress_message": "in a thread",
            },
        ),
    ),
    _simple("shop.sync_fail", lambda name, n: failure(name, n, f"'key {n}'", "KeyError")),
    _simple("shop.big", lambda name, n: success(name, n, BIG)),
    _simple("shop.odd", lambda name, n: success(name, n, {"$repr": "<Odd thing>"})),
    _simple(
        "shop.rich",
        lambda name, n: success(name, n, [{"number": n, "total": "1.50"}, "2026-01-02", [3], None]),
    ),
    _simple("shop.nothing", lambda name, n: success(name, n, None)),
    _simple(
        "shop.progress",
        lambda name, n: success(
            name,
            n,
            "done",
            metadata={
                "progress_percent": 100,
                "progress_message": "row 100",
                "progress_step": "rows",
                "order": n,
            },
        ),
    ),
    _simple(
        "shop.slow",
        lambda name, n: failure(
            name,
            n,
            "exceeded its time limit of 0.05 s",
            "TimeoutError",
            error_class="timeout",
            trace="TimeoutError",
        ),
    ),
    _simple(
        "shop.slow_sync",
        lambda name, n: failure(
            name,
            n,
            "exceeded its time limit of 0.05 s",
            "TimeoutError",
            error_class="timeout",
            trace="TimeoutError",
        ),
    ),
    _simple(
        "shop.depends", lambda name, n: failure(name, n, f"no dependency for {n}", "LookupError")
    ),
    _simple(
        "shop.cancelled",
        lambda name, n: failure(
            name,
            n,
            "asyncio.exceptions.CancelledError",
            "asyncio.exceptions.CancelledError",
            error_class="cancelled",
            trace="CancelledError",
        ),
    ),
    _simple("shop.exits", lambda name, n: failure(name, n, "3", "SystemExit")),
    _simple("shop.no_result", lambda name, n: success(name, n, None)),
    _simple(
        "shop.labelled",
        lambda name, n: success(
            name, n, n, priority=5, queue="gpu", created_by="robot", module="post"
        ),
    ),
    _simple("shop.requeued", lambda name, n: success(name, n, "second time", runs=2)),
]


def faults(record: Execution, expected: Expected, queue: str) -> list[str]:
    """Compare every field of a record; give what is wrong in words.

    Args:
        record: What was read.
        expected: What it has to be.
        queue: The broker's own.
    """
    expected = replace(expected, queue=expected.queue or queue)
    told = [
        f"{name}: expected {getattr(expected, name)!r}, got {getattr(record, name)!r}"
        for name in (
            *("task_name", "args", "kwargs", "status", "error", "error_type", "error_class"),
            *("created_by", "module", "metadata", "queue", "priority", "attempt", "runs"),
            "parent_task_id",
        )
        if getattr(record, name) != getattr(expected, name)
    ]
    told += result_faults(record, expected) + time_faults(record)
    trace = record.traceback
    if (expected.trace is None) != (trace is None) or (expected.trace or "") not in (trace or ""):
        told.append(f"traceback: expected {expected.trace!r} in {trace!r}")
    if record.presumed or record.duplicates:
        told.append(f"presumed {record.presumed}, duplicates {record.duplicates}")
    return told


def result_faults(record: Execution, expected: Expected) -> list[str]:
    """Compare results; some are stored as markers."""
    if expected.result == BIG:
        result = big_marker(record.result)
    elif expected.task_name == "shop.rich" and expected.result is not None:
        result = [*record.result[:3], None]
    elif expected.task_name == "shop.parent":
        result = None if isinstance(record.result, str) else record.result
    elif expected.task_name == "shop.odd" and isinstance(record.result, dict):
        result = {"$repr": record.result.get("$repr")}
    else:
        result = record.result
    if result == expected.result:
        return []
    return [f"result: expected {expected.result!r}, got {record.result!r}"]


def time_faults(record: Execution) -> list[str]:
    """Check that times are in order and agree with duration and wait."""
    started, finished, duration = record.started_at, record.finished_at, record.duration
    if started is None or finished is None or duration is None or record.wait is None:
        return [f"started {started}, finished {finished}, duration {duration}, wait {record.wait}"]
    told = []
    if not record.created_at <= started <= finished:
        told.append(f"times: {record.created_at} <= {started} <= {finished} is wrong")
    if abs((finished - started).total_seconds() - duration) > SLACK:
        told.append(f"duration {duration} between {started} and {finished}")
    if abs((started - record.created_at).total_seconds() - record.wait) > 1e-6:
        told.append(f"wait {record.wait} between {record.created_at} and {started}")
    if record.worker is None or record.worker.count(":") < 2:
        told.append(f"worker: {record.worker!r}")
    return told
