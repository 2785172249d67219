"""Task definitions: stored, found, changed, refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text
from taskiq import InMemoryBroker

from aiotrack import (
    DefinitionNotFound,
    InvalidDefinition,
    InvalidQuery,
    Page,
    Tracker,
    TrackerMiddleware,
)
from aiotrack.brokers import PriorityStreamBroker
from aiotrack.repository.control.audit import Audit
from tests.schedules.site import Site


async def test_a_definition_is_stored_as_it_is_told(site: Site) -> None:
    """All fields, with their defaults; by id and by name."""
    made = await site.tracker.definitions.create(
        name="Nightly é",
        description="Counts the stock",
        task_type="shop.add",
        schedule_kind="cron",
        schedule={"cron": "0 3 * * *", "tz": "Europe/Berlin"},
        parameters={"a": 5, "b": 7},
        max_retries=2,
        timeout_seconds=90,
        priority=8,
        queue="gpu",
        by="ada",
    )
    bare = await site.tracker.definitions.create(name="bare", task_type="shop.clean")

    assert made == await site.tracker.definitions.get(made.id)
    assert made == await site.tracker.definitions.get_by_name("Nightly é")
    assert (90.0, 8, "gpu", 2, True) == (
        *(made.timeout_seconds, made.priority, made.queue, made.max_retries),
        made.is_scheduled,
    )
    assert ("manual", {}, {}, 0, None, 5, None, "", False) == (
        *(bare.schedule_kind, bare.schedule, bare.parameters, bare.max_retries),
        *(bare.timeout_seconds, bare.priority, bare.queue, bare.description, bare.is_scheduled),
    )
    assert made.created_at == made.updated_at


async def test_whatever_names_a_definition(site: Site) -> None:
    """Its id, also as text, its name, its schedule's id; a name comes before what looks like it."""
    definitions, schedules = site.tracker.definitions, site.tracker.schedules
    made = await site.define()
    other = await definitions.create(name=f"task_{made.id}", task_type="shop.clean")
    for key in (made.id, str(made.id), made.name, f"task_{other.id}"):
        expected = other if key == f"task_{other.id}" else made
        assert expected == await definitions.get(key)
    assert "active" == await schedules.start(str(made.id))
    assert other == await definitions.get(f"task_{made.id}")
    for key in (f"task_{other.id}", "task_", "task_x", "task_" + "9" * 20, "9" * 19):
        with pytest.raises(DefinitionNotFound):
            await definitions.get_by_name(key)
    for key in ("task_", "task_x", "task_" + "9" * 20, "9" * 19, 2**70, -(2**70)):
        with pytest.raises(DefinitionNotFound):
            await schedules.pause(key)


async def test_every_fault_is_told_in_one_error(site: Site) -> None:
    """Nothing is stored, and who asked need not ask seven times."""
    await site.define("taken")
    told: dict[str, Any] = {
        "name": "taken",
        "task_type": "shop.sub",
        "schedule_kind": "cron",
        "schedule": {"cron": "61 * * * *", "tz": "Mars", "every": 5},
        "parameters": {"a": object()},
        "max_retries": -1,
        "timeout_seconds": 0,
        "priority": 11,
        "queue": "",
        "description": 5,
        "colour": "red",
    }
    with pytest.raises(InvalidDefinition) as caught:
        await site.tracker.definitions.create(**told)

    expected = ["'colour' is no field", "description must be text", "parameters must be JSON"]
    expected += ["max_retries must be", "timeout_seconds must be", "priority must be a whole"]
    expected += ["queue must be text", "'every' is unknown", "bad minute '61'", "tz 'Mars'"]
    expected += ["no broker here knows a task 'shop.sub'", "name 'taken' is taken"]
    assert len(expected) == len(caught.value.faults)
    assert [] == [
        part for part, fault in zip(expected, caught.value.faults, strict=True) if part not in fault
    ]
    assert isinstance(caught.value, ValueError)
    assert ["taken"] == [one.name for one in (await site.tracker.definitions.list()).items]


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"name": ""}, "name must be text"),
        ({"name": "x" * 201}, "200 are the most"),
        ({"name": "a\0b"}, "NUL"),
        ({"name": "\ud800"}, "half a character"),
        ({"name": None}, "name must be text"),
        ({"task_type": None}, "task_type must be text"),
        ({"parameters": {"b": 1}}, "a is missing"),
        ({"parameters": {"a": "many"}}, "a: "),
        ({"parameters": {"a": 1, "c": 1}}, "has no parameter 'c'"),
        ({"parameters": [1]}, "must be a mapping"),
        ({"parameters": {"a": float("nan")}}, "must be JSON"),
        ({"parameters": {1: 1}}, "text as keys"),
        ({"priority": True}, "priority must be"),
        ({"priority": 0}, "priority must be"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds must be"),
        ({"max_retries": 1.5}, "max_retries must be"),
    ],
)
async def test_what_cannot_be_is_refused(one_site: Site, fields: dict[str, Any], part: str) -> None:
    """At its making and at a change."""
    known = await one_site.define("known")
    good: dict[str, Any] = {"name": "new", "task_type": "shop.add", "parameters": {"a": 1}}
    with pytest.raises(InvalidDefinition) as at_making:
        await one_site.tracker.definitions.create(**good | fields)
    with pytest.raises(InvalidDefinition) as at_change:
        await one_site.tracker.definitions.update("known", **fields)  # type: ignore[arg-type]

    assert part in str(at_making.value)
    assert part in str(at_change.value)
    assert known == await one_site.tracker.definitions.get("known")


