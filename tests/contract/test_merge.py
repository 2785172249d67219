"""The merge rules: any order, any number of times, in Python, SQLite and PostgreSQL alike (R15)."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import replace
from itertools import permutations
from math import factorial
from random import Random
from typing import Any, Protocol

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from aiotrack.clock import Clock, to_micros
from aiotrack.recorder import GROUP
from aiotrack.report import History, Report
from aiotrack.repository.fold import attempt_row, execution_row
from aiotrack.repository.statements import ATTEMPT_COLUMNS, EXECUTION_COLUMNS, JSON, TIME
from aiotrack.repository.store import Repository
from tests.contract.catalogue import CATALOGUE, LONG, OUTCOMES
from tests.contract.histories import crowd, disorder, told
from tests.contract.oracle import ATTEMPTS_ONLY, Record, Row, expected

BOOKKEEPING = {"plain", "stamps"}
"""Columns that say how a row is kept, not what it says."""


# ── the oracle ──────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", OUTCOMES)
def test_the_oracle_says_what_a_person_expects(name: str) -> None:
    """The catalogue's histories end as written down by hand."""
    row = expected((CATALOGUE | LONG)[name]).execution

    assert OUTCOMES[name] == (row["status"], row["attempt"], row["runs"], row["duplicates"])


# ── Python ──────────────────────────────────────────────────────────────────────────────────────
@given(told())
@settings(max_examples=250)
def test_python_says_what_the_rules_say_after_every_report(reports: list[Report]) -> None:
    """`History` holds the oracle's record after every prefix of any order with repetitions."""
    history = History.of(reports[:1])
    for count, report in enumerate(reports, 1):
        history.add(report)

        assert expected(reports[:count]) == in_python(history)


@given(told())
@settings(max_examples=100)
def test_python_does_not_depend_on_the_order(reports: list[Report]) -> None:
    """The same reports in another order, some of them again, make the same record."""
    other = disorder(Random(len(reports)), reports)

    assert in_python(History.of(reports)) == in_python(History.of(other))


@given(told())
@settings(max_examples=100)
def test_a_success_is_never_undone(reports: list[Report]) -> None:
    """Once the success of a body is shown, only one that ended earlier takes its place."""
    history = History.of(reports[:1])
    before: Report | None = None
    for report in reports:
        history.add(report)
        shown = history.shown()
        if before is not None:
            assert "SUCCESS" == shown.status
            assert (shown.finished_at or 0) <= (before.finished_at or 0)
        before = shown if shown.status == "SUCCESS" and not shown.set_aside else None


# ── databases ───────────────────────────────────────────────────────────────────────────────────
BOUND = pytest.mark.timeout(120)
"""Seconds for what takes three on a free machine."""

SEEDS = st.integers(0, 2**32)
"""Many histories at once are made from a seed: quick, and short to tell when they fail."""

ONE_STORE = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # the drawn seed does not shrink
)


@BOUND
@given(SEEDS)
@ONE_STORE
async def test_a_database_says_what_the_rules_say_after_every_group(
    store: Store, seed: int
) -> None:
    """Groups of mixed tasks in any order, with repetitions, leave the oracle's records."""
    await agree(store, crowd(Random(seed)))


@pytest.mark.chaos
@pytest.mark.timeout(900)
@given(SEEDS)
@settings(ONE_STORE, max_examples=1000)
async def test_a_database_says_what_the_rules_say_for_long(store: Store, seed: int) -> None:
    """The same with thousands of histories."""
    await agree(store, crowd(Random(seed)))


@pytest.mark.no_cover
@BOUND
async def test_every_order_leaves_the_same_rows(store: Store) -> None:
    """All orders of up to five facts, each told twice, leave the oracle's record at every step."""
    for name, history in CATALOGUE.items():
        await agree(store, in_every_order(history, name))


@pytest.mark.chaos
@pytest.mark.timeout(900)
async def test_every_order_of_a_long_history_leaves_the_same_rows(store: Store) -> None:
    """All orders of six and seven facts, each told twice, leave the oracle's record."""
    for name, history in LONG.items():
        await agree(store, in_every_order(history, name))
        print(f"R15: {name}: {factorial(len(history)):,} orders, each fact twice, 0 differences")


async def test_one_group_may_tell_whole_histories(store: Store) -> None:
    """All that happened, in one group and in any order, leaves the oracle's records."""
    for number in range(20):
        group = []
        for name, history in (CATALOGUE | LONG).items():
            group += renamed(history, f"{name} {number}")
        await agree(store, [disorder(Random(number), group)])


@BOUND
@given(SEEDS)
@ONE_STORE
async def test_a_report_alone_says_what_it_says_in_company(store: Store, seed: int) -> None:
    """A group of one has a statement of its own: it leaves the oracle's records, too."""
    await agree(store, [[report] for group in crowd(Random(seed), 6) for report in group])


async def agree(store: Store, groups: Iterable[Sequence[Report]]) -> None:
    """Write *groups* and compare the rows of each one's tasks with the oracle's."""
    heard: dict[str, list[Report]] = {}
    for group in groups:
        for report in group:
            heard.setdefault(report.origin.task_id, []).append(report)
        await store.write(group)
        ids = sorted({report.origin.task_id for report in group})
        rows = await store.read(ids)
        for task_id in ids:
            assert expected(heard[task_id]) == rows.get(task_id), spoken(heard[task_id])


