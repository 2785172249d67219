"""The filters of lists and stats, on both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiotrack import Tracker
from aiotrack.clock import EPOCH, Clock
from aiotrack.errors import InvalidQuery, InvalidStatus, InvalidValue
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness
from aiotrack.repository import Repository
from aiotrack.repository.containment import MAX_DEPTH, MAX_PARTS
from aiotrack.repository.filters import MAX_TEXT, MAX_VALUES, Filters
from aiotrack.repository.read import Reader

pytestmark = pytest.mark.usefixtures("patience")

NOW = 1_700_000_000_000_000


def told(task_id: str, **facts) -> Report:
    """Tell that a task was sent, or ran when a run is among the facts."""
    run = {name: facts.pop(name) for name in ("worker", "error_class") if name in facts}
    status = facts.pop("status", TaskStatus.PENDING)
    birth = {"task_name": "shop:pay", "module": "shop", "created_at": NOW} | facts
    if isinstance(birth.get("metadata"), dict):
        birth["metadata"] = json.dumps(birth["metadata"])
    origin = Origin(task_id, **birth)
    if status is TaskStatus.PENDING:
        return Report(origin, Witness.SENT, status)
    run |= {"run_id": "r", "started_at": NOW, "finished_at": NOW, "duration": 1.0}
    return Report(origin, Witness.ENDED, status, **run)


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


async def ids(reader: Reader, **filters) -> str:
    """Give the task_ids that match, sorted and joined; list and stats must agree."""
    found = (await reader.list(limit=500, **filters)).items

    assert len(found) == (await reader.stats(**filters)).total
    return " ".join(sorted(item.task_id for item in found))


class Word(StrEnum):
    """A text that is more than a text."""

    CRM = "crm"


# ── exact ───────────────────────────────────────────────────────────────────────────────────────
async def test_columns_match_exactly_one_value_or_several(repository, reader):
    """Case counts, texts of other classes are texts, a created_by given as int is one too."""
    failed = {"status": TaskStatus.FAILURE, "error_class": "transient", "worker": "w1"}
    await repository.write(
        [
            told("a", module="crm", created_by="42", config_id=7, schedule_id="task_7"),
            told("b", task_name="shop:Pay", **failed),
            told("c", created_by="x", config_id=2**63 - 1),
        ]
    )

    assert "a" == await ids(reader, module="crm")
    assert "a" == await ids(reader, module=Word.CRM)
    assert "a b c" == await ids(reader, module=("crm", "shop", "none"))
    assert "b" == await ids(reader, task_name="shop:Pay")
    assert "a" == await ids(reader, created_by=42)
    assert "a c" == await ids(reader, created_by=(42, "x"))
    assert "b" == await ids(reader, worker="w1", error_class="transient")
    assert "a" == await ids(reader, config_id=7)
    assert "a c" == await ids(reader, config_id={7, 2**63 - 1})
    assert "a" == await ids(reader, schedule_id="task_7")
    assert "" == await ids(reader, schedule_id="TASK_7")


async def test_statuses_are_words_of_any_vocabulary(repository, reader):
    """One word or several; words for the same status are one."""
    await repository.write(
        [told("a"), told("b", status=TaskStatus.SUCCESS), told("c", status=TaskStatus.FAILURE)]
    )

    assert "a" == await ids(reader, status="queued")
    assert "b" == await ids(reader, status=TaskStatus.SUCCESS)
    assert "b c" == await ids(reader, status=["Completed", "done", "timeout"])
    with pytest.raises(InvalidStatus):
        await reader.list(status=["done", "nonsense"])
    with pytest.raises(InvalidStatus):
        await reader.stats(status=7)


def test_what_matches_nothing_is_no_filter_of_all():
    """Streams and cursors tell filters apart by their digests."""
    assert Filters.of().digest() != Filters.of(metadata={"x": "\0"}).digest()


async def test_no_value_is_allowed_by_an_empty_list(repository, reader):
    """An empty list is not the absence of a filter."""
    await repository.write([told("a")])

    assert "" == await ids(reader, module=[])
    assert "" == await ids(reader, status=())
    assert "" == await ids(reader, config_id=[])
    assert "a" == await ids(reader, module=None, status=None, metadata={}, text="")


@pytest.mark.parametrize("poison", ["a\0", "\udc80", "\0"])
async def test_a_text_that_no_database_holds_matches_nothing(repository, reader, poison):
    """NUL and lone surrogates are no database errors."""
    await repository.write([told("a", metadata={"k": "a"})])

    for name in ("module", "task_name", "created_by", "worker", "error_class", "schedule_id"):
        assert "" == await ids(reader, **{name: poison})
    assert "a" == await ids(reader, module=[poison, "shop"])
    assert "" == await ids(reader, text=poison)
    assert "" == await ids(reader, metadata={"k": poison})
    assert "" == await ids(reader, metadata={poison: 1})
    assert "" == await ids(reader, metadata={"k": [{"l": poison}]})


@pytest.mark.parametrize(
    ("filters", "word"),
    [
        ({"module": 7}, "module"),
        ({"module": b"shop"}, "module"),
        ({"worker": ["w", None]}, "worker"),
        ({"created_by": True}, "created_by"),
        ({"created_by": 10**5000}, "64 bits"),
        ({"config_id": "7"}, "config_id"),
        ({"config_id": True}, "config_id"),
        ({"config_id": [1, 2**63]}, "config_id"),
        ({"config_id": 10**5000}, "config_id"),
        ({"schedule_id": ["x"] * (MAX_VALUES + 1)}, "schedule_id"),
        ({"since": "yesterday"}, "since"),
        ({"until": 7}, "until"),
        ({"text": 7}, "text"),
        ({"text": "x" * (MAX_TEXT + 1)}, "longer"),
        ({"metadata": "k"}, "mapping"),
        ({"metadata": {1: 2}}, "key"),
        ({"metadata": {"k": {None: 2}}}, "key"),
        ({"metadata": {"k": 2**63}}, "64 bits"),
        ({"metadata": {"k": float("nan")}}, "not finite"),
        ({"metadata": {"k": object()}}, "as they are stored"),
        ({"metadata": {str(n): n for n in range(MAX_PARTS + 1)}}, "levels"),
    ],
)
async def test_a_filter_of_a_wrong_kind_is_refused(reader, filters, word):
    """The message names it, for lists and counts alike."""
    with pytest.raises(InvalidQuery, match=word):
        await reader.list(**filters)
    with pytest.raises(InvalidQuery, match=word):
        await reader.stats(**filters)


async def test_metadata_without_end_is_refused(reader):
    """A cycle ends at the deepest level."""
    endless: dict = {}
    endless["k"] = endless

    with pytest.raises(InvalidQuery, match=f"{MAX_DEPTH} levels"):
        await reader.list(metadata=endless)


async def test_the_largest_filters_are_served(repository, reader):
    """What is not refused can be asked."""
    await repository.write([told("a", metadata={str(n): n for n in range(MAX_PARTS)})])
    deep: object = ["x"]
    for number in range(MAX_DEPTH - 2):
        deep = {"k": deep} if number % 2 else [deep]

    assert "a" == await ids(reader, metadata={str(n): n for n in range(MAX_PARTS)})
    assert "" == await ids(reader, metadata={"k": deep, "l": deep}, text="x", status="done")
    several = {"status": ["done", "failed"], "module": ["shop", "bank"], "worker": ["a", "b"]}
    for text in (None, "shop"):
        more = {**several, "metadata": {"k": deep, "l": deep}, "text": text}
        assert "" == await ids(reader, **more, since=timedelta(days=1))
        assert [] == (await reader.list(**more, order="duration")).items
    assert "a" == await ids(reader, module=["shop", *map(str, range(MAX_VALUES - 1))])
    assert "" == await ids(reader, text="*" * MAX_TEXT)


# ── times ───────────────────────────────────────────────────────────────────────────────────────
async def test_since_and_until_include_their_moment(repository, reader):
    """Aware times of any offset, to the microsecond."""
    await repository.write([told(str(n), created_at=NOW + n) for n in range(4)])

    def at(number: int) -> datetime:
        moment = EPOCH + timedelta(microseconds=NOW + number)
        return moment.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert "2 3" == await ids(reader, since=at(2))
    assert "0 1" == await ids(reader, until=at(1))
    assert "1 2" == await ids(reader, since=at(1), until=at(2))


async def test_a_timedelta_is_ago(repository, reader):
    """On the database's clock; a negative one lies ahead."""
    await repository.connect()
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    await repository.write(
        [told("old", created_at=now - 7_200_000_000), told("new", created_at=now - 60_000_000)]
    )

    assert "new" == await ids(reader, since=timedelta(hours=1))
    assert "old" == await ids(reader, until=timedelta(hours=1))
    assert "new old" == await ids(reader, until=-timedelta(hours=1))


