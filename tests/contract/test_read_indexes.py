"""Every documented filter and order is served by an index, and gives what a scan would give."""

from __future__ import annotations

import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta

import asyncpg
import pytest
from sqlalchemy import event, select, text

from aiotrack.clock import EPOCH, Clock, to_micros
from aiotrack.errors import InvalidQuery
from aiotrack.model import Count, TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import ExecutionRow, Repository
from aiotrack.repository.cursor import COLUMNS, Order, Position, write_cursor
from aiotrack.repository.filters import Filters, begins, next_text
from aiotrack.repository.pages import MAX_EACH
from aiotrack.repository.read import Reader

pytestmark = pytest.mark.usefixtures("patience")

NOW = 1_700_000_000_000_000
KEYS = ("order_id", "odd \"key\" 'of' \\ {ü}: $.%s")

ORDERS = [f"{sign}{column}" for column in COLUMNS for sign in ("", "-")]

FILTERS = {
    "nothing": {},
    "module": {"module": "m1"},
    "modules": {"module": ["m1", "m2", "none"]},
    "task_name": {"task_name": "m1.a"},
    "task_names": {"task_name": ["m1.a", "m2.b"]},
    "status": {"status": "FAILURE"},
    "success": {"status": "SUCCESS"},
    "statuses": {"status": ["RETRY", "REVOKED", "FAILURE"]},
    "created_by": {"created_by": "3"},
    "worker": {"worker": "w1"},
    "error_class": {"error_class": "e1"},
    "config_id": {"config_id": 1},
    "config_ids": {"config_id": [1, 2]},
    "schedule_id": {"schedule_id": "s2"},
    "since": {"since": EPOCH + timedelta(microseconds=NOW + 100)},
    "until": {"until": EPOCH + timedelta(microseconds=NOW + 100)},
    "text of an id": {"text": "t1"},
    "text of names": {"text": "m"},
    "text of both": {"text": "m1"},
    "text of none": {"text": "zz"},
    "metadata int": {"metadata": {KEYS[0]: 7}},
    "metadata text": {"metadata": {KEYS[0]: "7"}},
    "metadata true": {"metadata": {KEYS[0]: True}},
    "metadata list": {"metadata": {KEYS[0]: [7]}},
    "metadata null": {"metadata": {KEYS[0]: None}},
    "metadata large": {"metadata": {KEYS[0]: 2**60}},
    "metadata odd": {"metadata": {KEYS[1]: 1.5}},
    "metadata two": {"metadata": {KEYS[0]: 7.0, KEYS[1]: 1.5}},
    "metadata other": {"metadata": {"other": 1}},
    "together": {"module": ["m1", "m2"], "status": ["FAILURE", "SUCCESS"], "text": "m"},
}
LARGE = {"$int": str(2**60)}
VALUES = (7, 7.0, "7", 1, True, False, 0, [7], {"a": 7}, None, "x" * 60_000, 2**53 + 1, LARGE)


def reports(count: int) -> Iterator[Report]:
    """Tell of tasks of every kind, some of them with equal times."""
    draw = random.Random(7)
    for number in range(count):
        module = f"m{number % 4}"
        metadata = {}
        if number % 3:
            metadata[KEYS[0]] = draw.choice(VALUES)
        if number % 5 == 0:
            metadata[KEYS[1]] = 1.5
        if number % 7 == 0:
            metadata["other"] = 1
        origin = Origin(
            f"m1-{number}" if number % 11 == 0 else f"t{number}",
            task_name=f"{module}.{'ab'[number % 2]}",
            module=module,
            created_at=NOW + draw.randrange(200),
            metadata=json.dumps(metadata),
            created_by=str(number % 5) if number % 2 else None,
            config_id=number % 4 or None,
            schedule_id=f"s{number % 3}" if number % 6 else None,
        )
        status = draw.choice(list(TaskStatus))
        if status in {TaskStatus.PENDING, TaskStatus.RETRY}:
            yield Report(origin, Witness.SENT, TaskStatus.PENDING)
            continue
        made = Report(origin, Witness.ENDED, status, "r", worker=f"w{number % 3}")
        made.started_at = NOW
        if status is TaskStatus.STARTED:
            made.witness = Witness.STARTED
        else:
            made.finished_at = NOW + draw.randrange(200)
            made.duration = draw.choice([None, 0.5, draw.random()])
        made.error_class = f"e{number % 3}" if status is TaskStatus.FAILURE else None
        yield made


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[Repository]:
    """An open repository whose metadata keys have indexes."""
    repository = Repository(database_url, clock=Clock(), keys=KEYS)
    await repository.upgrade()
    yield repository
    await repository.close()