def in_every_order(history: Sequence[Report], name: str) -> Iterable[list[Report]]:
    """Tell *history* of as many tasks as it has orders, in step: a group for each step."""
    told = []
    for number, order in enumerate(permutations(history)):
        random = Random(number)
        sequence = list(order)
        for report in order:
            place = sequence.index(report)
            sequence.insert(random.randint(place + 1, len(sequence)), report)
        told.append(renamed(sequence, f"{name} {number}"))
    for step in zip(*told, strict=True):
        for first in range(0, len(step), GROUP):
            yield list(step[first : first + GROUP])


def renamed(history: Sequence[Report], task_id: str) -> list[Report]:
    """Give the same history of another task."""
    return [replace(report, origin=replace(report.origin, task_id=task_id)) for report in history]


def spoken(reports: Sequence[Report]) -> str:
    """Write reports so that a failure can be repeated by hand."""
    return "\n".join(map(repr, reports))


# ── what is stored, without the reading half of the repository ──────────────────────────────────
class Store(Protocol):
    """A repository to write to, and the raw rows that are there."""

    async def write(self, reports: Sequence[Report]) -> None:
        """Commit a group."""

    async def read(self, ids: list[str]) -> dict[str, Record]:
        """Read what is known of some tasks."""


class SqliteStore:
    """A repository on SQLite, read through the standard library."""

    def __init__(self, repository: Repository, path: str) -> None:
        self.write = repository.write
        self._raw = sqlite3.connect(path)
        self._raw.row_factory = sqlite3.Row
        self.close = self._raw.close

    async def read(self, ids: list[str]) -> dict[str, Record]:
        """Read what is known of some tasks."""
        marks = ",".join("?" * len(ids))
        return records(
            *(
                self._raw.execute(f"SELECT * FROM {table} WHERE task_id IN ({marks})", ids)
                for table in ("aiotrack_executions", "aiotrack_attempts")
            )
        )


class PostgresStore:
    """A repository on PostgreSQL, read through the bare driver."""

    def __init__(self, repository: Repository, raw: asyncpg.Connection) -> None:
        self.write = repository.write
        self._raw = raw

    async def read(self, ids: list[str]) -> dict[str, Record]:
        """Read what is known of some tasks."""
        return records(
            *[
                await self._raw.fetch(f"SELECT * FROM {table} WHERE task_id = ANY($1)", ids)
                for table in ("aiotrack_executions", "aiotrack_attempts")
            ]
        )


@pytest.fixture
async def store(empty_database_url: str, caplog: Any) -> AsyncIterator[Store]:
    """Each database in turn; a report that it refused fails the test."""
    url = make_url(empty_database_url)
    repository = Repository(empty_database_url, clock=Clock())
    await repository.connect()
    try:
        if url.get_backend_name() == "sqlite":
            kept = SqliteStore(repository, str(url.database))
            yield kept
            kept.close()
        else:
            plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
            raw = await asyncpg.connect(plain)
            yield PostgresStore(repository, raw)
            await raw.close()
    finally:
        await repository.close()

    assert [] == [entry.message for entry in caplog.records if entry.levelno >= logging.WARNING]


def records(executions: Iterable[Any], attempts: Iterable[Any]) -> dict[str, Record]:
    """Decode raw rows; the one run of a plain row is its own."""
    items: dict[str, dict[str, Row]] = {}
    for raw in attempts:
        row = decoded(raw, ATTEMPT_COLUMNS)
        items.setdefault(row.pop("task_id"), {})[row["run_id"]] = row
    found = {}
    for raw in executions:
        row = decoded(raw, EXECUTION_COLUMNS)
        own = items.get(row["task_id"], {})
        if row["plain"]:
            assert {} == own
            if row["run_id"]:
                own = {row["run_id"]: run_of(row)}
        for name in BOOKKEEPING:
            del row[name]
        found[row["task_id"]] = Record(row, own)
    return found


def run_of(row: Row) -> Row:
    """Give the attempt that a plain row stands for."""
    run = {name: row[name] for name in ATTEMPT_COLUMNS if name in row and name != "task_id"}
    return run | {"requeues": 0, "set_aside": False}


def decoded(raw: Any, columns: dict[str, str]) -> Row:
    """Read a raw row: JSON as values, times as microseconds, SQLite's 0 and 1 equal booleans."""
    row = {name: raw[name] for name in columns}
    for name, kind in columns.items():
        value = row[name]
        if kind == JSON and isinstance(value, str):
            row[name] = json.loads(value)
        elif kind == TIME and value is not None and not isinstance(value, int):
            row[name] = to_micros(value)
    return row


def in_python(history: History) -> Record:
    """Give the record that a history in memory makes."""
    row = decoded(execution_row(history), EXECUTION_COLUMNS)
    for name in BOOKKEEPING:
        del row[name]
    items = {}
    for run_id, item in history.items.items():
        items[run_id] = decoded(attempt_row("", item), ATTEMPT_COLUMNS)
        del items[run_id]["task_id"]
        assert set(ATTEMPTS_ONLY) <= set(items[run_id])
    return Record(row, items)
