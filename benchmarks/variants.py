"""What is compared: brokers with nothing, with aiotrack, with its neighbours."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from taskiq_redis import RedisStreamBroker

if TYPE_CHECKING:
    from collections.abc import Callable

    from taskiq import AsyncBroker


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a variant finds its servers; plain text, so that it travels in the environment."""

    queue: str
    redis: str
    database: str = ""
    sink: str = ""
    group: str = "taskiq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One way to run a broker.

    Attributes:
        name: Its word on the command line.
        label: Its words in a table.
        add: Adds it to a broker.
        database: The kind of database that it needs, empty for none.
        counts: How many rows say SUCCESS, as SQL; empty where that is not asked.
        needs: Packages that it needs besides aiotrack's own.
        has_sink: Whether it posts to the sink.
        is_ours: Whether its broker is aiotrack's own.
    """

    name: str
    label: str
    add: Callable[[Any, Target], Any]
    database: str = ""
    counts: str = ""
    needs: tuple[str, ...] = ()
    has_sink: bool = False
    is_ours: bool = False

    @property
    def missing(self) -> list[str]:
        return [name for name in self.needs if importlib.util.find_spec(name) is None]


def untracked(broker: Any, _: Target) -> Any:
    return broker


def aiotrack(broker: Any, target: Target) -> Any:
    from aiotrack import Tracker, TrackerMiddleware

    return broker.with_middlewares(TrackerMiddleware(Tracker(target.database)))


def floor(broker: Any, target: Target) -> Any:
    from floor import Floor

    from aiotrack import Tracker

    return broker.with_middlewares(Floor(Tracker(target.database)))


def everything(broker: Any, target: Target) -> Any:
    from aiotrack import Tracker, TrackerMiddleware

    settings = {"namespace": target.queue, "metrics": True}
    tracker = Tracker(target.database, redis=target.redis, settings=settings)
    return broker.with_middlewares(TrackerMiddleware(tracker))


def naive(broker: Any, target: Target) -> Any:
    from neighbours import NaiveMiddleware

    return broker.with_middlewares(NaiveMiddleware(target.database))


def admin(broker: Any, target: Target) -> Any:
    from taskiq.middlewares.taskiq_admin_middleware import TaskiqAdminMiddleware

    return broker.with_middlewares(TaskiqAdminMiddleware(target.sink, "token"))


def dashboard(broker: Any, target: Target) -> Any:
    import zapros
    from taskiq_dashboard import DashboardMiddleware

    middleware = DashboardMiddleware(target.sink, "token")
    # Its own client has a time limit, and with one zapros 0.23 raises TypeError in every request
    # under uvloop, which is what `taskiq worker` runs on: nothing would be recorded at all.
    middleware._client = zapros.AsyncClient(handler=zapros.AsyncStdNetworkHandler())  # noqa: SLF001
    return broker.with_middlewares(middleware)


def redis_results(broker: Any, target: Target) -> Any:
    from taskiq_redis import RedisAsyncResultBackend

    return broker.with_result_backend(RedisAsyncResultBackend(target.redis))


def postgres_results(broker: Any, target: Target) -> Any:
    from taskiq_pg.asyncpg import AsyncpgResultBackend

    dsn = target.database.replace("postgresql+asyncpg:", "postgresql:", 1)
    return broker.with_result_backend(AsyncpgResultBackend(dsn))


_OURS = "SELECT count(*) FROM aiotrack_executions WHERE status = 'SUCCESS'"
_NAIVE = "SELECT count(*) FROM task_executions WHERE status = 'SUCCESS'"

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(name="untracked", label="untracked", add=untracked),
        Variant(name="control", label="untracked again (the noise)", add=untracked),
        Variant(
            name="postgres",
            label="aiotrack, Postgres",
            add=aiotrack,
            database="postgres",
            counts=_OURS,
        ),
        Variant(
            name="floor",
            label="the least: a constant row, committed before the ack",
            add=floor,
            database="postgres",
            counts=_OURS,
        ),
        Variant(name="ours", label="untracked, PriorityStreamBroker", add=untracked, is_ours=True),
        Variant(
            name="ours-control",
            label="untracked, PriorityStreamBroker again",
            add=untracked,
            is_ours=True,
        ),
        Variant(
            name="ours-postgres",
            label="aiotrack, Postgres, PriorityStreamBroker",
            add=aiotrack,
            database="postgres",
            counts=_OURS,
            is_ours=True,
        ),
        Variant(
            name="everything",
            label="aiotrack, Postgres, all features on",
            add=everything,
            database="postgres",
            counts=_OURS,
        ),
        Variant(
            name="sqlite", label="aiotrack, SQLite", add=aiotrack, database="sqlite", counts=_OURS
        ),
        Variant(
            name="naive",
            label="a session per event, Postgres",
            add=naive,
            database="postgres",
            counts=_NAIVE,
        ),
        Variant(
            name="admin",
            label="TaskiqAdminMiddleware",
            add=admin,
            needs=("aiohttp",),
            has_sink=True,
        ),
        Variant(
            name="dashboard",
            label="taskiq-dashboard's middleware",
            add=dashboard,
            needs=("taskiq_dashboard",),
            has_sink=True,
        ),
        Variant(name="redis-results", label="TaskIQ's Redis result backend", add=redis_results),
        Variant(
            name="postgres-results",
            label="taskiq-postgres' result backend",
            add=postgres_results,
            database="postgres",
            counts="SELECT count(*) FROM taskiq_results",
            needs=("taskiq_pg",),
        ),
    )
}


class SignallingBroker(RedisStreamBroker):
    """Pushes to a list after each ack, so that an observer sees the end without polling."""

    def _ack_generator(self, id: str, queue_name: str) -> Any:  # noqa: A002 - the base class' name
        acknowledge = super()._ack_generator(id, queue_name)

        async def ack() -> None:
            await acknowledge()
            from redis.asyncio import Redis

            async with Redis(connection_pool=self.connection_pool) as client:
                await client.lpush(f"{self.queue_name}:acks", id)

        return ack


def build(variant: str, target: Target, *, signals: bool = False) -> AsyncBroker:
    """Make a variant's broker, the stock stream broker for most, with the variant added to it."""
    if VARIANTS[variant].is_ours:
        from aiotrack.brokers import PriorityStreamBroker

        broker: RedisStreamBroker = PriorityStreamBroker(target.redis, queue_name=target.queue)
    else:
        kind = SignallingBroker if signals else RedisStreamBroker
        broker = kind(target.redis, queue_name=target.queue, consumer_id="0")
    made: AsyncBroker = VARIANTS[variant].add(broker, target)
    return made