async def test_a_queue_that_the_broker_refuses_is_refused(
    made_sqlite_url: str, redis_url: str
) -> None:
    """At its making and at a change; a broker that takes any name is not asked."""
    async with Tracker(made_sqlite_url) as tracker:
        broker = PriorityStreamBroker(redis_url).with_middlewares(TrackerMiddleware(tracker))
        other = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))
        for one, name in ((broker, "shop.add"), (other, "shop.other")):
            one.register_task(_add, task_name=name)
        definitions = tracker.definitions
        faults = []
        for queue in ("a:5", "taskiq:dead"):
            with pytest.raises(InvalidDefinition) as caught:
                await definitions.create(name="x", task_type="shop.add", queue=queue, priority=0)
            faults.append(caught.value.faults)
        await definitions.create(name="x", task_type="shop.add", queue="a:11")
        with pytest.raises(InvalidDefinition, match="stream of 'a'"):
            await definitions.update("x", queue="a:2")
        made = await definitions.create(name="y", task_type="shop.other", queue="a:5")

    assert [2, 2] == [len(one) for one in faults]
    assert "queue: the queue 'a:5' has the name of a stream of 'a'" in faults[0][1]
    assert "a:5" == made.queue


async def _add() -> None: ...


async def test_what_must_be_told_is_asked_for(one_site: Site) -> None:
    """A name and a task."""
    with pytest.raises(InvalidDefinition) as caught:
        await one_site.tracker.definitions.create()

    assert ["name is missing", "task_type is missing"] == caught.value.faults


async def test_a_process_without_brokers_takes_any_task(sqlite_url: str) -> None:
    """It cannot know which there are; all else is checked."""
    async with Tracker(sqlite_url) as tracker:
        made = await tracker.definitions.create(
            name="x", task_type="shop.unknown", parameters={"z": 1}
        )
        with pytest.raises(InvalidDefinition):
            await tracker.definitions.create(name="y", task_type="shop.unknown", priority=99)
        changed = await tracker.definitions.update("x", description="new")
        await tracker.definitions.delete("x")

    assert {"z": 1} == made.parameters
    assert "new" == changed.description


async def test_a_change_keeps_what_is_not_named(site: Site) -> None:
    """By id or name; the name may change, and not to one that is taken."""
    made = await site.define()
    await site.define("other")
    changed = await site.tracker.definitions.update(made.id, name="tally", priority=9)
    with pytest.raises(InvalidDefinition, match="name 'other' is taken"):
        await site.tracker.definitions.update("tally", name="other")
    same = await site.tracker.definitions.update("tally", name="tally")

    assert replace(made, name="tally", priority=9, updated_at=changed.updated_at) == changed
    assert changed.updated_at > made.updated_at
    assert replace(changed, updated_at=same.updated_at) == same


async def test_many_changes_at_once_are_all_made(site: Site) -> None:
    """One after another, each to what the one before left."""
    made = await site.define()
    definitions, words = site.tracker.definitions, [str(number) for number in range(16)]
    await asyncio.gather(*(definitions.update(made.id, description=word) for word in words))
    page = await site.tracker.audit.list(action="definition.update", limit=100)
    before = {(one.before or {})["description"] for one in page.items}
    after = {(one.after or {})["description"] for one in page.items}

    assert len(words) == len(page.items)
    assert set(words) == after
    assert {(await definitions.get(made.id)).description} == after - before


async def test_ids_are_never_used_again(site: Site) -> None:
    """Executions of the old one are not the new one's."""
    first = await site.define()
    execution = await site.tracker.schedules.trigger(first.id)
    await site.tracker.definitions.delete("count")
    second = await site.define()

    assert first.id < second.id
    assert first.id == (await site.tracker.get(execution.task_id)).config_id
    assert (1, 0) == (
        (await site.tracker.definitions.stats(first.id)).total,
        (await site.tracker.definitions.stats("count")).total,
    )


@pytest.mark.parametrize("key", [None, True, 1.0, b"count", ["count"]])
async def test_what_is_no_name_is_not_found(site: Site, key: Any) -> None:
    """Nor what a database, or Redis, would take for the first definition's id."""
    await site.define("count")
    verbs, schedules = site.tracker.definitions, site.tracker.schedules
    for ask in (verbs.get, verbs.stats, verbs.delete, schedules.status, schedules.pause):
        with pytest.raises(DefinitionNotFound):
            await ask(key)


