"""The audit: what it keeps, finds and forgets."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from aiotrack import (
    AuditEntry,
    InvalidQuery,
    InvalidSetting,
    InvalidValue,
    Settings,
    StoreUnavailable,
    Tracker,
)
from aiotrack.model import LASTING
from aiotrack.repository.control.audit import Audit
from aiotrack.repository.control.tables import AuditRow

CANARY = "c4n4ry-in-the-audit"

NOTHING = {"action": "a", "target": "t", "actor": None, "reason": None}


async def fill(tracker: Tracker, *rows: dict[str, Any]) -> None:
    """Leave rows of any age; ``days`` is how old each is."""
    now = datetime.now(UTC)
    made = [
        NOTHING | {"at": now - timedelta(days=row.pop("days", 0)), **row}
        for row in ({**row} for row in rows)
    ]
    await tracker.core().repository.connect()
    async with tracker.core().repository.engine.begin() as connection:
        await connection.execute(insert(AuditRow.__table__), made)


async def told(tracker: Tracker, **filters: Any) -> list[str]:
    """Give the targets of all rows that match, walking through pages of two."""
    found: list[str] = []
    after = None
    while True:
        page = await tracker.audit.list(limit=2, after=after, **filters)
        found += [one.target for one in page.items]
        after = page.next
        if after is None:
            return found


async def test_a_row_says_who_did_what_and_why(tracker: Tracker) -> None:
    """All of it comes back, the newest first."""
    begun = datetime.now(UTC) - timedelta(seconds=5)
    await tracker.audit.append("invoice.open", "invoice:7")
    await tracker.audit.append(
        "invoice.pay", "invoice:7", by=42, reason="late", before={"paid": 0}, after={"paid": 10.5}
    )

    last, first = (await tracker.audit.list()).items

    assert begun < first.at <= last.at < datetime.now(UTC) + timedelta(seconds=5)
    assert (
        AuditEntry(
            at=last.at,
            actor="42",
            action="invoice.pay",
            target="invoice:7",
            reason="late",
            before={"paid": 0},
            after={"paid": 10.5},
        )
        == last
    )
    assert AuditEntry(at=first.at, action="invoice.open", target="invoice:7") == first


async def test_filters_and_pages(tracker: Tracker) -> None:
    """Each filter alone, all together, and over pages; rows of one moment are not lost."""
    await fill(
        tracker,
        *(
            {"actor": f"u{n % 2}", "action": f"a{n % 3}", "target": f"t{n}", "days": n // 3}
            for n in range(9)
        ),
    )

    assert ["t2", "t1", "t0", "t5", "t4", "t3", "t8", "t7", "t6"] == await told(tracker)
    assert ["t1", "t5", "t3", "t7"] == await told(tracker, actor="u1")
    assert ["t1", "t4", "t7"] == await told(tracker, action="a1")
    assert ["t4"] == await told(tracker, target="t4")
    assert ["t1", "t7"] == await told(tracker, actor="u1", action="a1")
    assert ["t2", "t1", "t0"] == await told(tracker, since=timedelta(hours=1))
    at = datetime.now(UTC) - timedelta(days=1, hours=1)
    assert ["t8", "t7", "t6"] == await told(tracker, until=at)
    assert ["t5", "t4", "t3"] == await told(tracker, since=at, until=timedelta(hours=1))
    assert [] == await told(tracker, actor="nobody")


@pytest.mark.parametrize("text", ["nul \0", "half \ud800", "password=" + CANARY, "x" * 5000])
async def test_odd_names_are_found_as_they_were_given(tracker: Tracker, text: str) -> None:
    """They are stored in a safe form, and asked for in the same."""
    await tracker.audit.append(text, text, by=text, reason=text)

    for key in ("actor", "action", "target"):
        (found,) = (await tracker.audit.list(**{key: text})).items
        assert CANARY not in str(found)


async def test_secrets_are_not_kept(tracker: Tracker) -> None:
    """By name and by shape, at any depth; values of any kind are bounded."""
    secret = {"password": CANARY, "deep": [{"token": CANARY}], "url": f"redis://u:{CANARY}@h/0"}
    await tracker.audit.append(
        "x", "y", reason=f"api_key={CANARY}", before=secret, after={"o": object(), "n": "x" * 10**6}
    )

    (found,) = (await tracker.audit.list()).items
    assert CANARY not in str(found)
    assert 70_000 > len(str(found))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"limit": 0}, InvalidQuery),
        ({"limit": 1001}, InvalidQuery),
        ({"limit": 10**30}, InvalidQuery),
        ({"limit": True}, InvalidQuery),
        ({"after": "nonsense"}, InvalidQuery),
        ({"after": "x" * 10**6}, InvalidQuery),
        ({"since": "yesterday"}, InvalidQuery),
        ({"since": datetime(2026, 1, 1)}, InvalidValue),  # noqa: DTZ001 - that is the point
    ],
)
async def test_what_cannot_be_asked(
    tracker: Tracker, options: dict[str, Any], error: type[Exception]
) -> None:
    """An error that says so."""
    with pytest.raises(error):
        await tracker.audit.list(**options)


async def test_a_cursor_of_another_list(tracker: Tracker) -> None:
    """It continues only what it began."""
    await fill(tracker, {"target": "a"}, {"target": "b"})
    after = (await tracker.audit.list(limit=1)).next
    for name in "ab":
        await tracker.definitions.create(name=name, task_type="x")
    definitions = (await tracker.definitions.list(limit=1)).next

    with pytest.raises(InvalidQuery, match="other filters"):
        await tracker.audit.list(limit=1, after=after, actor="x")
    with pytest.raises(InvalidQuery, match="no cursor"):
        await tracker.audit.list(limit=1, after=definitions)
    assert ["a"] == [one.target for one in (await tracker.audit.list(limit=1, after=after)).items]


async def test_an_append_never_raises(
    tracker: Tracker, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    """What was done is done: that nobody knows of it is logged."""
    away = Tracker("postgresql+asyncpg://nobody:secret-word@127.0.0.1:1/none")

    with caplog.at_level(logging.ERROR):
        await away.audit.append("x", "y")
    await away.shutdown()

    assert "the audit does not know" in caplog.text
    assert "secret-word" not in caplog.text
    with pytest.raises(StoreUnavailable):
        await Tracker(f"sqlite+aiosqlite:///{tmp_path}").audit.list()


async def test_old_rows_go_with_the_clean_up(tracker: Tracker, database_url: str) -> None:
    """After a year by default; they are no executions, and not counted."""
    await fill(tracker, {"target": "old", "days": 366}, {"target": "young", "days": 364})

    assert 0 == await tracker.cleanup()
    assert ["young"] == await told(tracker)

    async with Tracker(database_url, settings={"audit_retention_days": -1}) as keeper:
        await fill(keeper, {"target": "kept", "days": 3000})
        await keeper.cleanup()
        assert ["young", "kept"] == await told(keeper)
    async with Tracker(database_url, settings={"audit_retention_days": 0}) as forgetter:
        await forgetter.cleanup()
        assert [] == await told(forgetter)


async def test_many_old_rows_go_in_steps(tracker: Tracker) -> None:
    """More than one piece of them."""
    await fill(tracker, *({"target": f"t{n}", "days": 400} for n in range(450)), {"target": "new"})

    await tracker.cleanup()

    assert ["new"] == await told(tracker)


async def test_the_last_word_on_a_schedule_stays(tracker: Tracker) -> None:
    """Schedules are made anew from it; what came before it goes."""
    word = {"days": 500, "target": "definition:1"}
    await fill(
        tracker,
        word | {"action": "schedule.start", "reason": "first"},
        word | {"action": "schedule.pause", "reason": "last"},
        word | {"action": "schedule.trigger"},
        word | {"action": "definition.create"},
        {"days": 500, "target": "definition:2", "action": "schedule.start", "reason": "old"},
        {"days": 1, "target": "definition:2", "action": "schedule.stop", "reason": "new"},
    )

    await tracker.cleanup()
    found = (await tracker.audit.list()).items

    assert ["new", "last"] == [one.reason for one in found]
    kept = await Audit(tracker.core().repository).last_of(LASTING, ["definition:1", "definition:2"])
    assert ["last", "new"] == [kept[f"definition:{n}"].reason for n in (1, 2)]


def test_the_setting_has_a_range() -> None:
    """-1 is never."""
    assert 365 == Settings().audit_retention_days
    with pytest.raises(InvalidSetting, match="audit_retention_days"):
        Settings(audit_retention_days=-2)
