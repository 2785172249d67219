"""Lists page by page, on both databases."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from aiotrack.clock import Clock
from aiotrack.errors import InvalidQuery
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import ExecutionRow, Repository
from aiotrack.repository.cursor import COLUMNS
from aiotrack.repository.read import Reader

pytestmark = pytest.mark.usefixtures("patience")

NOW = 1_700_000_000_000_000
"""Microseconds; any moment would do."""

ORDERS = [f"{sign}{column}" for column in COLUMNS for sign in ("", "-")]


def sent(task_id: str = "a", created_at: int = NOW, module: str = "shop") -> Report:
    """Tell that a task was sent."""
    origin = Origin(task_id, "shop.mail:send", module, created_at)
    return Report(origin, Witness.SENT, TaskStatus.PENDING)


def ran(report: Report, finished_at: int, duration: float | None = 0.25) -> Report:
    """Tell that what was sent ran to its end."""
    return Report(
        report.origin,
        Witness.ENDED,
        TaskStatus.SUCCESS,
        run_id="r1",
        started_at=NOW,
        finished_at=finished_at,
        duration=duration,
    )


@pytest.fixture
async def repository(database_url: str) -> AsyncIterator[Repository]:
    """An open repository."""
    repository = Repository(database_url, clock=Clock())
    yield repository
    await repository.close()


@pytest.fixture
def reader(repository: Repository) -> Reader:
    """A reader of it."""
    return Reader(repository)


async def every(reader: Reader, *, limit: int = 500, **query) -> list[str]:
    """Give the task_ids of all pages."""
    found, after = [], None
    while True:
        page = await reader.list(limit=limit, after=after, **query)
        found += [item.task_id for item in page.items]
        after = page.next
        if after is None:
            return found


async def test_the_newest_come_first(repository, reader):
    """Without an order a list begins with the latest creation, and 50 make a page."""
    await repository.write([sent(f"{n:03}", created_at=NOW + n) for n in range(51)])

    page = await reader.list()
    rest = await reader.list(after=page.next)

    assert [f"{n:03}" for n in range(50, 0, -1)] == [item.task_id for item in page.items]
    assert ["000"] == [item.task_id for item in rest.items]
    assert rest.next is None


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 2),
            st.none() | st.tuples(st.integers(0, 2), st.none() | st.sampled_from([0.1, 0.3, 1e-9])),
        ),
        max_size=12,
    ),
    limit=st.integers(1, 5),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_pages_hold_every_row_once_in_order(repository, reader, rows, limit, fresh_name):
    """In every order, with ties and without values, pages joined are the rows sorted."""
    module = next(fresh_name)
    reports = []
    for number, (created, ended) in enumerate(rows):
        report = sent(f"{module}-{number}", NOW + created, module)
        reports.append(report if ended is None else ran(report, NOW + ended[0], ended[1]))
    await repository.write(reports)
    items = (await reader.list(module=module, limit=500)).items

    assert len(rows) == len(items)
    for order in ORDERS:
        assert in_order(items, order) == await every(
            reader, module=module, order=order, limit=limit
        )


def in_order(items, order: str) -> list[str]:
    """Sort in Python: by value, then id; those without a value last."""
    column = order.lstrip("-")
    known = [item for item in items if getattr(item, column) is not None]
    unknown = [item for item in items if getattr(item, column) is None]
    down = order.startswith("-")
    known.sort(key=lambda item: (getattr(item, column), item.id), reverse=down)
    unknown.sort(key=lambda item: item.id, reverse=down)
    return [item.task_id for item in known + unknown]


@pytest.fixture
def fresh_name():
    """Names that differ from example to example."""
    return iter(f"m{number}" for number in range(10_000))


@pytest.mark.parametrize("order", ORDERS)
async def test_pages_agree_on_both_databases(repository, reader, order):
    """Ties and missing values, cut at every place."""
    await repository.write(
        [
            *(sent(f"s{n}", created_at=NOW + n // 2) for n in range(4)),
            *(ran(sent(f"r{n}", NOW + n // 2), NOW + n // 3) for n in range(6)),
        ]
    )
    items = (await reader.list()).items

    assert 10 == len(items)
    for limit in (1, 3, 10):
        assert in_order(items, order) == await every(reader, order=order, limit=limit)


async def test_rows_that_arrive_between_pages_do_not_move_the_others(repository, reader):
    """The cursor is a position, not a count."""
    await repository.write([sent(f"{n}", created_at=NOW + n) for n in range(4)])
    page = await reader.list(limit=2)
    await repository.write([sent("new", created_at=NOW + 100)])

    rest = await reader.list(limit=2, after=page.next)

    assert ["1", "0"] == [item.task_id for item in rest.items]


async def test_a_cursor_continues_only_its_own_list(repository, reader):
    """Another order or another filter is refused; another page size is not."""
    await repository.write([sent(f"{n}", created_at=NOW + n) for n in range(4)])
    after = (await reader.list(limit=1, module=["shop", "b"])).next

    with pytest.raises(InvalidQuery, match="other filters"):
        await reader.list(after=after)
    with pytest.raises(InvalidQuery, match="order"):
        await reader.list(module=["shop", "b"], after=after, order="created_at")
    assert 3 == len((await reader.list(module=["b", "shop"], after=after, limit=9)).items)


@pytest.mark.parametrize("limit", [0, -1, 1001, True, 2.0, "5", None, 2**70])
async def test_a_limit_is_1_to_1000(reader, limit):
    """Anything else is refused, and so are booleans."""
    with pytest.raises(InvalidQuery, match="from 1 to 1000"):
        await reader.list(limit=limit)


async def test_an_unknown_filter_is_a_type_error(reader):
    """A misspelt keyword must not show everything."""
    with pytest.raises(TypeError, match="'modul'"):
        await reader.list(modul="shop")


@pytest.mark.parametrize("order", ["-created_at", "created_at"])
async def test_page_10_000_costs_what_page_1_costs(repository, reader, order):
    """The default list walks the index from the cursor on, on both databases."""
    await repository.write([sent()])
    await multiply(repository, 20_000)
    statements = []
    event.listen(
        repository._reads.sync_engine,
        "before_cursor_execute",
        lambda _1, _2, statement, values, *_: statements.append((statement, values)),
    )
    page = await reader.list(order=order)
    await reader.list(order=order, after=page.next)

    statement, values = statements[-1]
    async with repository.engine.connect() as connection:
        words = "EXPLAIN" if repository.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
        found = await connection.exec_driver_sql(f"{words} {statement}", values)
        plan = "\n".join(str(line[-1]) for line in found)

    assert "ix_aiotrack_executions_created_at_id" in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan


async def multiply(repository: Repository, count: int) -> None:
    """Copy the only row *count* times, each a second later than the one before."""
    postgres = repository.dialect == "postgresql"
    second = "interval '1 second'" if postgres else "1000000"
    async with repository.engine.begin() as connection:
        every = ExecutionRow.__table__.c.keys()
        rest = ", ".join(name for name in every if name not in {"id", "task_id", "created_at"})
        await connection.execute(
            text(
                f"INSERT INTO aiotrack_executions (task_id, created_at, {rest}) "
                f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})"
                f" SELECT 'x' || i, created_at + i * {second}, {rest} FROM n, aiotrack_executions"
            )
        )
        await connection.execute(text("ANALYZE aiotrack_executions"))
