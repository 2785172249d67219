"""What the servers say: database, Redis, clocks, and whether workers and the scheduler live."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiotrack.clock import to_datetime
from aiotrack.doctor.finding import Finding, advice, wrong
from aiotrack.doctor.project import USE_OURS, is_stock_stream, named
from aiotrack.errors import AioTrackError, SchemaOutdated, SchemaTooNew
from aiotrack.health import Checks
from aiotrack.model import OWN_MODULE, WorkerStatus
from aiotrack.settings import DEFAULT_DATABASE
from aiotrack.sweeps import must_be_recorded_since

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.tracker import Tracker

SKEW: Final = 2.0
"""Seconds that a host's clock may be off: people compare its logs with the records."""

MISSED: Final = 2
"""Due times of a sweep without a record, besides the last one, which may be on its way: nobody runs
the scheduler."""

WAITS: Final = 60.0
"""Seconds that a message may wait where no worker lives."""

LONGEST: Final = 100
"""Executions that took longest, which are looked at."""


async def look(broker: AsyncBroker, tracker: Tracker) -> list[Finding]:
    """Look at the servers of a tracker and its broker; nothing is made, not even a schema."""
    core = tracker.core()
    found = [*_journal(tracker), *_file(tracker), *await _broker(core)]
    try:
        path = core.repository.path
        is_there = path is None or path.exists()  # a connection would make the file
        if not is_there or await core.repository.version() is None:
            return [*found, *await _redis(tracker)]  # the first start makes it
        core.repository.leave_indexes()
        await core.repository.connect()
        for part in (_clock, _indexes, _silence, _long_runs):
            found += await part(broker, tracker, core)
    except SchemaOutdated as error:
        found.append(wrong("schema", str(error), "run aiotrack db upgrade before what needs it"))
    except SchemaTooNew as error:
        found.append(wrong("schema", str(error), "bring aiotrack to the release that made it"))
    except AioTrackError as error:
        found.append(wrong("database", str(error), "start it, or set AIOTRACK_DATABASE_URL"))
    return [*found, *await _redis(tracker)]


def _file(tracker: Tracker) -> list[Finding]:
    if tracker.database != DEFAULT_DATABASE:
        return []
    what = f"no database is named: it is {Path('aiotrack.db').absolute()}, where you stand now"
    return [advice("default-database", what, "set AIOTRACK_DATABASE_URL, for all processes")]


def _journal(tracker: Tracker) -> list[Finding]:
    folder = tracker.journals
    while not folder.exists():
        folder = folder.parent
    if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
        return []
    what = f"{folder} cannot be written: an outage of the database may cost final reports"
    return [wrong("journal-folder", what, "set AIOTRACK_JOURNAL_DIR to a folder that stays")]


async def _broker(core: Core) -> list[Finding]:
    asked = await core.feature(Checks).broker()
    if asked.ok:
        return []
    what = f"the broker does not answer: {asked.error}"
    return [wrong("broker", what, "start its server, or mend the URL that it was made with")]


async def _clock(_: AsyncBroker, tracker: Tracker, __: Core) -> list[Finding]:
    off = time.time() - tracker.clock.now() / 1e6
    if abs(off) < SKEW:
        return []
    side = "ahead of" if off > 0 else "behind"
    what = f"this host's clock is {abs(off):.0f} s {side} the database's"
    change = "let NTP set it: records are right all the same, but its logs do not agree with them"
    return [advice("clock-skew", what, change)]


async def _indexes(_: AsyncBroker, __: Tracker, core: Core) -> list[Finding]:
    missing = await core.repository.missing_indexes()
    if not missing:
        return []
    what = f"{', '.join(missing)} of indexed_metadata has no index: lists by it read every row"
    return [wrong("missing-index", what, "run aiotrack db upgrade, or wait: workers make it, too")]


