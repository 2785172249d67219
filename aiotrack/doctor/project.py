"""What a broker, its middlewares and its tasks promise. Asks no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from taskiq import InMemoryBroker, SmartRetryMiddleware

from aiotrack.acks import EARLY, redelivers
from aiotrack.doctor.finding import Finding, advice, wrong
from aiotrack.middleware import TrackerMiddleware
from aiotrack.rescue import ON_LOST

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.tracker import Tracker

STREAM: Final = "RedisStreamBroker"
LIST: Final = "ListQueueBroker"
OURS: Final = "PriorityStreamBroker"
USE_OURS: Final = "use aiotrack.brokers.PriorityStreamBroker"

NAMED: Final = 5
"""Tasks that a finding names."""


def tracker_of(broker: AsyncBroker) -> Tracker | None:
    """Give the tracker of a broker's middleware; None without one."""
    found = [one for one in broker.middlewares if isinstance(one, TrackerMiddleware)]
    return found[0].tracker if found else None


def look(broker: AsyncBroker) -> list[Finding]:
    """Look at the broker, its middlewares and its tasks."""
    return [*_middlewares(broker), *_queue(broker), *_serializer(broker), *_tasks(broker)]


def is_a(broker: AsyncBroker, name: str) -> bool:
    """Whether a broker is of a class, or of one made from it; by name, so that none is loaded."""
    return any(kind.__name__ == name for kind in type(broker).__mro__)


def is_stock_stream(broker: AsyncBroker) -> bool:
    """Whether it is TaskIQ's own stream broker, not ours on top of it."""
    return is_a(broker, STREAM) and not is_a(broker, OURS)


def named(names: list[str]) -> str:
    """Name some tasks, and say how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(sorted(names)[:NAMED]) + more


def _middlewares(broker: AsyncBroker) -> list[Finding]:
    ours = [n for n, one in enumerate(broker.middlewares) if isinstance(one, TrackerMiddleware)]
    if not ours:
        what = "the broker has no TrackerMiddleware: nothing of it is recorded"
        return [wrong("no-tracker", what, ".with_middlewares(TrackerMiddleware(tracker))")]
    found = []
    if len(ours) > 1:
        what = f"the broker has {len(ours)} TrackerMiddlewares: each message is recorded by each"
        found.append(wrong("two-trackers", what, "keep one of them"))
    if ours[0] > 0:
        before = type(broker.middlewares[0]).__name__
        what = f"{before} stands before TrackerMiddleware: where it raises, no record begins"
        found.append(advice("middleware-order", what, "let TrackerMiddleware be the first"))
    for one in broker.middlewares:
        if not isinstance(one, SmartRetryMiddleware) or isinstance(broker, InMemoryBroker):
            continue
        if one.schedule_source is None:
            what = "SmartRetryMiddleware has no schedule_source: retries come without their delay"
            change = "give it a schedule source that the scheduler reads, too"
            found.append(wrong("retries-without-delay", what, change))
    return found


def _queue(broker: AsyncBroker) -> list[Finding]:
    found = []
    name = type(broker).__name__
    if isinstance(broker, InMemoryBroker):
        what = "InMemoryBroker runs tasks in the process that sends them: a kill loses them"
        return [advice("in-memory", what, f"where that matters, {USE_OURS}")]
    if not redelivers(broker):
        what = f"{name} takes a message away before its task runs: a killed worker loses it"
        found.append(wrong("no-acknowledgements", what, USE_OURS))
    if is_a(broker, LIST):
        pool: Any = getattr(broker, "connection_pool", None)
        waits = getattr(pool, "connection_kwargs", {}).get("socket_timeout", 5)
        if waits is not None:
            what = f"{name} waits for ever on a connection that ends after {waits} s without data"
            change = "pass socket_timeout=None: a worker without work dies of it, with its tasks"
            found.append(wrong("socket-timeout", what, change))
    if is_stock_stream(broker):
        found += _stream(broker)
    return found


def _stream(broker: Any) -> list[Finding]:
    """Look at TaskIQ's own stream broker; ours has none of these."""
    found = []
    if broker.consumer_id != "0":
        what = f"consumer_id={broker.consumer_id!r} skips what was sent before the first worker"
        found.append(wrong("messages-skipped", what, f'pass consumer_id="0", or {USE_OURS}'))
    if broker.maxlen is None:
        what = "the stream grows for ever: messages that are done are not deleted"
        found.append(advice("unbounded-stream", what, f"pass maxlen, or {USE_OURS}"))
    idle = broker.idle_timeout / 1000
    limits = {
        name: task.labels.get("timeout")
        for name, task in broker.get_all_tasks().items()
        if not name.startswith("aiotrack:")
    }
    longer = [name for name, limit in limits.items() if _seconds(limit) > idle]
    if longer:
        what = f"{named(longer)} may run for longer than idle_timeout ({idle:g} s)"
        change = f"a second worker runs them, too: raise idle_timeout, or {USE_OURS}"
        found.append(wrong("idle-timeout", what, change))
    return found


def _seconds(limit: Any) -> float:
    try:
        return float(limit)
    except (TypeError, ValueError):
        return 0.0


def _serializer(broker: AsyncBroker) -> list[Finding]:
    """Look at what messages are written in; a result backend's default is not our patient's."""
    if type(broker.serializer).__name__ != "PickleSerializer":
        return []
    what = "workers read pickles: whoever can write to the queue runs code in them"
    return [wrong("pickle", what, "give the broker a JSON, MessagePack or CBOR serializer")]


def _tasks(broker: AsyncBroker) -> list[Finding]:
    tasks = {
        name: task.labels
        for name, task in broker.get_all_tasks().items()
        if not name.startswith("aiotrack:")
    }
    found = []
    kinds = {name: str(labels.get("ack_type")) for name, labels in tasks.items()}
    kinds = {name: kind.rpartition(".")[2].lower() for name, kind in kinds.items()}
    for kind, does in EARLY.items():
        names = [name for name, one in kinds.items() if one == kind]
        if names:
            what = f"ack_type={kind} of {named(names)} {does}: a kill in between loses the end"
            found.append(wrong("early-acknowledgement", what, "use when_saved, the default"))
    again = [name for name, labels in tasks.items() if labels.get(ON_LOST) == "requeue"]
    if again and redelivers(broker) and not isinstance(broker, InMemoryBroker):
        what = f"{ON_LOST}=requeue of {named(again)}: {type(broker).__name__} redelivers by itself"
        found.append(wrong("requeue-twice", what, "take the label away: it is refused"))
    return found
