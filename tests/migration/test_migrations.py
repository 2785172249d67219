"""The schema's history: what migrations make is what the models say, from wherever they run."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from aiotrack import Base, SchemaOutdated, SchemaTooNew, TaskStatus, Tracker
from aiotrack.repository import migrations
from aiotrack.repository.columns import HEAD, VERSION_TABLE
from aiotrack.repository.statistics.periods import DAY, HOUR
from tests.contract.test_rollups import ended, settle

ROOT = Path(__file__).resolve().parents[2]
TABLES = set(Base.metadata.tables)
TASK_ID = "uq_aiotrack_executions_task_id"

T = TypeVar("T")


# ── the models ──────────────────────────────────────────────────────────────────────────────────
async def test_a_fresh_schema_is_what_the_models_say(empty_database_url: str) -> None:
    """Autogenerate finds no difference between the migrated schema and the public models."""
    await upgraded(empty_database_url)

    assert [] == await on(empty_database_url, differences)


async def test_a_difference_would_be_seen(empty_database_url: str) -> None:
    """The comparison above sees a dropped index, so that its silence means something."""
    await upgraded(empty_database_url)
    await on(
        empty_database_url,
        lambda connection: connection.execute(text("DROP INDEX ix_aiotrack_executions_nulls")),
    )

    found = await on(empty_database_url, differences)

    assert ["add_index"] == [change[0] for change in found]


async def test_on_postgres_the_index_of_task_id_serves_prefixes(empty_postgres_url: str) -> None:
    """It is unique, has the name of the models' constraint, and compares by character."""
    await upgraded(empty_postgres_url)

    found = await on(
        empty_postgres_url,
        lambda connection: connection.execute(
            text("SELECT indexdef FROM pg_indexes WHERE indexdef LIKE '%(task_id %'")
        ).scalars(),
    )

    assert [f"{TASK_ID} ON public.aiotrack_executions USING btree (task_id text_pattern_ops)"] == [
        line.removeprefix("CREATE UNIQUE INDEX ") for line in found
    ]


OLD_ROWS = """
INSERT INTO aiotrack_executions (
    task_id, task_name, module, status, created_at, args, kwargs, metadata, exact, run_id, witness,
    attempt, presumed, runs, duplicates, plain
) VALUES
    ('a%', 'shop:pay', 'shop', 'PENDING', {0}, '[]', '{{}}', '{{"k": 7}}', true, '', 0,
     1, false, 0, 0, true),
    ('b', 'shop:send', 'shop', 'SUCCESS', {0}, '[]', '{{}}', '{{}}', true, 'r', 4,
     1, false, 1, 0, true)
"""


async def test_rows_of_0001_stay_and_are_found_after_0002(empty_database_url: str) -> None:
    """Up with rows, down to 0001 and up again: nothing is lost, and a task_id stays unique."""
    await on(empty_database_url, migrations.upgrade, revision="0001")
    moment = "now()" if "postgresql" in empty_database_url else "1700000000000000"
    await on(empty_database_url, lambda it: it.execute(text(OLD_ROWS.format(moment))))

    with pytest.raises(SchemaOutdated):
        await Tracker(empty_database_url).startup()
    for _ in range(2):
        await upgraded(empty_database_url)
        async with Tracker(empty_database_url) as tracker:
            by_prefix = await tracker.list(text="shop:")
            by_status = await tracker.list(status="success")
            waits = await tracker.get("b")
            await tracker.register("b", "shop:send")
            total = (await tracker.stats()).total
        await on(empty_database_url, migrations.downgrade, revision="0001")

        assert {"a%", "b"} == {item.task_id.replace("%25", "%") for item in by_prefix.items}
        assert ["b"] == [item.task_id for item in by_status.items]
        assert ("b", 2) == (waits.task_id, total)
    assert "0001" == await on(empty_database_url, version)


AGES = (2 * HOUR, 3 * DAY, 50 * DAY)


async def roll_up_failures(tracker: Tracker) -> None:
    """Roll up time-outs, lost ones and others, of today, of this month and of long ago."""
    repository = tracker.core().repository
    now = tracker.clock.now()
    made = [(kind, ago) for kind in ("timeout", "lost", "timeout", "permanent") for ago in AGES]
    await repository.write(
        [
            ended(f"t{number}", now - ago, status=TaskStatus.FAILURE, error_class=kind)
            for number, (kind, ago) in enumerate(made)
        ]
    )
    await settle(repository)
    await tracker.roll_up()


