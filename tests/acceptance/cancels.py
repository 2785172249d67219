"""The project whose executions are cancelled: a task says in a file that its body began."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from taskiq import AsyncBroker
from taskiq_redis import RedisStreamBroker

from aiotrack import raise_if_cancelled
from tests.acceptance.app import QUEUE_VARIABLE, Project

PLACE = "CANCELS_BEGUN"
IDLE = "CANCELS_IDLE"
"""Milliseconds after which the stream gives a message to another worker."""


def begin(name: str) -> None:
    """Leave a line: the body runs."""
    with Path(os.environ[PLACE]).open("a") as file:
        file.write(f"{name}\n")


def add_long_tasks(broker: AsyncBroker) -> None:
    """Register tasks that take long."""

    @broker.task("shop.long")
    async def long(name: str, seconds: float = 30.0) -> str:
        begin(name)
        try:
            await asyncio.sleep(seconds)
        finally:
            await asyncio.sleep(0.01)
        return name

    @broker.task("shop.long_sync")
    def long_sync(name: str, seconds: float, looks: bool) -> str:
        begin(name)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(0.01)
            if looks:
                raise_if_cancelled()
        return name

    @broker.task("shop.long_retry", retry_on_error=True)
    async def long_retry(name: str) -> None:
        begin(name)
        raise ConnectionError("once more")


if QUEUE_VARIABLE in os.environ and PLACE in os.environ:
    project = Project.from_environment()
    broker, scheduler = project.broker, project.scheduler
    add_long_tasks(broker)
    if IDLE in os.environ and isinstance(broker, RedisStreamBroker):
        broker.idle_timeout = int(os.environ[IDLE])
