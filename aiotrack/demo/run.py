"""The demo itself: start the parts, send every kind, follow them, read back what was recorded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from aiotrack.demo.board import Board
from aiotrack.demo.schedule import play
from aiotrack.demo.screen import Screen, screen_for
from aiotrack.demo.serve import serve
from aiotrack.demo.summary import Place, summarise
from aiotrack.demo.worker import Child, Scheduler, Worker
from aiotrack.errors import AioTrackError, InvalidValue
from aiotrack.settings import masked
from aiotrack.testing.servers import PostgresServer, ValkeyServer

if TYPE_CHECKING:
    from aiotrack import Tracker
    from aiotrack.demo.kinds import Kind

PATIENCE = 60.0
"""Seconds until tasks that did not end are given up; an idle machine needs six."""

PAUSE = 0.12
"""Seconds between two drawings of the screen."""

REDIS_TIMEOUT = 3.0
"""Seconds within which a Redis that the user named must answer."""

SWEEP = "aiotrack:mark_timed_out"
"""What the scheduler sends at its start, by the crontab that the demo sets."""

KEPT = "aiotrack-demo.db"
"""The file, in the working directory, that ``--keep`` leaves."""


class DemoFailed(AioTrackError):
    """A part of the demo cannot be started, or died; the message says which and why."""

    code = "demo-failed"


class RedisAway(DemoFailed):
    """The Redis that was named does not answer."""

    code = "demo-redis-unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user chose.

    Attributes:
        redis: URL of a Redis; None starts a Valkey.
        database: URL of a database; None takes a temporary SQLite file.
        postgres: Start a PostgreSQL for it.
        keep: Leave the SQLite file in the working directory.
        serve: Go on with a dashboard until it is stopped.
        port: Of the dashboard; 0 is any that is free.
    """

    redis: str | None = None
    database: str | None = None
    postgres: bool = False
    keep: bool = False
    serve: bool = False
    port: int = 8000

    def __post_init__(self) -> None:
        if sum((self.database is not None, self.postgres, self.keep)) > 1:
            raise InvalidValue("choose one of --database, --postgres and --keep")


def run(options: Options, console: Console) -> int:
    """Run the demo, and give its exit code: 0 when every task ended as it must, else 1.

    Raises:
        DemoFailed: A part could not be started, or died.
        MissingExtra: A server's wheel is not installed.
        StoreUnavailable: The database cannot be reached.
    """
    try:
        return asyncio.run(_run(options, console))
    except KeyboardInterrupt:
        console.print("[dim]stopped: worker and servers are gone[/]")
        return 128 + signal.SIGINT
    except asyncio.CancelledError:  # SIGTERM or SIGHUP, see below
        return 128 + signal.SIGTERM


async def _run(options: Options, console: Console) -> int:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(sign, task.cancel if task else loop.stop)
    begun = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="aiotrack-demo-")))
        console.print(
            Text("aiotrack demo", style="bold").append(": a real broker, worker and database")
        )
        redis = await _redis(options, stack, console)
        place = _database(options, folder, stack, console)
        name = f"demo-{secrets.token_hex(3)}"
        environment = {
            "AIOTRACK_DATABASE_URL": place.url,
            "AIOTRACK_REDIS_URL": redis,
            "AIOTRACK_DEMO_RUN": name,
            "AIOTRACK_NAMESPACE": name,  # whose Redis it may be: its schedules are not ours
            # So that the demo need not wait for what takes seconds or minutes otherwise:
            "AIOTRACK_HEARTBEAT_SECONDS": "0.5",
            "AIOTRACK_MARK_TIMEOUT_CRONTAB": "* * * * *",
        }
        for variable in os.environ.keys() - {"AIOTRACK_JOURNAL_DIR"}:
            if variable.startswith("AIOTRACK_"):  # of a project: its queues, its alerts
                del os.environ[variable]
        os.environ.update(environment)  # the tasks module reads it, here and in the worker
        worker = Worker(
            "aiotrack.demo.tasks:broker", environment=environment, log_file=folder / "worker.log"
        )
        scheduler = Scheduler(
            "aiotrack.demo.tasks:scheduler",
            environment=environment,
            log_file=folder / "scheduler.log",
        )
        board, tracker = await _play(worker, scheduler, stack, console)
        async with tracker:
            is_right = await summarise(board, tracker, console, name=name, place=place, begun=begun)
        if options.serve:
            await _serve(options, environment, folder, console)
        if options.redis is not None:
            await _forget(redis, name)
        return 0 if is_right else 1


async def _serve(
    options: Options, environment: Mapping[str, str], folder: Path, console: Console
) -> None:
    """Go on with a dashboard; to be stopped is how it ends."""
    with ExitStack() as stack:
        try:
            fault = await serve(stack, environment, folder, console, options.port)
        except asyncio.CancelledError:
            console.print("stopping …", style="dim")
            return
    if fault is not None:
        raise DemoFailed(fault)


