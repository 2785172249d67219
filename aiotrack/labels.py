"""The labels that carry birth facts with a message, and how they are read. Never an error."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiotrack.encode import Encoder
    from aiotrack.report import Origin

CREATED_AT = "aiotrack_created_at"
METADATA = "aiotrack_metadata"
PARENT = "aiotrack_parent"
SCHEDULE = "aiotrack_schedule_id"
CONFIG = "aiotrack_config_id"
RERUN_OF = "aiotrack_rerun_of"
REQUEUES = "X-Taskiq-requeue"
"""Set by TaskIQ's ``Context.requeue``."""
RETRIES = "_retries"
"""Set by TaskIQ's retry middlewares: retries that were sent so far."""


def fill(origin: Origin, labels: Mapping[str, Any], encoder: Encoder) -> None:
    """Take birth facts from labels; a label of a wrong kind is left out, never an error."""
    for name, label in (
        ("created_by", "created_by"),
        ("parent_task_id", PARENT),
        ("rerun_of", RERUN_OF),
        ("schedule_id", SCHEDULE),
    ):
        value = labels.get(label)
        if value is not None and value != "None":  # what TaskIQ makes of a label that is None
            setattr(origin, name, encoder.text(str(value)))
    if origin.schedule_id is None and "schedule_id" in labels and RETRIES not in labels:
        origin.schedule_id = encoder.text(str(labels["schedule_id"]))
    queue = labels.get("queue", labels.get("queue_name"))
    if queue is not None:
        origin.queue = encoder.text(str(queue))
    if "priority" in labels:
        origin.priority = number(labels["priority"], default=None)
    if CONFIG in labels:
        origin.config_id = number(labels[CONFIG], default=None)
    if METADATA in labels:
        origin.metadata = encoder.encode_kwargs(read_metadata(labels)).text


def read_metadata(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Read the metadata that a message carries; what is no JSON object counts as none."""
    value = labels.get(METADATA)
    if isinstance(value, Mapping):
        return dict(value)
    try:
        found = json.loads(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def is_tracked(labels: Mapping[str, Any]) -> bool:
    """Whether a message is to be recorded: not with the label ``track=False``."""
    return "track" not in labels or not is_false(labels["track"])


def is_false(value: object) -> bool:
    """Whether a label says no, as a bool or as the text that TaskIQ makes of it."""
    return value is False or (isinstance(value, str) and value.lower() == "false")


def number(value: Any, default: Any = 0) -> Any:
    """Read a label as a whole number that a database can hold."""
    if value is None:
        return default
    try:
        found = int(value)
    except (TypeError, ValueError):
        return default
    return found if -(2**31) <= found < 2**62 else default