async def test_rollups_of_0007_are_counted_again_after_0008(empty_database_url: str) -> None:
    """What an older release rolled up tells its time-outs: at once, and rolled up anew."""
    async with Tracker(empty_database_url) as tracker:
        await roll_up_failures(tracker)
    await on(empty_database_url, migrations.downgrade, revision="0007")
    await upgraded(empty_database_url)
    with pytest.raises(IntegrityError):
        await on(empty_database_url, lambda connection: connection.execute(text(OLD_ROLLUP)))

    async with Tracker(empty_database_url) as tracker:
        first = await tracker.stats()
        done = await tracker.roll_up()
        second = await tracker.stats()
        again = await tracker.roll_up()

    assert done > 0 == again
    for stats in (first, second):
        assert (12, 6, 3) == (stats.failure, stats.timed_out, stats.lost)
    assert (False, True) == (first.is_approximate, second.is_approximate)
    assert [] == await on(empty_database_url, differences)


async def test_what_was_cleaned_before_0008_stays_rolled_up(empty_database_url: str) -> None:
    """Its rows are gone: it is not counted again, and tells of no time-outs."""
    async with Tracker(empty_database_url) as tracker:
        await roll_up_failures(tracker)
        deleted = await tracker.cleanup(retention_days=2)
        before = await tracker.report(timedelta(days=60))
    await on(empty_database_url, migrations.downgrade, revision="0007")
    await upgraded(empty_database_url)
    async with Tracker(empty_database_url) as tracker:
        await tracker.roll_up()
        after = await tracker.report(timedelta(days=60))

    assert 8 == deleted
    assert (12, 6, 3) == (before.now.failure, before.timed_out, before.lost)
    assert (12, 2, 1) == (after.now.failure, after.timed_out, after.lost)


OLD_NAMES = """level, start, task_name, success, failure, revoked, skipped, duration_count,
duration_sum, wait_count, wait_sum, durations, waits"""
OLD_ROLLUP = f"""
INSERT INTO aiotrack_rollups (span, module, {OLD_NAMES})
SELECT span, 'other', {OLD_NAMES} FROM aiotrack_rollups LIMIT 1
"""


def test_head_is_the_newest_migration() -> None:
    """The version that the tables module names is the newest migration, and there is one line."""
    script = ScriptDirectory.from_config(migrations.config())

    assert [HEAD] == script.get_heads()
    assert 1 == len(script.get_bases())


# ── up and down ─────────────────────────────────────────────────────────────────────────────────
async def test_up_down_and_up_again(empty_database_url: str) -> None:
    """Going down leaves no table but the version's, empty; going up again makes them all anew."""
    await on(empty_database_url, migrations.upgrade)
    up = await on(empty_database_url, tables)
    await on(empty_database_url, migrations.downgrade)
    down = await on(empty_database_url, tables)
    no_version = await on(empty_database_url, version)
    await on(empty_database_url, migrations.upgrade)

    assert {*TABLES, VERSION_TABLE} == up
    assert {VERSION_TABLE} == down
    assert no_version is None
    assert HEAD == await on(empty_database_url, version)
    assert [] == await on(empty_database_url, differences)


async def test_an_upgrade_may_be_repeated(empty_database_url: str) -> None:
    """`tracker.upgrade()` gives the version, and changes nothing when it runs again."""
    async with Tracker(empty_database_url) as tracker:
        first = await tracker.upgrade()
        await tracker.register("kept", "app.job")
        second = await tracker.upgrade()
        kept = await tracker.get("kept")

    assert (HEAD, HEAD) == (first, second)
    assert "kept" == kept.task_id


KILLED = """
import asyncio, os, sys
from alembic.operations import Operations
from aiotrack import Tracker
made = Operations.create_index
def create_index(*args, **kwargs):
    made(*args, **kwargs)
    os._exit(9)
Operations.create_index = create_index
asyncio.run(Tracker(sys.argv[1]).startup())
"""


async def test_a_first_start_that_is_killed_leaves_an_empty_database(
    empty_database_url: str,
) -> None:
    """Half a schema would stand in the way of every later start."""
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, empty_database_url)
    code = await child.wait()
    async with Tracker(empty_database_url) as tracker:
        stats = await tracker.stats()

    assert (9, 0) == (code, stats.total)


async def test_an_upgrade_makes_the_schema_without_a_start(empty_database_url: str) -> None:
    """`tracker.upgrade()` is enough for an empty database; nothing need be started."""
    tracker = Tracker(empty_database_url)
    try:
        found = await tracker.upgrade()
    finally:
        await tracker.shutdown()

    assert HEAD == found
    assert {*TABLES, VERSION_TABLE} == await on(empty_database_url, tables)


