"""What may be sent: a task's parameters as JSON schema, and what is wrong with arguments."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field
from taskiq import Context, InMemoryBroker, TaskiqDepends

from aiotrack import catalog
from aiotrack.body import wrap
from aiotrack.model import TaskInfo

if TYPE_CHECKING:
    from decimal import Decimal


class Line(BaseModel):
    """A part of a model."""

    text: str


class Order(BaseModel):
    """A model with a model."""

    number: int = Field(ge=1)
    lines: list[Line] = []


def namesake() -> Any:
    """Make another model of the same name."""

    class Line(BaseModel):
        """Another one."""

        length: int

    return Line


@dataclass
class Place:
    """A dataclass."""

    street: str
    floor: int = 0


def connect() -> str:
    """Be a dependency."""
    return "connected"


async def depends(
    order: Order,
    context: Annotated[Context, TaskiqDepends()],
    plain: Context = TaskiqDepends(),
    made: str = TaskiqDepends(connect),
    *,
    note: str | None = None,
) -> None:
    """Take a model, and what TaskIQ resolves."""


def behind(one: int, made: str = TaskiqDepends(connect), two: int = 2, *rest: int) -> None:
    """Have a parameter that no position reaches."""


def many(
    first: int, /, second: float = 1.5, *rest: int, key: Literal["a", "b"], **more: Any
) -> None:
    """Take all kinds of parameters."""


def bare(one, two=object, *, three=()):
    """Tell nothing."""


def lost(price: Decimal, count: int) -> None:
    """Have an annotation that only a type checker resolves."""


class Strange:
    """No pydantic type."""


def strange(one: Strange, two: datetime, place: Place) -> None:
    """Take what has no schema."""


class Till:
    """Has a method that is a task."""

    def pay(self, amount: int) -> None:
        """Pay."""


# ── schemas ─────────────────────────────────────────────────────────────────────────────────────
def test_a_schema_leaves_out_dependencies_and_defines_models() -> None:
    """In every way that TaskIQ writes a dependency."""
    found = catalog.schema(depends)

    assert ["order", "note"] == list(found["properties"])
    assert ["order"] == found["required"]
    order = found["properties"]["order"]
    assert 1 == order["properties"]["number"]["minimum"]
    assert {"$ref": "#/$defs/Line"} == order["properties"]["lines"]["items"]
    assert ["text"] == found["$defs"]["Line"]["required"]
    assert None is found["properties"]["note"]["default"]
    assert False is found["additionalProperties"]


def test_models_of_one_name_are_told_apart() -> None:
    """The later one is defined where it stands."""

    def both(one: list[Line], two: Any, three: Any) -> None:
        """Take both."""

    both.__annotations__ = {"one": list[Line], "two": list[namesake()], "three": list[Line]}
    found = catalog.schema(both)
    one, two, three = found["properties"].values()

    assert {"$ref": "#/$defs/Line"} == one["items"] == three["items"]
    assert {"$ref": "#/properties/two/$defs/Line"} == two["items"]
    assert ["length"] == two["$defs"]["Line"]["required"]
    assert ["text"] == found["$defs"]["Line"]["required"]


def test_a_schema_of_all_kinds_of_parameters() -> None:
    """Those that gather others are no properties; ``**more`` lets any name pass."""
    found = catalog.schema(many)

    assert {
        "first": {"type": "integer"},
        "second": {"type": "number", "default": 1.5},
        "key": {"enum": ["a", "b"], "type": "string"},
    } == found["properties"]
    assert ["first", "key"] == found["required"]
    assert True is found["additionalProperties"]


def test_a_schema_without_annotations() -> None:
    """Anything fits; a default that JSON has no word for is told as text."""
    found = catalog.schema(bare)

    assert {"one": {}, "two": {"default": "<class 'object'>"}, "three": {"default": []}} == (
        found["properties"]
    )
    assert ["one"] == found["required"]


def test_annotations_that_cannot_be_resolved_are_none() -> None:
    """The names are known all the same."""
    found = catalog.schema(lost)

    assert {"price": {}, "count": {}} == found["properties"]
    assert [] == catalog.faults(lost, ["cheap", "many"])
    assert ["count is missing"] == catalog.faults(lost, [1])


def test_a_class_without_schema_takes_anything() -> None:
    """Its neighbours are told."""
    found = catalog.schema(strange)["properties"]

    assert {} == found["one"]
    assert "date-time" == found["two"]["format"]
    assert ["street"] == found["place"]["required"]


def test_a_method_is_told_without_self() -> None:
    """As is a partial, without what it was given."""

    assert ["amount"] == catalog.schema(Till().pay)["required"]
    assert [] == catalog.faults(Till().pay, [1])
    assert ["amount is missing"] == catalog.faults(Till().pay)
    assert ["key"] == catalog.schema(functools.partial(many, 1))["required"]


def test_a_callable_without_signature_takes_anything() -> None:
    """Some builtins tell none."""

    assert {"type": "object", "additionalProperties": True} == catalog.schema(dict)
    assert [] == catalog.faults(dict, [1, 2], {"a": 3})


# ── tasks ───────────────────────────────────────────────────────────────────────────────────────
def test_tasks_are_told_by_name() -> None:
    """Of several brokers, the first that knows one; with labels that JSON can hold."""
    one, two = InMemoryBroker(), InMemoryBroker()
    one.register_task(depends, task_name="b", queue="gpu", priority=7, raw=b"\x00")
    two.register_task(many, task_name="a", queue_name="slow", limits={1, 2})
    two.register_task(bare, task_name="b")
    found = catalog.tasks([one, two])

    assert ["a", "b"] == [task.name for task in found]
    assert all(isinstance(task, TaskInfo) for task in found)
    assert [("slow", "Take all kinds of parameters."), ("gpu", depends.__doc__)] == [
        (task.queue, task.doc) for task in found
    ]
    assert {"queue": "gpu", "priority": 7, "raw": "b'\\x00'"} == found[1].labels
    assert isinstance(found[0].labels["limits"], str)


def test_a_task_that_was_wrapped_is_told_as_before() -> None:
    """The tracker's own wrapper hides nothing."""
    broker = InMemoryBroker()
    broker.register_task(depends, task_name="a")
    before = catalog.tasks([broker])
    wrap(broker.find_task("a"))  # type: ignore[arg-type]

    assert before == catalog.tasks([broker])


