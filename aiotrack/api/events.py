"""``…/events/``: executions as they change, as server-sent events.

What is promised. Every event carries a state that was read from the database; of states in quick
succession only the last may be told. To one client the states of an execution come in the order in
which they were read: it never goes back. A client that was away says what it had last
(``Last-Event-ID``): of one execution it is told the state now, if that is another one; of a filter
all that is not over, and what ended since (ten seconds earlier, to be sure), or, where that is too
much, an event ``reset``: then the list has to be loaded anew. Not told again is what changed after
its end, and an end that was reported more than ten seconds late.
"""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Header, Query
from pydantic import StringConstraints

from aiotrack.api.access import Scope
from aiotrack.api.executions import ById, ByTaskId
from aiotrack.api.queries import Filters
from aiotrack.api.routes import Routes
from aiotrack.api.site import Now
from aiotrack.api.streams import MEDIA, ManyStream, OneStream

routes = Routes("executions", of_all=False, is_closed=True)

CLOSED: Final = {204: "It is over, and the client has its last state: nothing more will come."}

LastEventId = Annotated[
    Annotated[str, StringConstraints(max_length=200)] | None,
    Header(description="Of the last event that was received; browsers send it by themselves."),
]


@routes.add("GET", "/executions/events/", Scope.READ, media=MEDIA, problems=(429,))
async def follow_executions(
    here: Now, query: Annotated[Filters, Query()], last_event_id: LastEventId = None
) -> ManyStream:
    """Every execution that matches, when it is new or changed; without end.

    The first event is `ready`: what changes from then on is told. An event `execution` carries the
    row of a list, and `attempt`, `worker`, `error`, `error_type`, `error_class`, `presumed` and
    `metadata`. With the id of the last event that was received, all that is not over and what ended
    since comes before `ready`; instead of both comes `reset` where that is too much: load the list.
    """
    return ManyStream(here, last_event_id, query.narrowing(here))


@routes.add(
    "GET",
    "/executions/{id:aiotrack_number}/events/",
    Scope.READ,
    media=MEDIA,
    also=CLOSED,
    problems=(429,),
)
async def follow_execution(
    here: Now, execution: ById, last_event_id: LastEventId = None
) -> OneStream:
    """An execution as it is, and whenever it changed, until its status is final.

    An event `execution` carries the row of a list, and `attempt`, `worker`, `error`, `error_type`,
    `error_class`, `presumed` and `metadata`.
    """
    return OneStream(here, last_event_id, execution)


@routes.add(
    "GET",
    "/executions/by-task-id/{task_id}/events/",
    Scope.READ,
    media=MEDIA,
    also=CLOSED,
    problems=(429,),
)
async def follow_execution_by_task_id(
    here: Now, execution: ByTaskId, last_event_id: LastEventId = None
) -> OneStream:
    """An execution as it is, and whenever it changed, until its status is final; as by its id."""
    return OneStream(here, last_event_id, execution)