async def test_a_list_since_a_timedelta_goes_on_from_page_to_page(repository, reader):
    """The time passes between two pages; the cursor still fits."""
    now = int(datetime.now(UTC).timestamp() * 1_000_000)
    await repository.write([told(str(n), created_at=now - n) for n in range(3)])
    page = await reader.list(since=timedelta(hours=1), limit=2)

    rest = await reader.list(since=timedelta(hours=1), limit=2, after=page.next)

    assert ["2"] == [item.task_id for item in rest.items]


@pytest.mark.parametrize("offset", [-23, 0, 23])
async def test_times_at_the_ends_of_the_calendar_are_served(repository, reader, offset):
    """No overflow reaches the caller."""
    await repository.write([told("a")])
    zone = timezone(timedelta(hours=offset))
    first, last = datetime.min.replace(tzinfo=zone), datetime.max.replace(tzinfo=zone)

    assert "a" == await ids(reader, since=first, until=last)
    assert "a" == await ids(reader, since=timedelta.max, until=timedelta.min)
    assert "" == await ids(reader, since=timedelta.min)


async def test_a_time_without_an_offset_is_refused(reader):
    """It could mean any hour of a day."""
    with pytest.raises(InvalidValue, match="since has no offset"):
        await reader.list(since=datetime(2024, 1, 1))  # noqa: DTZ001 - that is the point
    with pytest.raises(InvalidValue, match="until has no offset"):
        await reader.stats(until=datetime(2024, 1, 1))  # noqa: DTZ001 - as above


