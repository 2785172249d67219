"""What travels with a message: labels of every kind, odd ids, and what `tracking` hands on."""

from __future__ import annotations

import datetime as dt
import logging
import math
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from taskiq import InMemoryBroker, TaskiqMessage

from aiotrack import (
    InvalidValue,
    TaskStatus,
    Tracker,
    TrackerMiddleware,
    current_execution,
    tracking,
)
from aiotrack.labels import PRIORITIES
from tests.integration.bench import bench

INPLACE = pytest.mark.parametrize("inplace", [False, True], ids=["plain", "inplace"])


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Tracker]:
    """A tracker on SQLite, for what does not depend on the database."""
    async with Tracker(sqlite_url) as tracker:
        yield tracker


# ── labels ──────────────────────────────────────────────────────────────────────────────────────
ODD_LABELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "created_by int": ({"created_by": 42}, {"created_by": "42"}),
    "created_by None": ({"created_by": None}, {"created_by": None}),
    "created_by bytes": ({"created_by": b"ada"}, {"created_by": "YWRh"}),
    "created_by True": ({"created_by": True}, {"created_by": "True"}),
    "created_by float": ({"created_by": 1e3}, {"created_by": "1000.0"}),
    "created_by empty": ({"created_by": ""}, {"created_by": ""}),
    "created_by NUL": ({"created_by": "a\x00b"}, {"created_by": "a\u2400b"}),
    "created_by emoji": ({"created_by": "\U0001f600"}, {"created_by": "\U0001f600"}),
    "created_by list": ({"created_by": [1]}, {"created_by": "[1]"}),
    "module None": ({"module": None}, {"module": "shop"}),
    "module int": ({"module": 5}, {"module": "5"}),
    "priority word": ({"priority": "high"}, {"priority": 8}),
    "priority no word": ({"priority": "asap"}, {"priority": None}),
    "priority text": ({"priority": "7"}, {"priority": 7}),
    "priority below zero": ({"priority": -3}, {"priority": -3}),
    "priority huge": ({"priority": 10**30}, {"priority": None}),
    "priority 2**40": ({"priority": 2**40}, {"priority": None}),
    "priority float": ({"priority": 3.7}, {"priority": None}),
    "priority inf": ({"priority": float("inf")}, {"priority": None}),
    "priority nan": ({"priority": float("nan")}, {"priority": None}),
    "priority None": ({"priority": None}, {"priority": None}),
    "queue": ({"queue": "gpu"}, {"queue": "gpu"}),
    "queue_name": ({"queue_name": "slow"}, {"queue": "slow"}),
    "metadata JSON": ({"aiotrack_metadata": '{"a": [1]}'}, {"metadata": {"a": [1]}}),
    "metadata dict": (
        {"aiotrack_metadata": {"a": 1, "b": [None, True]}},
        {"metadata": {"a": 1, "b": [None, True]}},
    ),
    "metadata of objects": (
        {
            "aiotrack_metadata": {
                "when": dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC),
                "there": dt.datetime(2026, 1, 2, tzinfo=dt.timezone(dt.timedelta(hours=-2))),
                "zone": dt.datetime(2026, 1, 2, tzinfo=ZoneInfo("Europe/Berlin")),
                "day": [dt.date(2026, 1, 2), (1, dt.time(4, 5))],
                "id": uuid.UUID(int=7),
                "price": {"net": Decimal("1.50")},
                "low": -math.inf,
                "path": PurePosixPath("/a"),
                "k": 1,
            }
        },
        {
            "metadata": {
                "when": "2026-01-02T03:00:00+00:00",
                "there": "2026-01-02T00:00:00-02:00",
                "zone": "datetime.datetime(2026, 1, 2, 0, 0, "
                "tzinfo=zoneinfo.ZoneInfo(key='Europe/Berlin'))",
                "day": ["2026-01-02", [1, "04:05:00"]],
                "id": "00000000-0000-0000-0000-000000000007",
                "price": {"net": "1.50"},
                "low": {"$float": "-Infinity"},
                "path": "PurePosixPath('/a')",
                "k": 1,
            }
        },
    ),
    "metadata object": ({"aiotrack_metadata": {"a": 1, "b": re.compile}}, {"metadata": {}}),
    "metadata no values": (
        {
            "aiotrack_metadata": (
                "{'a': UUID(5), 'b': {**c}, [1]: exit(), 'd': datetime.date(0, 0, 0)}"
            )
        },
        {
            "metadata": {
                "a": "UUID(5)",
                "b": "{**c}",
                "[1]": "exit()",
                "d": "datetime.date(0, 0, 0)",
            }
        },
    ),
    "metadata list": ({"aiotrack_metadata": [1]}, {"metadata": {}}),
    "metadata int": ({"aiotrack_metadata": 5}, {"metadata": {}}),
    "metadata text": ({"aiotrack_metadata": "x"}, {"metadata": {}}),
    "metadata deep": ({"aiotrack_metadata": "[" * 100_000}, {"metadata": {}}),
    "metadata code": ({"aiotrack_metadata": "__import__('os')"}, {"metadata": {}}),
    "created_at word": ({"aiotrack_created_at": "yesterday"}, {}),
    "created_at far": ({"aiotrack_created_at": str(2**61)}, {}),
    "created_at below zero": ({"aiotrack_created_at": str(-(10**17))}, {}),
    "created_at tomorrow": ({"aiotrack_created_at": str(time.time_ns() // 1000 + 10**11)}, {}),
    "created_at 9999": ({"aiotrack_created_at": "253402300799000000"}, {}),
    "created_at inf": ({"aiotrack_created_at": float("inf")}, {}),
    "config huge": ({"aiotrack_config_id": 10**30}, {"config_id": None}),
    "config": ({"aiotrack_config_id": 12}, {"config_id": 12}),
    "retries word": ({"_retries": "many"}, {"attempt": 1}),
    "retries huge": ({"_retries": 10**12}, {"attempt": 1}),
    "requeues word": ({"X-Taskiq-requeue": "x"}, {"attempt": 1}),
    "schedule None": ({"schedule_id": None}, {"schedule_id": None}),
    "schedule": ({"schedule_id": 9}, {"schedule_id": "9"}),
    "track yes": ({"track": True}, {}),
    "track None": ({"track": None}, {}),
    "own": ({"nothing of ours": object}, {}),
}


@pytest.mark.parametrize("name", ODD_LABELS)
@INPLACE
async def test_a_label_of_any_kind_leaves_a_whole_record(
    tracker: Tracker, name: str, inplace: bool
) -> None:
    """Labels that mean nothing are left out; the rest of the record is there all the same."""
    labels, expected = ODD_LABELS[name]
    async with bench(tracker, inplace=inplace) as b:

        @b.task("shop.ok")
        async def ok(value: int, *, note: str) -> int:
            return value

        record = await b.run(ok.kicker().with_labels(**labels), 1, note="x")

    told = {field: getattr(record, field) for field in expected}
    whole = (record.status, record.args, record.kwargs, record.result)
    assert (TaskStatus.SUCCESS, [1], {"note": "x"}, 1) == whole
    assert expected == told
    assert dt.timedelta(minutes=1) > dt.datetime.now(dt.UTC) - record.created_at


async def test_metadata_that_cannot_be_read_is_told_once(
    small: Tracker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it holds is not: neither side sees more than the text that TaskIQ makes of it."""
    monkeypatch.setattr("aiotrack.labels._complained", set())
    async with bench(small) as b:
        task = b.task("shop.ok")(_double)
        with caplog.at_level(logging.WARNING, "aiotrack"):
            for given in (None, "", {"a": 1}, {"secret": object()}, {"secret": object()}, 5):
                await b.run(task.kicker().with_labels(aiotrack_metadata=given), 1)

    told = [one.getMessage() for one in caplog.records if one.name.startswith("aiotrack.labels")]
    assert 1 == len(told)
    assert "aiotrack_metadata" in told[0]
    assert "secret" not in told[0]


async def test_a_lone_label_counts_before_the_clock_is_known(sqlite_url: str) -> None:
    """A database that is away tells no time, and so no label of ours is beside it."""
    middleware = TrackerMiddleware(Tracker(sqlite_url))
    InMemoryBroker().add_middlewares(middleware)
    message = TaskiqMessage(
        task_id="x", task_name="a:b", labels={"priority": "high"}, args=[], kwargs={}
    )

    assert PRIORITIES["high"] == middleware.hold(message).origin.priority


@pytest.mark.parametrize("labels", [{"track": False}, {"track": "false"}])
@INPLACE
async def test_a_task_with_track_false_is_not_recorded(
    small: Tracker, inplace: bool, labels: dict[str, Any]
) -> None:
    """The body runs, knows no execution, and leaves no record, however it ends."""
    seen: list[object] = []
    async with bench(small, inplace=inplace) as b:

        @b.task("shop.private", **labels)
        async def private(fails: bool) -> None:
            seen.append(current_execution())
            await small.progress(50)
            if fails:
                raise ValueError

        await private.kiq(fails=False)
        await private.kiq(fails=True)
        await b.settle()
        stats = await small.stats()

    assert [None, None] == seen
    assert 0 == stats.total


@INPLACE
async def test_arguments_and_results_can_be_left_out(small: Tracker, inplace: bool) -> None:
    """By the middleware's options, or by a task's own labels."""
    async with bench(small, inplace=inplace, record_args=False, record_result=False) as b:
        record = await b.run(b.task("shop.ok")(_double), 21)
    async with bench(small, inplace=inplace) as b:
        task = b.task("shop.ok", record_args=False, record_result=False)(_double)
        by_label = await b.run(task, 21)

    assert ([], {}, None) == (record.args, record.kwargs, record.result)
    assert ([], {}, None) == (by_label.args, by_label.kwargs, by_label.result)
    assert record.is_success
    assert by_label.is_success


async def _double(value: int) -> int:
    return 2 * value


@INPLACE
async def test_secrets_are_redacted_by_name_and_position(small: Tracker, inplace: bool) -> None:
    """A password is not stored, also when it came by position, nor what `redact` names."""
    async with bench(small, inplace=inplace, redact=["card*", re.compile("^iban$")]) as b:

        @b.task("shop.login")
        async def login(user: str, password: str, *, card_number: str, iban: str) -> str:
            return "in"

        record = await b.run(login, "ada", "hunter2", card_number="4111-1111", iban="DE00")
        rows = str((await small.list(text="shop.login")).items)

    assert "ada" == record.args[0]
    assert {"card_number", "iban"} == set(record.kwargs)
    assert not [word for word in ("hunter2", "4111-1111", "DE00") if word in rows]


@INPLACE
async def test_a_name_is_no_secret_behind_its_colon(small: Tracker, inplace: bool) -> None:
    """What names a task, a person or a queue stays apart from its like; URLs hide passwords."""
    async with bench(small, inplace=inplace) as b:

        @b.task("shop.token:refresh", queue="auth:eu", schedule_id="secret:7")
        async def work() -> None: ...

        labels = {"created_by": "auth:ada", "module": "pass:desk"}
        record = await b.run(work.kicker().with_labels(**labels))
        other = await b.run(work.kicker().with_labels(created_by="db://ada:hunter2@db"))
        found = await small.list(task_name="shop.token:refresh", created_by="auth:ada")

    assert ("shop.token:refresh", "auth:ada", "pass:desk", "auth:eu", "secret:7") == (
        record.task_name,
        record.created_by,
        record.module,
        record.queue,
        record.schedule_id,
    )
    assert [record.id] == [one.id for one in found.items]
    assert "db://ada:[redacted]@db" == other.created_by


@INPLACE
async def test_names_that_the_tracker_learns_later_are_redacted_too(
    small: Tracker, inplace: bool
) -> None:
    """`Tracker.redact` after the middleware was made holds for messages, as for `register`."""
    async with bench(small, inplace=inplace, redact="pin") as b:

        @b.task("shop.pay")
        async def pay(card: str, *, iban: str, pin: str) -> dict[str, str]:
            return {"iban": iban, "card": card}

        small.redact(["iban", "card"])
        record = await b.run(pay, "4111-1111", iban="DE00", pin="0000")
        registered = await small.register("x", "shop.pay", kwargs={"iban": "DE00", "pin": "0000"})

    rows = str((record, registered))
    assert {"iban", "pin"} == set(record.kwargs)
    assert not [word for word in ("4111-1111", "DE00", "0000'") if word in rows]


# ── module ──────────────────────────────────────────────────────────────────────────────────────
def _first_letter(name: str) -> str:
    return name[0]


def _raises(name: str) -> str:
    raise LookupError(name)


MODULES: dict[str, tuple[str | Callable[[str], str] | None, dict[str, Any], str]] = {
    "by name": (None, {}, "shop"),
    "by label": (None, {"module": "post"}, "post"),
    "by option": ("billing", {}, "billing"),
    "by function": (_first_letter, {}, "s"),
    "label before option": ("billing", {"module": "post"}, "post"),
    "function that raises": (_raises, {}, "shop"),
    "function of nothing": (lambda _: None, {}, "shop"),  # type: ignore[dict-item, return-value]
    "function of no text": (lambda _: 5, {}, "5"),  # type: ignore[dict-item, return-value]
}


@pytest.mark.parametrize("name", MODULES)
async def test_the_module_is_that_of_label_option_or_name(small: Tracker, name: str) -> None:
    """A label comes first, then the option (text or function), then the task's name."""
    option, labels, expected = MODULES[name]
    async with bench(small, module=option) as b:
        record = await b.run(b.task("shop.orders:ok", **labels)(_double), 1)

    assert (expected, TaskStatus.SUCCESS) == (record.module, record.status)


# ── tracking ────────────────────────────────────────────────────────────────────────────────────
@INPLACE
async def test_tracking_blocks_nest_and_merge(tracker: Tracker, inplace: bool) -> None:
    """The inner block wins, metadata is merged key by key, and labels win over both."""
    async with bench(tracker, inplace=inplace) as b:
        plain = b.task("shop.plain")(_double)
        own = b.task("shop.own", module="post", aiotrack_metadata='{"b": 9}')(_double)
        with tracking(created_by=1, module="outer", metadata={"a": 1, "b": {"x": 1}}, parent=77):
            outer = await b.run(plain, 1)
            with tracking(created_by="two", metadata={"b": 2, "c": None}):
                inner, labelled = await b.run(plain, 1), await b.run(own, 1)
            again = await b.run(plain, 1)
        outside = await b.run(plain, 1)

    told = [
        (one.created_by, one.module, one.metadata, one.parent_task_id)
        for one in (outer, inner, labelled, again, outside)
    ]
    assert told == [
        ("1", "outer", {"a": 1, "b": {"x": 1}}, "77"),
        ("two", "outer", {"a": 1, "b": 2, "c": None}, "77"),
        ("two", "post", {"a": 1, "b": 9, "c": None}, "77"),
        ("1", "outer", {"a": 1, "b": {"x": 1}}, "77"),
        (None, "shop", {}, None),
    ]


@INPLACE
async def test_the_parent_is_the_run_that_sends(small: Tracker, inplace: bool) -> None:
    """A task that a task sends has it as its parent, unless `tracking` names another."""
    ids: list[str] = []
    async with bench(small, inplace=inplace) as b:
        child = b.task("shop.child")(_double)

        @b.task("shop.parent")
        async def parent() -> None:
            ids.append((await child.kiq(1)).task_id)
            with tracking(parent="elsewhere"):
                ids.append((await child.kiq(2)).task_id)

        record = await b.run(parent)
        parents = [(await small.get(task_id)).parent_task_id for task_id in ids]

    assert [record.task_id, "elsewhere"] == parents
    assert record.parent_task_id is None


@INPLACE
async def test_a_run_that_begins_in_a_block_is_the_nearer_parent(
    small: Tracker, inplace: bool
) -> None:
    """The block's parent is that of the run; what the run says itself counts in it alone."""
    ids: list[str] = []
    async with bench(small, inplace=inplace) as b:
        child = b.task("shop.child")(_double)

        async def send() -> None:
            with tracking(created_by="me"):
                ids.append((await child.kiq(1)).task_id)
            with tracking(parent="elsewhere"):
                ids.append((await child.kiq(2)).task_id)
                async with small.track("shop.inner") as inner:
                    ids.extend([inner.task_id, (await child.kiq(3)).task_id])
                ids.append((await child.kiq(4)).task_id)

        with tracking(parent="outer", module="kept"):
            record = await b.run(b.task("shop.parent")(send))
            async with small.track("shop.own") as own:
                await send()
            ids.append((await child.kiq(5)).task_id)
        await b.settle()
        children = [await small.get(task_id) for task_id in ids]
        own_record = await small.get(own.task_id)

    def parents(of: str, inner: str) -> list[str]:
        return [of, "elsewhere", "elsewhere", inner, "elsewhere"]

    told = [one.parent_task_id for one in children]
    expected = [*parents(record.task_id, ids[2]), *parents(own.task_id, ids[7]), "outer"]
    assert expected == told
    assert ("outer", "outer") == (record.parent_task_id, own_record.parent_task_id)
    assert {"kept"} == {one.module for one in children[5:]}


async def test_tracking_never_makes_a_message_unreadable(small: Tracker) -> None:
    """Metadata put over a label that TaskIQ typed as a number still reaches the worker."""
    async with bench(small) as b:
        task = b.task("shop.ok", aiotrack_metadata=5)(_double)
        with tracking(metadata={"order_id": 7}):
            record = await b.run(task, 1)

    assert ({"order_id": 7}, TaskStatus.SUCCESS) == (record.metadata, record.status)


async def test_tracking_takes_values_that_json_does_not_know(small: Tracker) -> None:
    """Metadata is stored in a safe form, whatever its values are; the send never fails."""
    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    cyclic: dict[str, Any] = {}
    cyclic["self"] = cyclic
    odd = {
        "at": moment,
        "none": None,
        "set": {1},
        "object": object(),
        "cyclic": cyclic,
        "s": "\ud800",
    }
    async with bench(small) as b:
        with tracking(metadata={**odd, "password": "hunter2"}):
            record = await b.run(b.task("shop.ok")(_double), 1)

    assert TaskStatus.SUCCESS is record.status
    assert {*odd, "password"} == set(record.metadata)
    assert moment == dt.datetime.fromisoformat(record.metadata["at"])
    assert "hunter2" not in str(record.metadata)


@pytest.mark.parametrize(
    "wrong", [{"durability": "perhaps"}, {"metadata": [1]}, {"metadata": "text"}]
)
def test_tracking_refuses_what_cannot_be_meant(wrong: dict[str, Any]) -> None:
    """A typing mistake is told where it is made, before anything is sent."""
    with pytest.raises(InvalidValue), tracking(**wrong):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("where", ["setting", "tracking"])
async def test_with_durability_async_a_send_waits_for_nothing(sqlite_url: str, where: str) -> None:
    """The PENDING is buffered: `get` sees it all the same, and the writer commits it later."""
    settings = {"durability": "async"} if where == "setting" else {}
    block = tracking(durability="async") if where == "tracking" else tracking()
    async with Tracker(sqlite_url, settings=settings) as tracker, bench(tracker) as b:
        task = b.task("shop.ok")(_double)
        await b.run(task, 1)
        groups = tracker.recorder().counters["groups"]
        with block:
            sent = [await task.kicker().with_broker(b.broker).kiq(2) for _ in range(5)]
        waited = tracker.recorder().counters["groups"] - groups
        await b.settle()
        records = [await tracker.get(one.task_id) for one in sent]

    assert 5 > waited
    assert [4] * 5 == [record.result for record in records]


# ── ids ─────────────────────────────────────────────────────────────────────────────────────────
HOSTILE_IDS = {
    "NUL": "a\x00b",
    "percent": "100%",
    "escape": "%00 %2F %u0000",
    "emoji": "\U0001f600\U0001f1e9\U0001f1ea",
    "quotes": "'; DROP TABLE aiotrack_executions; --\"",
    "space": " ",
    "newline": "a\nb\r\t",
    "slash": "../../etc/passwd?x=1#y",
    "right to left": "\u202eabc",
    "number": "0042",
}


@pytest.mark.parametrize("name", HOSTILE_IDS)
async def test_any_text_is_a_task_id(tracker: Tracker, name: str) -> None:
    """A record is found by the very id that was sent, and gives it back."""
    task_id = HOSTILE_IDS[name]
    async with bench(tracker) as b:
        record = await b.run(b.task("shop.ok")(_double).kicker().with_task_id(task_id), 3)
        other = await b.run(b.task("shop.ok")(_double), 4)
        found = await tracker.get(task_id)

    assert (task_id, 6, TaskStatus.SUCCESS) == (record.task_id, record.result, record.status)
    assert record == found
    assert 8 == other.result


@pytest.mark.parametrize("letter", ["x", "%", "\u00e9", "\U0001f600"])
async def test_ids_of_any_length_stay_apart(tracker: Tracker, letter: str) -> None:
    """Ids of 300 letters that differ only in the last are two records."""
    ids = [letter * 299 + end for end in "ab"]
    async with bench(tracker) as b:
        task = b.task("shop.ok")(_double)
        records = [
            await b.run(task.kicker().with_task_id(task_id), number)
            for number, task_id in enumerate(ids)
        ]

    assert [0, 2] == [record.result for record in records]
    assert 2 == len({record.id for record in records})


async def test_an_id_given_as_a_number_is_kept_as_text(tracker: Tracker) -> None:
    """`get(42)` and `get("42")` are the same question, and created_by=42 is "42"."""
    async with bench(tracker) as b:
        await b.run(b.task("shop.ok")(_double).kicker().with_task_id("42"), 3)

    assert "42" == (await tracker.get(42)).task_id
    assert (await tracker.get(42)) == (await tracker.get("42"))
