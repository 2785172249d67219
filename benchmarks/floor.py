"""The least that a tracker costs that commits PENDING after a send, and an end before the ack.

It knows no run, no feature and no error: it puts constant rows with other ids into the same
statements, in the same groups. What is between it and aiotrack is what could be won; what is
between it and untracked could not, with these rules and this driver.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import asyncpg

from aiotrack import TrackerMiddleware
from aiotrack.pace import Pace
from aiotrack.repository import statements as sql

SENT = {"task_name": "bench:noop", "module": "bench", "queue": "floor", "exact": True}
SENT |= {"witness": 0, "status": "PENDING", "runs": 0}
ENDED = SENT | {"witness": 5, "status": "SUCCESS", "runs": 1, "worker": "floor", "duration": 1e-4}
ALIKE = {"attempt": 1, "presumed": False, "duplicates": 0, "plain": True}
EMPTY = {"args": [], "kwargs": {}, "metadata": {}}
MOMENTS = {"created_at", "started_at", "finished_at"}


class Floor(TrackerMiddleware):
    """Records that noop tasks were sent, and that they succeeded."""

    async def startup(self) -> None:
        """Connect by the driver alone."""
        await super().startup()
        loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._pace = Pace(loop, self._wake.set)
        self._told: list[tuple[str, str]] = []
        url = os.environ["BENCH_DATABASE"].replace("+asyncpg", "")
        self._connection = await asyncpg.connect(url)
        if self.broker.is_worker_process:
            work = self._write(sql.POSTGRES_RUN, sql.POSTGRES_RUN_ONE, ENDED, MOMENTS)
        else:
            work = self._write(sql.POSTGRES_SEND, sql.POSTGRES_SEND_ONE, SENT, {"created_at"})
        self._work = loop.create_task(work)

    async def post_send(self, message: Any) -> None:
        """Wait for the commit of a row."""
        self._told.append((message.task_id, message.labels["aiotrack_created_at"]))
        await self._pace.join(at_once=True)

    async def pre_execute(self, message: Any) -> Any:
        """Count a run."""
        self._pace.begin()
        return message

    def on_error(self, *_: Any) -> None:
        """Know of none."""

    async def post_execute(self, message: Any, result: Any) -> None:  # noqa: ARG002 - TaskIQ's
        """Wait for the commit of a row."""
        self._told.append((message.task_id, message.labels["aiotrack_created_at"]))
        await self._pace.join(at_once=False)
        self._pace.end()

    async def _write(self, many: str, one: str, row: dict[str, Any], moments: set[str]) -> None:
        run = '"run_id":"{0}",' if row is ENDED else '"run_id":"",'
        times = "".join(f'"{name}":{{1}},' for name in moments)
        head = '{{"task_id":"{0}",' + run + times
        rest = json.dumps(row | ALIKE | EMPTY)[1:]
        known = row | {name: json.dumps(value) for name, value in EMPTY.items()}
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting = self._pace.take()
            told, self._told = sorted(self._told), []
            if len(told) == 1:
                ((name, at),) = told
                values = known | {"task_id": name, "run_id": name if row is ENDED else ""}
                values |= dict.fromkeys(moments, int(at))
                await self._connection.fetch(one, *map(values.get, sql.TOLD_COLUMNS))
            elif told:
                text = "[" + ",".join(head.format(*pair) + rest for pair in told) + "]"
                await self._connection.fetch(many, text)
            waiting.release(True)
            self._pace.done()