async def _play(
    worker: Worker, scheduler: Scheduler, stack: ExitStack, console: Console
) -> tuple[Board, Tracker]:
    """Start worker and scheduler, send every kind, follow until all ended, and stop both."""
    from aiotrack.demo.kinds import kinds
    from aiotrack.demo.tasks import RUN, broker, tidy_carts, tracker

    board = Board()
    await tracker.startup()  # raises when the database cannot be used; the broker's only logs it
    await broker.startup()
    try:
        await _send(board, [kind for kind in kinds() if not kind.is_last])  # nobody takes it yet
        for part, child in (("worker", worker), ("scheduler", scheduler)):
            stack.enter_context(child)
            _tell(console, part, f"{child.words}, pid {child.pid}")
        console.print()
        playing = asyncio.create_task(
            play(tracker, tidy_carts.task_name, name=f"{RUN}, every second")
        )
        children = (worker, scheduler)
        try:
            with screen_for(console) as screen:
                await _follow(board, children, screen, tracker, prefix=f"{RUN}-")
                await _send(board, [kind for kind in kinds() if kind.is_last])
                await _follow(board, children, screen, tracker, prefix=f"{RUN}-")
                await _sweep(board, tracker)
                board.story = await playing
                screen.show(board, "worker and scheduler are stopping …")
                scheduler.stop()
                worker.stop()
        finally:
            playing.cancel()
    except asyncio.CancelledError:
        console.print("stopping …", style="dim")
        raise
    finally:
        await broker.shutdown()
    return board, tracker


async def _send(board: Board, kinds: Iterable[Kind]) -> None:
    for kind in kinds:
        if kind.send is not None:
            board.sent((await kind.send()).task_id, kind)


async def _sweep(board: Board, tracker: Tracker) -> None:
    """Wait for the sweep that the scheduler sends when it starts."""
    end = time.monotonic() + PATIENCE
    while not board.sweeps and time.monotonic() < end:
        await asyncio.sleep(PAUSE)
        board.sweeps = (await tracker.list(task_name=SWEEP, since=board.began_at)).items


async def _follow(
    board: Board, children: Sequence[Child], screen: Screen, tracker: Tracker, *, prefix: str
) -> None:
    """Show the records, as this process hears of the worker's changes, until all are final."""

    async def hear() -> None:
        async for execution in tracker.watch(text=prefix):
            board.update([execution])

    async def listen(task_id: str) -> None:
        name = (await tracker.get(task_id)).task_name
        async for line in tracker.tail(task_id):
            board.heard.append((name, line))

    end = time.monotonic() + PATIENCE
    hearing = asyncio.create_task(hear())
    doing: list[asyncio.Task[Any]] = [
        asyncio.create_task(listen(task_id)) for task_id in board.to_hear()
    ]
    try:
        await asyncio.sleep(PAUSE)  # what was there before it hears is asked for
        board.update((await tracker.list(text=prefix, limit=500)).items)
        while not board.is_over and not hearing.done() and time.monotonic() < end:
            screen.show(board)
            doing += [asyncio.create_task(one) for one in board.to_do()]
            for child in children:
                if not child.is_running:
                    words = f"{child.words} died; its last words:\n{child.last_words()}"
                    raise DemoFailed(words)
            await asyncio.sleep(PAUSE)
        screen.show(board)
    finally:
        for task in (hearing, *doing):
            task.cancel()
    if hearing.done():
        hearing.result()


async def _redis(options: Options, stack: ExitStack, console: Console) -> str:
    """Give the URL of a Redis that answers."""
    if options.redis is None:
        server = stack.enter_context(ValkeyServer())
        _tell(console, "broker", f"Valkey, started for the demo: {server.url}")
        return server.url
    with _redis_errors(options.redis):
        from aiotrack.redis.client import make_client

        async with asyncio.timeout(REDIS_TIMEOUT), make_client(options.redis) as client:
            await client.ping()
    _tell(console, "broker", f"Redis: {masked(options.redis)}")
    return options.redis


@contextlib.contextmanager
def _redis_errors(url: str) -> Iterator[None]:
    from redis.exceptions import RedisError

    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        where = masked(url)
        words = (str(error) or type(error).__name__).rstrip(".")
        raise RedisAway(
            f"no Redis answers at {where}: {words}. Is it running? "
            "Without --redis the demo starts one itself."
        ) from error


async def _forget(url: str, queue: str) -> None:
    """Remove the demo's keys from a Redis that is not ours; results expire by themselves."""
    from redis.asyncio import Redis

    from aiotrack.brokers.streams import dead, streams
    from aiotrack.redis.keys import schedule_keys

    async with Redis.from_url(url) as client:
        await client.delete(*streams([queue]), dead(queue), *schedule_keys(queue))


def _database(options: Options, folder: Path, stack: ExitStack, console: Console) -> Place:
    """Give the database to record in."""
    if options.postgres:
        server = stack.enter_context(PostgresServer())
        place = Place(url=server.url, what="PostgreSQL, started for the demo", is_kept=False)
    elif options.database is not None:
        place = Place(url=options.database, what="yours, and it keeps the records", is_kept=True)
    else:
        path = Path(KEPT).absolute() if options.keep else folder / "aiotrack.db"
        what = "SQLite" if options.keep else "SQLite, temporary"
        place = Place(url=f"sqlite+aiosqlite:///{path}", what=what, is_kept=options.keep)
    _tell(console, "database", f"{place.what}: {place.shown}")
    return place


def _tell(console: Console, part: str, words: str) -> None:
    console.print(Text(f"  {part:<9}", style="dim").append(words, style="default"), soft_wrap=True)
