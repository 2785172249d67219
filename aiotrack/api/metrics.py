"""``/metrics``: the fleet, for Prometheus."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from aiotrack.api.access import Scope
from aiotrack.api.problems import HEADERS
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now
from aiotrack.metrics import exposition

routes = Routes("metrics", is_closed=True)

MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"


@routes.add("GET", "/metrics", Scope.READ, media="text/plain")
async def scrape(here: Now) -> Response:
    """Queues, workers, locks, schedules and open executions, in Prometheus' text format.

    Every number is the whole fleet's: scrape one process. What only a process knows of itself, how
    its recording is, stands in its own metrics, with the setting `metrics`.
    """
    text = await exposition(here.tracker)
    return Response(text, headers={**HEADERS, "Content-Type": MEDIA})
