"""``/queues/``: where messages wait."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import BaseModel, Field

from aiotrack.api.access import Scope
from aiotrack.api.bodies import Json
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now

routes = Routes("queues", is_closed=True)


class QueueAnswer(BaseModel):
    """Where a broker's messages wait."""

    name: str
    depth: int = Field(description="What waits and is with no worker.")
    oldest_age: float | None = Field(
        description="Seconds that the oldest has waited; null where nothing does, or nobody knows."
    )
    consumers: int | None = Field(description="Who is known to listen; null: not known.")
    dead_letters: int = Field(description="Set aside after too many deliveries.")


class QueuesAnswer(BaseModel):
    """The queues that are known."""

    items: list[QueueAnswer]


@routes.add("GET", "/queues/", Scope.READ, answer=QueuesAnswer)
async def list_queues(here: Now) -> Json:
    """The queues of this process' brokers, by name.

    Those that do not answer within two seconds, or cannot be asked, are left out.
    """
    return Json({"items": [asdict(one) for one in await here.tracker.queues()]})