async def every(reader: Reader, **query) -> list[str]:
    """Give the task_ids of all pages."""
    found, after = [], None
    while True:
        page = await reader.list(limit=7, after=after, **query)
        found += [item.task_id for item in page.items]
        after = page.next
        if after is None:
            return found


async def test_an_index_changes_no_answer(repository: Repository) -> None:
    """Every filter in every order: page by page the same as all rows, matched without indexes."""
    await repository.write(list(reports(150)))
    plain = Repository(str(repository.engine.url.render_as_string(False)), clock=Clock())
    reader, scanner = Reader(repository), Reader(plain)
    at = {item.task_id: item for item in (await scanner.list(limit=500)).items}
    try:
        for name, filters in FILTERS.items():
            async with plain.engine.connect() as connection:
                conditions = (await matching(plain, connection, filters)).split()
            for order in ORDERS:
                column = order.lstrip("-")
                found = await every(reader, order=order, **filters)

                assert sorted(conditions) == sorted(found), name
                values = [getattr(at[task_id], column) for task_id in found]
                known = [value for value in values if value is not None]
                assert known == sorted(known, reverse=order.startswith("-")), name
                assert [None] * (len(values) - len(known)) == values[len(known) :], name
            assert Count(len(conditions)) == await reader.count(**filters)
    finally:
        await plain.close()


async def matching(plain: Repository, connection, filters) -> str:
    """Give what matches by the conditions alone: no index of a key, no looking up one by one."""
    conditions = Filters.of(**filters).conditions(plain.dialect)
    found = await connection.execute(select(ExecutionRow.task_id).where(*conditions))
    return " ".join(found.scalars())


# ── plans ───────────────────────────────────────────────────────────────────────────────────────
SERVED = {name: filters for name, filters in FILTERS.items() if name not in {"together", "nothing"}}
for _name in ("metadata other", "metadata list", "metadata null"):
    del SERVED[_name]


@pytest.fixture
async def filled(postgres_url: str) -> AsyncIterator[Repository]:
    """50,000 rows, whose values of interest are only in the oldest."""
    repository = Repository(postgres_url, clock=Clock(), keys=KEYS)
    await repository.upgrade()
    await repository.write(list(reports(150)))
    every = [name for name in repository_columns() if name not in {"id", "task_id"}]
    changed = {
        "task_name": "'x.' || n % 30",
        "module": "'x'",
        "created_by": "'x' || n % 1000",
        "worker": "'x' || n % 9",
        "status": "CASE n % 100 WHEN 0 THEN 'REVOKED' WHEN 1 THEN 'PENDING' ELSE 'SUCCESS' END",
        "error_class": "CASE WHEN n % 10 = 0 THEN 'x' END",
        "config_id": "n % 50 + 10",
        "schedule_id": "'x' || n % 50",
        "created_at": "created_at + n * interval '1 second'",
        "finished_at": "created_at + n * interval '2 seconds'",
        "duration": "n",
        "metadata": "jsonb_build_object('order_id', n / 4, 'other', n)",
    }
    values = ", ".join(changed.get(name, name) for name in every)
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    await connection.execute(
        f"INSERT INTO aiotrack_executions (task_id, {', '.join(every)}) "
        f"SELECT md5(n::text), {values} FROM aiotrack_executions, "
        "generate_series(1, 50000) AS n WHERE task_id = 't1'"
    )
    await connection.execute("VACUUM ANALYZE aiotrack_executions")
    await connection.close()
    yield repository
    await repository.close()


def repository_columns() -> list[str]:
    """The columns of an execution."""
    return [column.name for column in ExecutionRow.__table__.columns]


async def plans(repository: Repository, **query) -> list[str]:
    """Give the plans of what a list asks, as run."""
    seen = []

    def see(_connection, _cursor, statement, values, *_) -> None:
        if "set_config" not in statement and not statement.startswith("EXPLAIN"):
            seen.append((statement, values))

    engine = repository._reads.sync_engine
    event.listen(engine, "before_cursor_execute", see)
    await Reader(repository).list(**query)
    event.remove(engine, "before_cursor_execute", see)
    found = []
    async with repository.engine.connect() as connection:
        await connection.execute(
            text("SELECT set_config('plan_cache_mode', 'force_custom_plan', true)")
        )
        for statement, values in seen:
            words = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) "
            lines = await connection.exec_driver_sql(words + statement, values)
            found.append("\n".join(line[0] for line in lines))
    return found