# ── versions ────────────────────────────────────────────────────────────────────────────────────
async def test_a_first_start_says_one_line_of_the_schema(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Alembic would say twenty, whoever has never heard of it."""
    caplog.set_level(logging.INFO)
    await upgraded(empty_database_url)
    await upgraded(empty_database_url)

    assert [f"the schema is {HEAD} now; before: none"] == [
        record.getMessage() for record in caplog.records if "schema" in record.getMessage()
    ]
    assert "alembic" not in {record.name.partition(".")[0] for record in caplog.records}
    assert logging.NOTSET == logging.getLogger("alembic").level


async def test_whoever_sets_alembic_a_level_hears_it(
    empty_database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Of each migration."""
    caplog.set_level(logging.INFO, "alembic")
    await upgraded(empty_database_url)

    assert caplog.text.count("Running upgrade") == int(HEAD)
    assert logging.INFO == logging.getLogger("alembic").level


@pytest.mark.parametrize(
    ("found", "error", "advice"),
    [
        ("0000", SchemaOutdated, "aiotrack db upgrade"),
        ("9999", SchemaTooNew, "pip install -U aiotrack"),
    ],
)
async def test_another_version_is_an_error_that_says_what_to_type(
    database_url: str, found: str, error: type[Exception], advice: str
) -> None:
    """A schema of an older or newer release is refused at the start, with the command to type."""
    await upgraded(database_url)
    await on(database_url, lambda connection: set_version(connection, found))

    with pytest.raises(error, match=advice):
        await Tracker(database_url).startup()


async def test_a_newer_schema_is_not_upgraded(database_url: str) -> None:
    """`Tracker.upgrade` tells it as a start does, and leaves it as it is."""
    await upgraded(database_url)
    await on(database_url, lambda connection: set_version(connection, "9999"))

    tracker = Tracker(database_url)
    with pytest.raises(SchemaTooNew, match="pip install -U aiotrack"):
        await tracker.upgrade()
    assert "9999" == await tracker.core().repository.version()
    await tracker.shutdown()


async def test_the_version_is_read_without_alembic(empty_database_url: str) -> None:
    """A process that finds the schema in place never imports Alembic; one that makes it does."""
    program = (
        "import asyncio, sys\n"
        "from aiotrack import Tracker\n"
        "async def main():\n"
        "    async with Tracker(sys.argv[1]):\n"
        "        print('alembic' in sys.modules)\n"
        "asyncio.run(main())\n"
    )
    made = await asyncio.to_thread(run, program, empty_database_url)
    found = await asyncio.to_thread(run, program, empty_database_url)

    assert ["True", "False"] == [made, found]


# ── many at once ────────────────────────────────────────────────────────────────────────────────
CONNECT = """
import asyncio, sys
from aiotrack import Tracker

async def connect(name):
    async with Tracker(sys.argv[1]) as tracker:
        return (await tracker.register(name, "app.job")).id

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    names = [f"{sys.argv[2]}-{number}" for number in range(4)]
    print(len(set(await asyncio.gather(*map(connect, names)))))

asyncio.run(main())
"""


async def test_an_empty_database_is_made_once_by_many_at_once(empty_database_url: str) -> None:
    """Four processes with four trackers each meet an empty database: all connect, none fails."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            CONNECT,
            empty_database_url,
            str(number),
            env=environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        await process.stdout.readline()
    done = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))

    assert [("4\n", "")] * 4 == [(out.decode(), err.decode()) for out, err in done]
    async with Tracker(empty_database_url) as tracker:
        assert 16 == (await tracker.stats()).total
    assert [] == await on(empty_database_url, differences)


async def test_trackers_of_several_empty_databases_may_start_at_once(tmp_path: Path) -> None:
    """Alembic keeps its state in globals of the process; starts of several trackers bear it."""
    urls = [f"sqlite+aiosqlite:///{tmp_path / name}.db" for name in "abc"]
    await asyncio.gather(*map(upgraded, urls))

    assert [HEAD] * 3 == [await on(url, version) for url in urls]


# ── inside a user's own Alembic ─────────────────────────────────────────────────────────────────
USER_ENV = """
from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
"""

USER_MIGRATION = """
import sqlalchemy as sa
from alembic import op

from aiotrack.repository import migrations

revision, down_revision = "a1", None


def upgrade():
    op.create_table("before", sa.Column("id", sa.Integer, primary_key=True))
    migrations.upgrade()
    op.create_table("after", sa.Column("id", sa.Integer, primary_key=True))


def downgrade():
    op.drop_table("after")
    migrations.downgrade()
    op.drop_table("before")
"""

FAILING_MIGRATION = """
from aiotrack.repository import migrations

revision, down_revision = "a1", None


def upgrade():
    migrations.upgrade()
    raise RuntimeError("the user's own mistake")
"""


async def test_our_migrations_run_inside_a_users_migration(
    empty_database_url: str, tmp_path: Path
) -> None:
    """`migrations.upgrade()` makes our schema amid a user's own steps, and each keeps its table."""
    config = alembic_of_a_user(tmp_path, USER_MIGRATION)
    await on(empty_database_url, lambda connection: user_upgrade(config, connection))
    up = await on(empty_database_url, tables)
    found = await on(empty_database_url, differences, ours_only=True)
    async with Tracker(empty_database_url) as tracker:
        execution = await tracker.register("1", "app.job")

    assert {*TABLES, VERSION_TABLE, "alembic_version", "before", "after"} == up
    assert HEAD == await on(empty_database_url, version)
    assert [] == found
    assert "1" == execution.task_id


async def test_our_migrations_go_down_inside_a_users_migration(
    empty_database_url: str, tmp_path: Path
) -> None:
    """`migrations.downgrade()` drops our tables amid a user's own steps."""
    config = alembic_of_a_user(tmp_path, USER_MIGRATION)
    await on(empty_database_url, lambda connection: user_upgrade(config, connection))
    await on(empty_database_url, lambda connection: user_downgrade(config, connection))

    assert {VERSION_TABLE, "alembic_version"} == await on(empty_database_url, tables)


async def test_a_users_migration_that_fails_leaves_nothing_of_ours(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    """Our steps are in the transaction of the user's migration: Postgres takes them back, too."""
    config = alembic_of_a_user(tmp_path, FAILING_MIGRATION)
    with pytest.raises(RuntimeError, match="own mistake"):
        await on(empty_postgres_url, lambda connection: user_upgrade(config, connection))

    assert set() == await on(empty_postgres_url, tables)


async def test_a_users_autogenerate_can_leave_our_tables_alone(empty_database_url: str) -> None:
    """With the `include_object` of the documentation, autogenerate drops none of our tables."""

    def include_object(
        _: object, name: str | None, kind: str, reflected: bool, compare_to: object
    ) -> bool:
        return not (kind == "table" and (name or "").startswith("aiotrack_"))

    def proposals(connection: Connection, **options: Any) -> list[Any]:
        context = MigrationContext.configure(connection, opts=options)
        return compare_metadata(context, MetaData())

    await upgraded(empty_database_url)
    alone = await on(empty_database_url, proposals)
    told = await on(empty_database_url, proposals, include_object=include_object)

    assert "remove_table" in {change[0] for change in alone}
    assert [] == told


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────
async def upgraded(url: str) -> None:
    """Give a database the newest schema."""
    tracker = Tracker(url)
    try:
        await tracker.upgrade()
    finally:
        await tracker.shutdown()


@asynccontextmanager
async def transaction(url: str) -> AsyncIterator[Any]:
    """A connection in a transaction, of an engine that is none of ours."""
    engine = create_async_engine(url, poolclass=NullPool)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def on(url: str, work: Callable[..., T], **options: Any) -> T:
    """Run sync *work* on a connection, as Alembic wants it."""
    async with transaction(url) as connection:
        found: T = await connection.run_sync(work, **options)
        return found


def differences(connection: Connection, *, ours_only: bool = False) -> list[Any]:
    """What autogenerate would change to make the database what the models say."""

    def is_ours(thing: Any, name: str | None, kind: str, *_: object) -> bool:
        if name == TASK_ID and connection.dialect.name == "postgresql":
            return False  # a test of its own: SQLAlchemy has no such constraint
        return not ours_only or kind != "table" or name in TABLES

    options = {"version_table": VERSION_TABLE, "compare_type": True, "include_object": is_ours}
    return compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)


def tables(connection: Connection) -> set[str]:
    """The names of the tables."""
    return set(inspect(connection).get_table_names()) - {"sqlite_sequence"}


def version(connection: Connection) -> str | None:
    """Where the schema stands."""
    found: str | None = connection.execute(
        text(f"SELECT version_num FROM {VERSION_TABLE}")
    ).scalar()
    return found


def set_version(connection: Connection, number: str) -> None:
    """Pretend that another release made the schema."""
    connection.execute(
        text(f"UPDATE {VERSION_TABLE} SET version_num = :number"), {"number": number}
    )


def alembic_of_a_user(folder: Path, migration: str) -> Config:
    """A small Alembic environment with one migration."""
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(USER_ENV)
    (folder / "versions" / "a1_add_aiotrack.py").write_text(migration)
    config = Config()
    config.set_main_option("script_location", str(folder))
    config.set_main_option("path_separator", "os")
    return config


def user_upgrade(config: Config, connection: Connection) -> None:
    """What the user's ``alembic upgrade head`` does."""
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def user_downgrade(config: Config, connection: Connection) -> None:
    """What the user's ``alembic downgrade base`` does."""
    config.attributes["connection"] = connection
    command.downgrade(config, "base")


def environment() -> dict[str, str]:
    """Variables of a fresh process that finds the package."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(program: str, *arguments: str) -> str:
    """Run a program in a fresh interpreter and give what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    if done.returncode:
        pytest.fail(done.stderr)
    return done.stdout.strip()
