"""``--serve``: the demo goes on, with its dashboard, until somebody stops it."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from aiotrack import Tracker
from aiotrack.demo.worker import Child, Scheduler, Server, Worker

TARGET: Final = "aiotrack.demo.tasks:broker"

PATIENCE: Final = 30.0
"""Seconds until the server must tell where it is."""

PAUSES: Final = (0.4, 2.0)
"""Seconds between two tasks that are sent, at least and at most."""

_ADDRESS: Final = re.compile(r"the dashboard is at (\S+)")


async def serve(
    stack: ExitStack, environment: Mapping[str, str], folder: Path, console: Console, port: int
) -> str | None:
    """Serve and send until this task is cancelled.

    Args:
        stack: Stops what is started.
        environment: Of the demo's processes.
        folder: Takes their logs.
        console: Told where the dashboard is.
        port: 0 takes one that is free.

    Returns:
        What went wrong: the words of a process that died. None while all is well.
    """
    from aiotrack.demo.tasks import RUN, broker, tidy_carts, tracker

    logs = {name: folder / f"serving-{name}.log" for name in ("worker", "scheduler", "server")}
    given = {"environment": environment}
    parts: list[Child] = [
        Worker(TARGET, log_file=logs["worker"], **given),
        Scheduler("aiotrack.demo.tasks:scheduler", log_file=logs["scheduler"], **given),
        Server(TARGET, "--port", str(port), log_file=logs["server"], **given),
    ]
    for part in parts:
        stack.enter_context(part)
    address = await _address(parts[-1])
    if address is None:
        return _words(parts[-1])
    text = Text("\n  dashboard ", style="dim").append(address, style="bold cyan")
    console.print(text.append("   (Ctrl-C ends it; the demo's work goes on until then)", "dim"))
    await tracker.startup()
    await broker.startup()
    try:
        await _schedule(tracker, tidy_carts.task_name, f"{RUN}, every ten seconds")
        return await _work(parts)
    finally:
        await broker.shutdown()


async def _schedule(tracker: Tracker, task_name: str, name: str) -> None:
    made = await tracker.definitions.create(
        name=name, task_type=task_name, schedule_kind="interval", schedule={"seconds": 10}
    )
    await tracker.schedules.start(made.id, by="ada")


async def _work(parts: list[Child]) -> str | None:
    """Send tasks of any kind, until a part dies."""
    from aiotrack.demo.kinds import kinds  # reads the environment, which is set by then

    sends = [one.send for one in kinds() if one.send and not one.is_last and not one.then]
    while True:
        for part in parts:
            if not part.is_running:
                return _words(part)
        await random.choice(sends)()
        await asyncio.sleep(random.uniform(*PAUSES))


async def _address(server: Child) -> str | None:
    """Wait until the server says where it is."""
    end = time.monotonic() + PATIENCE
    while server.is_running and time.monotonic() < end:
        found = _ADDRESS.search(server.last_words())
        if found is not None:
            return found[1]
        await asyncio.sleep(0.1)
    return None


def _words(part: Child) -> str:
    return f"{part.words} died; its last words:\n{part.last_words()}"
