"""What the broker set aside, and how it stands with its queues."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiotrack.brokers import streams
from aiotrack.brokers.scripts import REVIVE, STATES
from aiotrack.errors import InvalidValue
from aiotrack.model import Queue
from aiotrack.redis.wire import Wire


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was delivered too often, and is kept aside.

    Attributes:
        id: Of the letter; what `PriorityStreamBroker.revive` takes.
        queue: Where it came from.
        at: When it was set aside.
        deliveries: How often it was given to a worker.
        reason: Why it was set aside, for people.
        task_id: Of the task in it; None when the message cannot be read.
        task_name: Likewise.
        message: What was sent.
    """

    id: str
    queue: str
    at: datetime
    deliveries: int
    reason: str
    task_id: str | None
    task_name: str | None
    message: bytes


async def state(wire: Wire, queue: str, group: str, lease: float) -> Queue:
    """Tell how it stands with a queue."""
    keys = (*streams.streams([queue]), streams.dead(queue))
    depth, age, consumers, dead = await wire.run(STATES, keys, group, int(lease * 1000))
    return Queue(
        name=queue,
        depth=depth,
        oldest_age=None if age < 0 else age / 1000,
        consumers=consumers,
        dead_letters=dead,
    )


async def read(wire: Wire, queue: str, limit: int) -> list[DeadLetter]:
    """Give the newest letters of a queue, the newest first."""
    if limit < 1:
        raise InvalidValue(f"limit must be at least 1, not {limit}")
    found = await wire.ask("XREVRANGE", streams.dead(queue), "+", "-", "COUNT", limit)
    return [_letter(queue, name, fields) for name, fields in found]


async def revive(wire: Wire, queue: str, ids: list[str] | None) -> int:
    """Send letters of a queue again, the oldest first; all of them without *ids*."""
    name = streams.dead(queue)
    keys = (name, *streams.streams([queue]))
    if ids is not None:
        return await _revive(wire, keys, ids)
    done, last = 0, "+"
    newest = await wire.ask("XREVRANGE", name, "+", "-", "COUNT", 1)
    if newest:  # those that come meanwhile, perhaps the same again, are left
        last = newest[0][0].decode()
    while page := await wire.ask("XRANGE", name, "-", last, "COUNT", 100):
        done += await _revive(wire, keys, [one[0].decode() for one in page])
    return done


async def _revive(wire: Wire, keys: tuple[str, ...], ids: list[str]) -> int:
    done = await wire.run_once(REVIVE, keys, *ids)  # twice would count nothing
    return int(done)


def _letter(queue: str, name: bytes, fields: list[bytes]) -> DeadLetter:
    told: dict[bytes, bytes] = dict(zip(fields[::2], fields[1::2], strict=True))
    message = told.get(b"data", b"")
    try:
        task: Any = json.loads(message)
    except (ValueError, RecursionError):
        task = None
    task = task if isinstance(task, dict) else {}
    return DeadLetter(
        id=name.decode(),
        queue=queue,
        at=datetime.fromtimestamp(int(name.partition(b"-")[0]) / 1000, tz=UTC),
        deliveries=int(told.get(b"deliveries", b"0")),
        reason=told.get(b"reason", b"").decode(errors="replace"),
        task_id=_text(task.get("task_id")),
        task_name=_text(task.get("task_name")),
        message=message,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