# ── text ────────────────────────────────────────────────────────────────────────────────────────
async def test_text_is_the_beginning_of_an_id_or_a_name(repository, reader):
    """In its own case; the middle does not count."""
    await repository.write(
        [told("mail-1"), told("b", task_name="mail:send"), told("x-mail"), told("Mail")]
    )

    assert "b mail-1" == await ids(reader, text="mail")
    assert "b" == await ids(reader, text="mail:send")


@pytest.mark.parametrize(
    "prefix", ["_", "!", "!_", "*", "?", "[a]", "[", "]", "^", "\\", "'", "a_"]
)
async def test_no_letter_of_text_is_a_wildcard(repository, reader, prefix):
    """Each stands for itself in both databases."""
    await repository.write([told("abc"), told("zzz"), told(f"{prefix}1"), told(f"ab{prefix}")])

    assert f"{prefix}1" == await ids(reader, text=prefix)


async def test_a_percent_sign_in_text_is_one_in_the_id(repository, reader):
    """Ids are stored escaped; who searches need not know."""
    await repository.write([told("50%25 off"), told("50 off"), told("b", task_name="50% more")])

    assert "50% off b" == await ids(reader, text="50%")


# ── metadata ────────────────────────────────────────────────────────────────────────────────────
async def test_metadata_matches_by_type_and_value(repository, reader):
    """7 is not "7", true is not 1, null is not absent; 7 is 7.0."""
    await repository.write(
        [
            told("int", metadata={"k": 7}),
            told("float", metadata={"k": 7.0}),
            told("text", metadata={"k": "7"}),
            told("true", metadata={"k": True}),
            told("one", metadata={"k": 1}),
            told("null", metadata={"k": None}),
            told("none", metadata={}),
            told("more", metadata={"k": 7, "l": "ä\"'\\"}),
            told("list", metadata={"k": [7, [1, 2], {"m": 1, "n": 2}]}),
            told("dict", metadata={"k": {"a.b": {"c": 1}, "d": 2}, '$"x': "[]"}),
        ]
    )

    assert "float int more" == await ids(reader, metadata={"k": 7})
    assert "float int more" == await ids(reader, metadata={"k": 7.0})
    assert "text" == await ids(reader, metadata={"k": "7"})
    assert "true" == await ids(reader, metadata={"k": True})
    assert "one" == await ids(reader, metadata={"k": 1})
    assert "null" == await ids(reader, metadata={"k": None})
    assert "more" == await ids(reader, metadata={"l": "ä\"'\\", "k": 7})
    assert "list" == await ids(reader, metadata={"k": [[2], {"n": 2}]})
    assert "" == await ids(reader, metadata={"k": [7, 8]})
    assert "dict" == await ids(reader, metadata={"k": {"a.b": {"c": 1}}})
    assert "dict" == await ids(reader, metadata={'$"x': "[]"})
    assert "dict" == await ids(reader, metadata={"k": {}})
    assert "list" == await ids(reader, metadata={"k": []})
    assert "" == await ids(reader, metadata={"K": 7})


