"""``/workers/``: the processes that run tasks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now
from aiotrack.model import Worker, WorkerStatus

routes = Routes("workers", is_closed=True)


class WorkerAnswer(BaseModel):
    """A process that runs tasks, as it told of itself last."""

    id: str
    host: str
    pid: int
    status: WorkerStatus
    started_at: datetime
    beat_at: datetime
    stopped_at: datetime | None
    queues: list[str]
    tasks: list[str]
    concurrency: int | None
    running: int
    load: float | None
    memory: int | None
    cpu: float | None
    versions: dict[str, str]


class WorkersAnswer(BaseModel):
    """Every worker of the last day; those that live come first."""

    items: list[WorkerAnswer]


@routes.add("GET", "/workers/", Scope.READ, answer=WorkersAnswer)
async def list_workers(here: Now) -> Json:
    """Who lives, and who was lost or stopped within a day."""
    return Json({"items": [_shown(one) for one in await here.tracker.workers()]})


def _shown(worker: Worker) -> dict[str, object]:
    return asdict(worker) | {"tasks": sorted(worker.tasks), "load": worker.load}
