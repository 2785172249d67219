"""TaskIQ's messages, kept as JSON until they may be sent."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from taskiq import TaskiqMessage
from taskiq.utils import maybe_awaitable

from aiotrack.errors import InvalidInput
from aiotrack.labels import make_message

if TYPE_CHECKING:
    from taskiq import AsyncBroker

log = logging.getLogger(__name__)


def make(
    task_id: str,
    task_name: str,
    labels: Mapping[str, Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> TaskiqMessage:
    """Make a message as TaskIQ's own kicker does."""
    return make_message(
        task_id,
        task_name,
        labels,
        [_plain(one) for one in args],
        {name: _plain(one) for name, one in kwargs.items()},
    )


def dump(message: TaskiqMessage) -> str:
    """Give a message as JSON, its arguments as TaskIQ's own formatter makes plain data of them.

    Raises:
        InvalidInput: An argument is nothing that JSON has a word for.
    """
    try:
        return json.dumps(message.model_dump(mode="json"))
    except (TypeError, ValueError, RecursionError) as error:
        fault = f"what waits for other executions is kept as JSON: {error}"
        raise InvalidInput([fault], message.task_name) from None


async def send(text: str, broker: AsyncBroker) -> None:
    """Send a message that was kept, through the broker's middlewares, as TaskIQ's kicker does.

    By hand, for whatever is raised here says that it was not sent.
    """
    message = TaskiqMessage.model_validate(json.loads(text))
    for middleware in broker.middlewares:
        message = await maybe_awaitable(middleware.pre_send(message))
    await broker.kick(broker.formatter.dumps(message))
    for middleware in reversed(broker.middlewares):
        try:
            await maybe_awaitable(middleware.post_send(message))
        except Exception as error:
            name = type(middleware).__name__
            log.warning("post_send of %s failed on %s: %r", name, message.task_id, error)


def name_of(text: str) -> str:
    """Give the task of a message that was kept, as its broker knows it."""
    return str(json.loads(text)["task_name"])


def _plain(value: Any) -> Any:
    """Make plain data of a model, as TaskIQ's kicker does."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return value
