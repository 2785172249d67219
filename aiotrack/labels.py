"""The labels that carry birth facts with a message, and how they are read. Never an error."""

from __future__ import annotations

import base64
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from taskiq import TaskiqMessage
from taskiq.labels import prepare_label

from aiotrack.clock import LAST_MOMENT
from aiotrack.encode import encode_task_id
from aiotrack.literals import read_repr
from aiotrack.traces import trace_of

if TYPE_CHECKING:
    from aiotrack.encode import Encoder
    from aiotrack.report import Origin

log = logging.getLogger(__name__)

CREATED_AT = "aiotrack_created_at"
METADATA = "aiotrack_metadata"
PARENT = "aiotrack_parent"
SCHEDULE = "aiotrack_schedule_id"
CONFIG = "aiotrack_config_id"
RERUN_OF = "aiotrack_rerun_of"
RETRY_DELAY = "aiotrack_retry_delay"
RETRY_BACKOFF = "aiotrack_retry_backoff"
RETRY_JITTER = "aiotrack_retry_jitter"
RUN = "aiotrack_run"
"""The delivery that runs; a retry's message still has that of the attempt before."""
REQUEUES = "X-Taskiq-requeue"
"""Set by TaskIQ's ``Context.requeue``."""
RETRIES = "_retries"
"""Set by TaskIQ's retry middlewares: retries that were sent so far."""

PRIORITIES = {"low": 2, "medium": 5, "high": 8, "urgent": 10}
"""Words for priorities; numbers go from 1 to 10 where a broker of ours carries them."""

MOST = 2**31 - 2
"""The largest priority or count of retries: a column of 32 bits, and one more for the attempt."""
MOST_ID = 2**63 - 1
DAY = 86_400_000_000
"""Microseconds by which a sender may be ahead of the database's clock."""

UNSENT: Final = "types_of_exceptions"
"""Holds classes, for the retry middlewares of whoever runs the task: TaskIQ does not send it."""

_complained: set[str] = set()


def make_message(
    task_id: str,
    task_name: str,
    labels: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> TaskiqMessage:
    """Make a message as TaskIQ's own kicker does, of arguments that are plain data."""
    prepared = {name: prepare_label(value) for name, value in labels.items() if name != UNSENT}
    return TaskiqMessage(
        task_id=task_id,
        task_name=task_name,
        labels={name: text for name, (text, _) in prepared.items()},
        labels_types={name: kind for name, (_, kind) in prepared.items()},
        args=list(args),
        kwargs=dict(kwargs),
    )


def fill(origin: Origin, labels: Mapping[str, Any], encoder: Encoder) -> None:
    """Take birth facts from labels; a label of a wrong kind is left out, never an error."""
    for name, label in (
        ("created_by", "created_by"),
        ("schedule_id", SCHEDULE),
    ):
        value = word(labels.get(label))
        if value is not None:
            setattr(origin, name, encoder.name(value))  # they have an index, too
    for name, label in (("parent_task_id", PARENT), ("rerun_of", RERUN_OF)):
        if label in labels:
            setattr(origin, name, encode_task_id(labels[label]))
    if origin.schedule_id is None and "schedule_id" in labels and RETRIES not in labels:
        value = word(labels["schedule_id"])
        origin.schedule_id = None if value is None else encoder.name(value)
    queue = word(labels.get("queue")) or word(labels.get("queue_name"))
    if queue is not None:
        origin.queue = encoder.name(queue)
    origin.priority = priority(labels.get("priority"))
    origin.config_id = number(labels.get(CONFIG), default=None, most=MOST_ID)
    origin.time_limit = seconds(labels.get("timeout"))
    origin.trace_id = trace_of(labels)
    if METADATA in labels:
        origin.metadata = encoder.encode_kwargs(read_metadata(labels)).text


def priority(label: Any) -> int | None:
    """Read the label ``priority``, a whole number or a word; None when it is neither."""
    found = PRIORITIES.get(label.strip().lower()) if isinstance(label, str) else None
    return number(label, default=None) if found is None else found


def read_metadata(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Read the metadata that a message carries; what is no JSON object counts as none."""
    value = labels.get(METADATA)
    if isinstance(value, Mapping):
        return dict(value)
    if not isinstance(value, str):
        return {}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = read_repr(value)
    if isinstance(found, dict):
        return found
    if value not in {"", "None"}:
        _complain()
    return {}


def _complain() -> None:
    """Say once that metadata is lost: whoever gave it hears of it nowhere else."""
    if METADATA not in _complained:
        _complained.add(METADATA)
        log.warning(
            "labels %s that cannot be read as a mapping are left out: TaskIQ sends a mapping as "
            "its repr(); give JSON text, or use tracking(metadata=...)",
            METADATA,
        )


def drop_retry_delay(labels: dict[str, Any]) -> None:
    """Take the delay of retries from a first message: some brokers would delay that, too."""
    if "delay" in labels and seconds(labels["delay"]) == seconds(labels[RETRY_DELAY]):
        del labels["delay"]


def word(value: Any) -> str | None:
    """Read a label as text, the same on the sender, who sees TaskIQ's text of it, and the worker.

    TaskIQ sends None as ``"None"`` and bytes as base64.
    """
    if value is None or value == "None":
        return None
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


def is_tracked(labels: Mapping[str, Any]) -> bool:
    """Whether a message is to be recorded: not with the label ``track=False``."""
    return "track" not in labels or not is_false(labels["track"])


def is_false(value: object) -> bool:
    """Whether a label says no, as a bool or as the text that TaskIQ makes of it."""
    return value is False or (isinstance(value, str) and value.lower() == "false")


def parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """Give the names of a function's parameters, none of one that does not tell.

    ``*names`` is the last: what follows it is given by name.
    """
    try:
        known = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return ()
    names: list[str] = []
    for one in known:
        if one.kind is one.VAR_POSITIONAL:
            return (*names, f"*{one.name}")
        names.append(one.name)
    return tuple(names)


def moment(value: Any, now: int) -> int:
    """Read the label that tells when a message was made; 0 when it cannot be true."""
    found: int = number(value, most=LAST_MOMENT)
    return found if 0 < found <= now + DAY else 0


def seconds(value: Any) -> float | None:
    """Read a label as a time span; None when it is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        found = float(str(value))
    except ValueError:
        return None
    return found if 0 <= found < LAST_MOMENT / 1e6 else None  # nan is in no range


def number(value: Any, default: Any = 0, *, most: int = MOST) -> Any:
    """Read a label as a whole number that a database can hold: from -*most* to *most*.

    By way of its text, which is what the sender sees: 3.7, inf and True are none for both sides.
    """
    if value is None:
        return default
    try:
        found = int(str(value))
    except ValueError:
        return default
    return found if -most <= found <= most else default
