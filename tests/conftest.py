"""Servers and addresses for every test.

One PostgreSQL and one Valkey serve a whole run, also of several xdist workers: the controlling
process starts them and tells the workers where they are. AIOTRACK_TEST_DATABASE_URL and
AIOTRACK_TEST_REDIS_URL name servers that are there already; AIOTRACK_TEST_NO_SERVERS=1 starts none,
for runs that need none. A server that cannot be had is a failure, never a skip.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from hypothesis import settings as hypothesis_settings
from redis import Redis

from aiotrack.errors import AioTrackError
from aiotrack.testing.servers import PostgresServer, ValkeyServer

if TYPE_CHECKING:
    from aiotrack import Tracker

DATABASE_VARIABLE = "AIOTRACK_TEST_DATABASE_URL"
REDIS_VARIABLE = "AIOTRACK_TEST_REDIS_URL"
NO_SERVERS_VARIABLE = "AIOTRACK_TEST_NO_SERVERS"

MEMORY = Path("/dev/shm")
ROOM = 8 * 2**30
"""Bytes that it must have."""


def _into_memory() -> Path | None:
    """Let servers and files of a run live in memory, where there is room; give their folder.

    A third of the whole run's CPU is the system writing what is deleted minutes later. No test sees
    a difference: they kill processes, not machines.
    """
    try:
        for old in MEMORY.glob("aiotrack-tests-*"):
            if not Path(f"/proc/{old.name.rpartition('-')[2]}").exists():
                shutil.rmtree(old, ignore_errors=True)  # of a run that was killed
        if shutil.disk_usage(MEMORY).free < ROOM:
            return None
        folder = MEMORY / f"aiotrack-tests-{os.getpid()}"
        folder.mkdir(mode=0o755)  # PostgreSQL may run as nobody
    except OSError:
        return None
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    return folder


IN_MEMORY = None if os.environ.keys() & {"TMPDIR", "PYTEST_XDIST_WORKER"} else _into_memory()

# A shell lets what it runs in the background ignore Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Journals of test databases do not belong into the home of whoever runs the tests.
os.environ.setdefault("AIOTRACK_JOURNAL_DIR", tempfile.mkdtemp(prefix="aiotrack-journals-"))

# An example with a database takes what the machine gives it; CI repeats no bad luck.
hypothesis_settings.register_profile("aiotrack", deadline=None, print_blob=True)
hypothesis_settings.register_profile(
    "aiotrack-ci", hypothesis_settings.get_profile("aiotrack"), derandomize=True, database=None
)
hypothesis_settings.load_profile("aiotrack-ci" if os.environ.get("CI") else "aiotrack")


NOT_SHARED = ("-flushall", "-flushdb", "-script|flush", "-config|set", "-shutdown", "-debug")
"""What no test may tell the server of all: SCRIPT FLUSH at the right moment ends the listener of
taskiq-redis' stream broker, and with it a worker of another test."""


# ── the servers of a run ────────────────────────────────────────────────────────────────────────
class Servers:
    """The addresses of a run, and the servers that we started for it."""

    def __init__(self) -> None:
        self.database_url: str | None = os.environ.get(DATABASE_VARIABLE)
        self.redis_url: str | None = os.environ.get(REDIS_VARIABLE)
        self._stack = contextlib.ExitStack()

    def start(self) -> None:
        """Start what no variable names."""
        if os.environ.get(NO_SERVERS_VARIABLE):
            return
        if self.database_url is None:
            self.database_url = self._stack.enter_context(PostgresServer()).url
        if self.redis_url is None:
            self.redis_url = self._stack.enter_context(ValkeyServer()).url
            with Redis.from_url(self.redis_url) as redis:
                redis.execute_command("ACL", "SETUSER", "default", *NOT_SHARED)

    def stop(self) -> None:
        """Stop what `start` started."""
        self._stack.close()


SERVERS = pytest.StashKey[Servers]()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the servers before xdist starts its workers; a worker takes the given addresses."""
    config = session.config
    servers = config.stash[SERVERS] = Servers()
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is not None:
        servers.database_url = given["aiotrack_database_url"]
        servers.redis_url = given["aiotrack_redis_url"]
    elif not config.option.collectonly:
        try:
            servers.start()
        except AioTrackError as error:
            servers.stop()
            pytest.exit(f"the servers for the tests: {error}", returncode=3)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell an xdist worker where the servers are."""
    servers = node.config.stash[SERVERS]
    node.workerinput["aiotrack_database_url"] = servers.database_url
    node.workerinput["aiotrack_redis_url"] = servers.redis_url


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Trace no line for those that run it a hundred thousand times, or in other processes.

    What they prove is no line that runs, and others show that; tracing took a third of their CPU.
    """
    for item in items:
        if item.path.parent.name in {"contract", "acceptance"}:
            item.add_marker(pytest.mark.no_cover)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Let no collection of garbage walk thousands of tests again: a tenth of a run's CPU."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers when all workers are gone."""
    if servers := config.stash.get(SERVERS, None):
        servers.stop()
    if IN_MEMORY is not None:
        shutil.rmtree(IN_MEMORY, ignore_errors=True)


