"""The least that a tracker costs which commits a final status before the ack.

Its sender is aiotrack's. Its worker knows no run, no feature and no error: it puts a constant row
with another id into the same statement, in the same groups. What is between it and aiotrack is what
could be won; what is between it and untracked could not, with this rule and this driver.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import asyncpg

from aiotrack import TrackerMiddleware
from aiotrack.pace import Pace
from aiotrack.repository import statements

ROW = (
    '{{"task_id":"{0}","task_name":"bench:noop","module":"bench","created_at":{1},"args":[],'
    '"kwargs":{{}},"metadata":{{}},"exact":true,"run_id":"{0}","witness":5,"status":"SUCCESS",'
    '"attempt":1,"presumed":false,"runs":1,"duplicates":0,"plain":true,"worker":"floor",'
    '"started_at":{1},"finished_at":{1},"duration":0.0001,"result":null,"queue":"floor"}}'
)


class Floor(TrackerMiddleware):
    """Records that noop tasks succeeded."""

    async def startup(self) -> None:
        """Connect by the driver alone."""
        await super().startup()
        loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._pace = Pace(loop, self._wake.set)
        self._rows: list[tuple[str, str]] = []
        if self.broker.is_worker_process:
            url = os.environ["BENCH_DATABASE"].replace("+asyncpg", "")
            self._connection = await asyncpg.connect(url)
            self._work = loop.create_task(self._write())

    async def pre_execute(self, message: Any) -> Any:
        """Count a run."""
        self._pace.begin()
        return message

    def on_error(self, *_: Any) -> None:
        """Know of none."""

    async def post_execute(self, message: Any, result: Any) -> None:  # noqa: ARG002 - TaskIQ's
        """Wait for the commit of a row."""
        row = ROW.format(message.task_id, message.labels["aiotrack_created_at"])
        self._rows.append((message.task_id, row))
        await self._pace.join(at_once=False)
        self._pace.end()

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting = self._pace.take()
            rows, self._rows = sorted(self._rows), []
            if rows:
                text = "[" + ",".join(row for _, row in rows) + "]"
                await self._connection.fetch(statements.POSTGRES_RUN, text)
            waiting.release(True)
            self._pace.done()