LARGE = {
    "safe": 2**53,
    "next": 2**53 + 1,
    "long": 1234567890123456789,
    "most": 2**63 - 1,
    "least": -(2**63),
    "text": "1234567890123456789",
    "deep": [[[[2**60]]]],
}


async def test_large_numbers_are_found_as_they_are_stored(database_url: str) -> None:
    """Beyond 2**53 they are stand-ins, with or without an index of their key, at any depth."""
    async with Tracker(database_url, settings={"indexed_metadata": "k"}) as tracker:
        for name, value in LARGE.items():
            await tracker.register(name, "shop:pay", metadata={"k": value, "plain": value})
        for key in ("k", "plain"):
            for name, wanted in {**LARGE, "": 2**53 + 2}.items():
                found = (await tracker.list(metadata={key: wanted})).items

                assert name == " ".join(one.task_id for one in found), (key, wanted)
                assert len(found) == (await tracker.stats(metadata={key: wanted})).total
        both = {"k": LARGE["deep"], "plain": LARGE["deep"]}
        several = {"status": ["pending", "done"], "module": ["shop", "bank"], "text": "deep"}

        assert 1 == len((await tracker.list(metadata=both, **several)).items)


values = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.5, -1, 1.0, "", "1", "a", "[]", "ä\"\\'%"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["a", 'b"\\', "$.é"]), inner, max_size=2)
    ),
    max_leaves=5,
)
objects = st.dictionaries(st.sampled_from(["a", 'b"\\', "$.é"]), values, max_size=2)


@given(stored=st.lists(objects, min_size=1, max_size=5), wanted=objects, number=st.integers(0, 4))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_containment_means_the_same_everywhere(
    repository, reader, modules, stored, wanted, number
):
    """Both databases agree with a few lines of Python, for any nesting."""
    module = next(modules)
    await repository.write(
        [told(f"{module}-{n}", module=module, metadata=item) for n, item in enumerate(stored)]
    )
    for query in (wanted, stored[number % len(stored)]):
        expected = [f"{module}-{n}" for n, item in enumerate(stored) if contains(item, query)]

        assert " ".join(expected) == await ids(reader, module=module, metadata=query)


def contains(stored: object, wanted: object) -> bool:
    """Tell whether one JSON value contains another."""
    if isinstance(wanted, Mapping):
        return isinstance(stored, Mapping) and all(
            key in stored and contains(stored[key], part) for key, part in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(stored, list) and all(
            any(contains(item, part) for item in stored) for part in wanted
        )
    same = isinstance(stored, bool) == isinstance(wanted, bool)
    return same and stored == wanted


@pytest.fixture
def modules():
    """Names that differ from example to example."""
    return iter(f"m{number}" for number in range(10_000))