@pytest.mark.parametrize("name", ["task_type", "name", "schedule_kind", "text"])
async def test_a_filter_that_is_no_text_is_refused(one_site: Site, name: str) -> None:
    """With its name."""
    for value in (5, b"x", ["x"]):
        with pytest.raises(InvalidQuery, match=f"{name} must be text, not {type(value).__name__}"):
            await one_site.tracker.definitions.list(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [12345, 10**30, -1, "nobody"])
async def test_an_unknown_definition_is_not_found(one_site: Site, key: int | str) -> None:
    """Whatever is asked of it."""
    verbs = one_site.tracker.definitions
    with pytest.raises(DefinitionNotFound):
        await verbs.get(key)
    with pytest.raises(DefinitionNotFound):
        await verbs.update(key, priority=1)
    with pytest.raises(LookupError):
        await verbs.delete(key)
    with pytest.raises(DefinitionNotFound):
        await one_site.tracker.schedules.start(key)
    with pytest.raises(DefinitionNotFound):
        await one_site.tracker.schedules.trigger(key)


async def test_definitions_are_found_by_every_filter(site: Site) -> None:
    """Exact ones, and a part of a text in any case; page by page."""
    verbs = site.tracker.definitions
    for number in range(5):
        await site.define(f"Stock {number}", description="100% of it" if number == 3 else "")
    await verbs.create(name="clean", task_type="shop.clean")

    async def names(**filters: Any) -> list[str]:
        return [one.name for one in (await verbs.list(**filters)).items]

    assert ["clean"] == await names(task_type="shop.clean")
    assert ["Stock 1"] == await names(name="Stock 1")
    assert ["clean"] == await names(schedule_kind="manual")
    assert 5 == len(await names(text="sTOCK"))
    assert ["Stock 3"] == await names(text="100%")
    assert [] == await names(text="1000%")
    assert 6 == len(await names(text="shop."))
    await verbs.update("Stock 2", description="Über_Nacht/täglich")
    for part in ("Über", "BER_nacht/T", "täGLICH", "_", "/"):
        assert ["Stock 2"] == await names(text=part), part
    assert [] == await names(text="Über-Nacht")
    assert {"shop.add": 5, "shop.clean": 1} == await verbs.count_by_type()
    first = await verbs.list(limit=2, task_type="shop.add")
    second: Page[Any] = await verbs.list(limit=3, task_type="shop.add", after=first.next)
    assert ["Stock 0", "Stock 1", "Stock 2", "Stock 3", "Stock 4"] == [
        one.name for one in (*first.items, *second.items)
    ]
    assert second.next is None
    with pytest.raises(InvalidQuery):
        await verbs.list(limit=2, task_type="shop.clean", after=first.next)
    with pytest.raises(InvalidQuery):
        await verbs.list(limit=0)
    with pytest.raises(InvalidQuery):
        await verbs.list(text="\0")


async def test_the_audit_says_who_changed_what(site: Site) -> None:
    """Without secrets."""
    made = await site.tracker.definitions.create(
        name="clean", task_type="shop.clean", parameters={"password": "hunter2-hunter2"}, by="ada"
    )
    created = await last(site, "definition.create")
    await site.tracker.definitions.update("clean", priority=9, by=7)
    updated = await last(site, "definition.update")
    await site.tracker.definitions.delete("clean")
    deleted = await last(site, "definition.delete")

    assert ("ada", f"definition:{made.id}") == (created.actor, created.target)
    assert "hunter2" not in str(created.after)
    assert ("7", {"priority": 5}, {"priority": 9}) == (
        *(updated.actor, updated.before, updated.after),
    )
    assert (None, None, "clean") == (
        *(deleted.actor, deleted.after),
        (deleted.before or {}).get("name"),
    )


async def test_what_the_audit_cannot_keep_is_done(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks again would hear that the name is taken: it is logged, and not raised."""
    async with site.tracker.core().repository.engine.begin() as connection:
        await connection.execute(text("DROP TABLE aiotrack_audit"))

    made = await site.tracker.definitions.create(name="clean", task_type="shop.clean", by="a\ud800")

    assert made == await site.tracker.definitions.get("clean")
    assert "the audit does not know of 'definition.create'" in caplog.text


async def test_a_text_that_no_database_can_hold_finds_nothing(site: Site) -> None:
    """As a name, and in every filter; a shell hands such words on, too."""
    definitions = site.tracker.definitions
    for find in (definitions.get, definitions.get_by_name, site.tracker.schedules.status):
        with pytest.raises(DefinitionNotFound):
            await find("\ud800")
        with pytest.raises(DefinitionNotFound):
            await find("a\x00b")

    for one in ("task_type", "name", "text"):
        assert [] == (await definitions.list(**{one: "\ud800"})).items


async def last(site: Site, action: str) -> Any:
    """Give the only deed of a kind."""
    targets = [f"definition:{number}" for number in range(10)]
    (found,) = (await Audit(site.tracker.core().repository).last_of([action], targets)).values()
    return found