# ── databases ───────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="session")
def postgres_server_url(pytestconfig: pytest.Config) -> str:
    """The run's PostgreSQL as a SQLAlchemy URL; a test takes `postgres_url`, its own database."""
    url = pytestconfig.stash[SERVERS].database_url
    if url is None:
        pytest.fail(f"this test needs PostgreSQL: unset {NO_SERVERS_VARIABLE}", pytrace=False)
    return url


@pytest.fixture(scope="session")
def new_database(postgres_server_url: str) -> Callable[..., Any]:
    """A context manager that makes a database, optionally from a template, and drops it."""

    @contextlib.contextmanager
    def new_database(template: str | None = None) -> Iterator[str]:
        name = f"aiotrack_test_{secrets.token_hex(6)}"
        copied = f' TEMPLATE "{template}"' if template else ""
        run_apart(execute(postgres_server_url, f'CREATE DATABASE "{name}"{copied}'))
        try:
            yield with_database(postgres_server_url, name)
        finally:
            drop = f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'
            run_apart(execute(postgres_server_url, drop))

    return new_database


@pytest.fixture(scope="session")
def postgres_template(new_database: Callable[..., Any]) -> Iterator[str]:
    """The name of a database that has the schema; made once for each xdist worker."""
    with new_database() as url:
        run_apart(upgrade(url))
        yield urlsplit(url).path.lstrip("/")


@pytest.fixture
def postgres_url(new_database: Callable[..., Any], postgres_template: str) -> Iterator[str]:
    """A PostgreSQL database of the test's own, with the schema and without rows."""
    with new_database(postgres_template) as url:
        yield url


@pytest.fixture
def empty_postgres_url(new_database: Callable[..., Any]) -> Iterator[str]:
    """A PostgreSQL database of the test's own, without the schema."""
    with new_database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A SQLite database of the test's own; the file does not exist yet."""
    return f"sqlite+aiosqlite:///{tmp_path / 'aiotrack.db'}"


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file that has the schema; made once for each xdist worker."""
    file = tmp_path_factory.mktemp("template") / "aiotrack.db"
    run_apart(upgrade(f"sqlite+aiosqlite:///{file}"))
    return file


@pytest.fixture
def made_sqlite_url(sqlite_url: str, sqlite_template: Path, tmp_path: Path) -> str:
    """A SQLite database of the test's own, with the schema and without rows."""
    shutil.copy(sqlite_template, tmp_path / sqlite_template.name)
    return sqlite_url


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each database that aiotrack speaks to, in turn."""
    name = {"sqlite": "made_sqlite_url", "postgres": "postgres_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest) -> str:
    """Each database that aiotrack speaks to, in turn, without the schema."""
    name = {"sqlite": "sqlite_url", "postgres": "empty_postgres_url"}[request.param]
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
async def tracker(database_url: str) -> AsyncIterator[Tracker]:
    """A started tracker on each database."""
    from aiotrack import Tracker

    async with Tracker(database_url) as tracker:
        yield tracker


# ── Redis ───────────────────────────────────────────────────────────────────────────────────────
@pytest.fixture(scope="session")
def redis_url(pytestconfig: pytest.Config) -> str:
    """The run's Valkey, shared by all tests: keys get a prefix, queues `queue_name`."""
    url = pytestconfig.stash[SERVERS].redis_url
    if url is None:
        pytest.fail(f"this test needs Redis: unset {NO_SERVERS_VARIABLE}", pytrace=False)
    return url


@pytest.fixture
def queue_name() -> str:
    """A queue, stream or key prefix that no other test uses."""
    return f"test-{secrets.token_hex(6)}"


# ── servers that a test may kill ────────────────────────────────────────────────────────────────
@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL for this test alone: it may be killed, paused and restarted."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey for this test alone, which keeps its data over a restart."""
    with ValkeyServer(appendonly=True) as server:
        yield server


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────
def run_apart(work: Coroutine[Any, Any, None]) -> None:
    """Run *work* in an event loop of its own, whatever loop the test has."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, work).result()


async def execute(url: str, statement: str) -> None:
    """Run one statement outside a transaction."""
    import asyncpg

    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:", 1))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def upgrade(url: str) -> None:
    """Give an empty database the schema."""
    from aiotrack import Tracker

    tracker = Tracker(url)
    try:
        await tracker.upgrade()
    finally:
        await tracker.shutdown()


def with_database(url: str, name: str) -> str:
    """Give *url* with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
