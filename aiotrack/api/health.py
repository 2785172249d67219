"""``/health``: how it stands with what the tracker needs; and a word for probes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.problems import SOON
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now

routes = Routes("health", is_closed=True)


class DependencyAnswer(BaseModel):
    """One thing that the tracker needs."""

    ok: bool
    latency: float | None = Field(description="Seconds; null where nothing was asked.")
    error: str | None = Field(description="What is wrong, without passwords.")


class DependenciesAnswer(BaseModel):
    """All that the tracker needs."""

    database: DependencyAnswer
    redis: DependencyAnswer = Field(description="Also ok where the tracker has none.")
    broker: DependencyAnswer = Field(description="Also ok where this process has none.")
    workers: DependencyAnswer = Field(description="Ok when at least one worker beats.")


class HealthAnswer(BaseModel):
    """How it is."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "is_healthy": False,
                    "live": True,
                    "ready": True,
                    "dependencies": {
                        "database": {"ok": True, "latency": 0.0011, "error": None},
                        "redis": {"ok": True, "latency": 0.0004, "error": None},
                        "broker": {"ok": True, "latency": 0.0004, "error": None},
                        "workers": {"ok": False, "latency": 0.0016, "error": "no worker beats"},
                    },
                }
            ]
        }
    )

    is_healthy: bool = Field(description="All of them are ok.")
    live: bool = Field(description="This process runs.")
    ready: bool = Field(description="It can serve: its database answers.")
    dependencies: DependenciesAnswer


class WordAnswer(BaseModel):
    """A word for probes."""

    status: str = Field(examples=["ready"])


@routes.add("GET", "/health", Scope.READ, answer=HealthAnswer, also={503: HealthAnswer})
async def get_health(here: Now) -> Json:
    """How database, Redis, broker and workers are; 503 when this process is not ready.

    Answers within two seconds, whatever they do.
    """
    found = await here.tracker.health()
    return _told(asdict(found), is_ready=found.ready)


@routes.add("GET", "/health/live", None, answer=WordAnswer)
async def get_live() -> Json:
    """Whether this process runs: asks nobody."""
    return Json({"status": "live"})


@routes.add("GET", "/health/ready", None, answer=WordAnswer, also={503: WordAnswer})
async def get_ready(here: Now) -> Json:
    """Whether this process can serve: 503 while its database does not answer."""
    found = await here.tracker.health()
    status = "ready" if found.ready else "not ready"
    return _told({"status": status}, is_ready=found.ready)


def _told(content: dict[str, Any], *, is_ready: bool) -> Json:
    return Json(content) if is_ready else Json(content, 503, {"Retry-After": SOON})
