"""``/locks/``: who holds which lock, and taking one away."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.fields import LONGEST, SAFE, Text
from aiotrack.api.problems import Refused
from aiotrack.api.routes import Routes
from aiotrack.api.site import Here, Now
from aiotrack.errors import LockUnavailable

routes = Routes("locks", is_closed=True)


class LockAnswer(BaseModel):
    """A lock that is held."""

    name: str = Field(description="With the digest of its key behind a slash.")
    key: str | None = Field(description="The key as text, shortened; secrets are masked.")
    task_id: str | None = Field(description="Of the execution that holds it.")
    task_name: str | None
    worker: str | None
    since: datetime
    ttl: float | None = Field(description="Seconds of its lease.")
    left: float = Field(description="Seconds until the lease ends, if it is not renewed.")
    fence: int = Field(description="Its number; a release wants it.")
    waiting: int = Field(description="How many stand in its queue.")
    is_lost: bool | None = Field(description="Whether its worker is lost; null: not known.")


class LocksAnswer(BaseModel):
    """The locks that are held, by name."""

    items: list[LockAnswer]


class Release(BaseModel):
    """Which lock is to be taken away, and from whom."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "import/8d5c", "fence": 41}]}
    )

    name: str = Field(
        pattern="^[A-Za-z0-9_.:-]{1,128}(~[0-9a-f]{32})?(/[0-9a-f]{32})?$",
        description="As the list gives it.",
    )
    fence: int = Field(
        ge=0, le=SAFE, strict=True, description="Of the holder that is meant: the next keeps it."
    )
    reason: Text | None = Field(None, max_length=LONGEST, description="Why, for the audit.")


class ReleaseAnswer(BaseModel):
    """What came of it."""

    name: str
    fence: int
    released: bool = Field(description="False: nobody holds it with this fence any more.")


@routes.add("GET", "/locks/", Scope.READ, answer=LocksAnswer)
async def list_locks(
    here: Now,
    task_id: Annotated[
        Text | None, Query(max_length=4096, description="Only what this execution holds.")
    ] = None,
) -> Json:
    """Who holds which lock. 503 while Redis does not answer."""
    _check(here)
    found = await here.tracker.locks.list(task_id=task_id)
    text = here.tracker.encoder.text
    items = [asdict(one) | {"key": None if one.key is None else text(one.key)} for one in found]
    return Json({"items": items})


@routes.add("POST", "/locks/release", Scope.ADMIN, answer=ReleaseAnswer)
async def release_lock(here: Now, body: Release) -> Json:
    """Take a lock from its holder, who hears of it at once; its body is cancelled.

    Only from the holder that is named by its fence: who got the lock since keeps it.
    """
    _check(here)
    released = await here.tracker.locks.force_release(
        body.name, fence=body.fence, by=here.caller.actor, reason=body.reason
    )
    return Json({"name": body.name, "fence": body.fence, "released": released})


def _check(here: Here) -> None:
    """Refuse what needs Redis where there is none.

    Raises:
        Refused: 503.
    """
    if here.tracker.redis is None:
        raise Refused(503, LockUnavailable.code, "this tracker has no Redis, and so no locks")