async def _silence(_: AsyncBroker, tracker: Tracker, __: Core) -> list[Finding]:
    """Look for work that nobody does: sweeps without a scheduler, messages without a worker."""
    found = []
    due = to_datetime(must_be_recorded_since(tracker, MISSED))
    if due is not None:
        first = await tracker.list(order="created_at", limit=1)
        last = await tracker.list(module=OWN_MODULE, limit=1)
        since = [one.created_at for one in (last.items or first.items)]
        if since and since[0] < due:
            what = f"no sweep ran since {since[0]:%Y-%m-%d %H:%M} UTC: nobody runs the scheduler"
            change = "run taskiq scheduler with LabelScheduleSource(broker): see docs/how-to"
            found.append(wrong("no-scheduler", what, change))
    workers = await tracker.workers()
    alive = [one for one in workers if one.status is WorkerStatus.ALIVE]
    for queue in await tracker.queues():
        is_left = not alive or queue.consumers == 0  # None: its broker cannot tell
        if (queue.oldest_age or 0) > WAITS and is_left:
            who = "no worker listens to it" if alive else "no worker lives"
            what = f"{queue.depth} messages wait in {queue.name}, and {who}"
            change = "run taskiq worker with AIOTRACK_QUEUES" if alive else "run taskiq worker"
            found.append(wrong("no-worker", what, change))
    versions = Counter(one.versions.get("aiotrack") for one in alive)
    if len(versions) > 1:
        told = ", ".join(f"{count} with {name}" for name, count in versions.items())
        what = f"workers run different releases of aiotrack: {told}"
        found.append(advice("mixed-releases", what, "bring all to the newer one"))
    return found


async def _long_runs(broker: Any, tracker: Tracker, _: Core) -> list[Finding]:
    """Look for runs that took longer than the stock stream broker waits for them."""
    if not is_stock_stream(broker):
        return []
    idle = broker.idle_timeout / 1000
    page = await tracker.list(order="-duration", limit=LONGEST)
    long = [one for one in page.items if (one.duration or 0) > idle and one.module != OWN_MODULE]
    names = sorted({one.task_name for one in long})
    if not names:
        return []
    what = f"{named(names)} took up to {long[0].duration:.0f} s, and idle_timeout is {idle:g} s"
    change = f"a second worker ran them, too: raise idle_timeout, or {USE_OURS}"
    return [wrong("runs-twice", what, change)]


async def _redis(tracker: Tracker) -> list[Finding]:
    if tracker.redis is None:
        what = "the tracker knows no Redis: no locks and schedules, cancels are polled for"
        return [advice("no-redis", what, "set AIOTRACK_REDIS_URL")]
    from aiotrack.redis.client import FAULTS, make_client
    from aiotrack.redis.wire import Wire

    async with aclosing(make_client(tracker.redis)) as client:
        wire = Wire(client)
        try:
            await wire.ask("PING")
            facts = await wire.facts()
        except FAULTS as error:
            what = f"Redis does not answer: {error}"
            return [wrong("redis", what, "start it, or mend AIOTRACK_REDIS_URL")]
        finally:
            await wire.close()
    return _facts(facts)


def _facts(facts: dict[str, str]) -> list[Finding]:
    found = []
    version = facts.get("redis_version", "")
    numbers = tuple(int(one) for one in version.split(".")[:2] if one.isdigit())
    if len(numbers) == 2 and numbers < (6, 2):
        what = f"Redis {version} is older than 6.2"
        found.append(wrong("old-redis", what, "use Redis from 6.2 on, or Valkey"))
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction" and facts.get("maxmemory", "0") != "0":
        is_all = policy.startswith("allkeys")  # else what has a time to live: locks, not queues
        first = "queues, locks and schedules" if is_all else "held locks first, and others get them"
        what = f"maxmemory-policy {policy}: a full Redis throws away {first}"
        found.append((wrong if is_all else advice)("eviction", what, "set noeviction"))
    if facts.get("cluster_enabled") == "1":
        what = "Redis is a cluster: the streams of a queue must lie on one server"
        found.append(wrong("redis-cluster", what, "use a server of its own for queues"))
    return found
