"""What a broker and its acknowledgements promise: a worker says at its start what they do not."""

from __future__ import annotations

import gc
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskiq import AsyncBroker

log = logging.getLogger(__name__)

WITHOUT_ACKS = frozenset(
    {"ListQueueBroker", "PubSubBroker", "PubSubSentinelBroker", "ZeroMQBroker", "NatsBroker"}
    | {"ListQueueClusterBroker", "ListQueueSentinelBroker"}
)
"""Brokers that take a message out of the queue before it is run; TaskIQ has no flag for it."""

EARLY = {
    "when_received": "acknowledges a message before its task runs",
    "when_executed": "acknowledges a message before the end of its task is recorded",
    "manual": "lets a task acknowledge its message before its end is recorded",
}
"""Acknowledge types that do not wait for ``post_execute``, in which the end is committed."""


def warn(broker: AsyncBroker) -> None:
    """Say in one WARNING what a killed worker loses, and the way out; nothing if it loses none."""
    name = type(broker).__name__
    if not redelivers(broker):
        log.warning(
            "%s does not acknowledge messages: a worker that is killed loses its tasks, and their "
            "records end as lost. Use a broker that does, for example PriorityStreamBroker.",
            name,
        )
        return
    said = [f"{name} with --ack-type {kind} {EARLY[kind]}" for kind in _worker_types(broker)]
    said += [
        f"the label ack_type={kind} of {task} {EARLY[kind]}" for task, kind in _labels(broker)[:3]
    ]
    if said:
        log.warning(
            "%s: a worker that is killed in between loses the final status. "
            "Use when_saved, TaskIQ's default.",
            "; ".join(said),
        )


def redelivers(broker: AsyncBroker) -> bool:
    """Tell whether a broker may give a killed worker's messages to another one.

    By the name of its class: TaskIQ's brokers say nothing of it, and one that is not known to take
    messages away at once may have acknowledgements.
    """
    return not any(base.__name__ in WITHOUT_ACKS for base in type(broker).__mro__)


def receivers(broker: AsyncBroker) -> list[dict[str, Any]]:
    """Give the attributes of a broker's receivers, which it does not know itself."""
    from taskiq.receiver import Receiver

    found = []
    for one in gc.get_referrers(broker):  # attributes lie in the object, or in its dictionary
        if isinstance(one, Receiver):
            found.append(vars(one))
        elif type(one) is dict and one.get("broker") is broker and "sem_prefetch" in one:
            found.append(one)
    return found


def _worker_types(broker: AsyncBroker) -> set[str]:
    """Find the acknowledge types of the broker's receivers."""
    kinds = [one.get("ack_time") for one in receivers(broker)]
    return {str(getattr(kind, "value", kind)) for kind in kinds} & EARLY.keys()


def _labels(broker: AsyncBroker) -> list[tuple[str, str]]:
    told = [
        (name, task.labels.get("ack_type")) for name, task in sorted(broker.get_all_tasks().items())
    ]
    kinds = [(name, str(getattr(kind, "value", kind))) for name, kind in told]
    return [(name, kind) for name, kind in kinds if kind in EARLY]