# ── faults ──────────────────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ([Order(number=1)], {}),
        ([{"number": 1, "lines": [{"text": "x"}]}], {"note": "y"}),
        ([], {"order": {"number": "7"}}),  # TaskIQ's parser is as lenient
        ([None], {}),
    ],
)
def test_what_fits(args: list[Any], kwargs: dict[str, Any]) -> None:
    """Models and what they are made of; TaskIQ hands None on, whatever the annotation."""

    assert [] == catalog.faults(depends, args, kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "expected"),
    [
        (depends, [], {}, ["order is missing"]),
        (depends, [{"number": 0}], {}, ["order.number: Input should be greater"]),
        (depends, [{"lines": 1}], {}, ["order.number: Field required", "order.lines: Input"]),
        (behind, [1, 2], {"two": 2}, ["takes 1 positional arguments, not 2"]),
        (behind, [1], {"two": 2}, []),
        (depends, [{"number": 1}, 2], {}, ["takes 1 positional arguments, not 2"]),
        (depends, [{"number": 1}], {"order": 1}, ["order is given twice"]),
        (depends, [{"number": 1}], {"made": "x"}, ["has no parameter 'made'; known are: order"]),
        (many, ["x"], {"key": "c"}, ["first: Input should be a valid int", "key: Input should be"]),
        (many, [1, 2, 3, 4], {"key": "a", "any": 1}, []),
        (many, [], {"key": "a", "first": 1}, ["first is missing"]),
        (many, [1], {"key": "a", "self": 1}, ["'self' cannot be sent: TaskIQ keeps the name"]),
        (Till.pay, [], {"self": 1, "amount": 2}, ["'self' cannot be sent"]),
        (Till.pay, [1, 2], {}, []),
        (dict, [], {"self": 1}, ["'self' cannot be sent"]),
        (depends, [{"number": 1}], {"self": 1}, ["'self' cannot be sent"]),
        (bare, [object(), 2], {"three": 3}, []),
        (strange, [1, "2026-01-01T00:00:00Z", {"street": "a"}], {}, []),
        (strange, [1, "soon", {}], {}, ["two: Input should be", "place.street: Field required"]),
    ],
)
def test_faults(
    function: Any, args: list[Any], kwargs: dict[str, Any], expected: list[str]
) -> None:
    """Each is told, in words that name the parameter."""
    told = catalog.faults(function, args, kwargs)

    assert len(expected) == len(told), told
    for part, fault in zip(expected, told, strict=True):
        assert fault.startswith(part), told