async def test_an_index_serves_every_filter_and_order(filled: Repository) -> None:
    """No plan scans the table, none sorts many rows, none reads many to throw them away."""
    queries = {**SERVED, **{order: {"order": order} for order in ORDERS}}
    for name, query in queries.items():
        for plan in await plans(filled, **query):
            removed = [int(number) for number in re.findall(r"Removed by Filter: (\d+)", plan)]

            assert "Seq Scan" not in plan, f"{name}: {plan}"
            assert "Index" in plan, f"{name}: {plan}"
            assert max(removed, default=0) < 1000, f"{name}: {plan}"
            assert "external" not in plan, f"{name}: {plan}"


async def test_successes_behind_a_backlog_are_found_at_once(filled: Repository) -> None:
    """They are nearly all rows, but not the newest: walking from there would take long."""
    connection = await asyncpg.connect(
        filled.engine.url.set(drivername="postgresql").render_as_string(False)
    )
    every = ", ".join(
        name
        for name in repository_columns()
        if name not in {"id", "task_id", "status", "created_at"}
    )
    await connection.execute(
        f"INSERT INTO aiotrack_executions (task_id, status, created_at, {every}) "
        f"SELECT 'late' || n, 'PENDING', now(), {every} FROM aiotrack_executions, "
        "generate_series(1, 5000) AS n WHERE task_id = 't1'"
    )
    await connection.close()

    (plan,) = await plans(filled, status="SUCCESS")

    assert "Removed by Filter" not in plan, plan
    assert "Seq Scan" not in plan, plan


async def test_a_deep_page_is_served_like_the_first(filled: Repository) -> None:
    """From a cursor on, an index is walked, also to where there is no value any more."""
    reader = Reader(filled)
    for query in ({"module": "x"}, {"order": "-finished_at"}, {"order": "duration"}):
        order = Order.parse(query.get("order", "-created_at"))
        turned = {**query, "order": str(Order(order.column, not order.descending))}
        near = (await reader.list(**turned, limit=60)).items[-1]
        value = getattr(near, order.column)
        place = Position(to_micros(value) if isinstance(value, datetime) else value, near.id)
        filters = {name: value for name, value in query.items() if name != "order"}
        digest = Filters.of(**filters).digest()
        last = await plans(filled, **query, after=write_cursor(place, order, digest), limit=100)

        assert (2 if order.is_nullable else 1) == len(last)
        for plan in last:
            assert "Seq Scan" not in plan, plan
            assert "Sort" not in plan, plan
            assert "Index" in plan, plan


# ── prefixes ────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("a", "b"),
        ("az", "a{"),
        ("a\U0010ffff", "b"),
        ("\ud7ff", "\ue000"),
        ("\U0010ffff", None),
        ("", None),
    ],
)
def test_the_text_after_all_with_a_prefix(prefix: str, expected: str | None) -> None:
    """It is the prefix with its last letter raised, and no surrogate."""
    assert expected == next_text(prefix)


async def test_a_prefix_of_the_last_letter_has_no_end(repository: Repository) -> None:
    """There is nothing after it; it is found all the same."""
    last = "\U0010ffff"
    await repository.write(
        [
            Report(Origin(f"{last}{n}", last * n, "m", NOW), Witness.SENT, TaskStatus.PENDING)
            for n in (1, 2)
        ]
    )

    assert 2 == len((await Reader(repository).list(text=last)).items)
    assert "AND" not in str(begins("task_id", last, repository.dialect))


async def test_many_names_with_one_prefix_are_found(repository: Repository) -> None:
    """More than are looked up one by one."""
    count = MAX_EACH + 5
    await repository.write(
        [
            Report(Origin(f"t{n}", f"name{n:03}", "m", NOW + n), Witness.SENT, TaskStatus.PENDING)
            for n in range(count)
        ]
    )
    reader = Reader(repository)

    assert [f"t{n}" for n in range(count - 1, -1, -1)] == await every(reader, text="name")
    assert [f"t{n}" for n in range(9, -1, -1)] == await every(reader, text="name00")
    names = [f"name{n:03}" for n in range(count)]
    assert count == len(await every(reader, task_name=names))


# ── counts ──────────────────────────────────────────────────────────────────────────────────────
async def test_a_count_stops_at_its_limit(repository: Repository) -> None:
    """Up to the limit it is exact, beyond it is the limit with a plus."""
    await repository.write(list(reports(20)))
    reader = Reader(repository)

    assert Count(20, is_exact=True) == await reader.count()
    assert Count(20, is_exact=True) == await reader.count(limit=20)
    assert Count(19, is_exact=False) == await reader.count(limit=19)
    assert ["20", "10,000+"] == [str(Count(20)), str(Count(10_000, is_exact=False))]
    for limit in (0, 10_001, True, "5"):
        with pytest.raises(InvalidQuery, match="from 1 to 10000"):
            await reader.count(limit=limit)
