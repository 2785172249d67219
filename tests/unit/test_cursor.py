"""Orders and cursors of lists."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotrack.errors import InvalidQuery
from aiotrack.repository.cursor import COLUMNS, Order, Position, read_cursor, write_cursor

NEWEST = Order("created_at", descending=True)


def packed(*told: object) -> str:
    """Give a cursor with any content."""
    return base64.urlsafe_b64encode(json.dumps(told).encode()).decode().rstrip("=")


@given(
    column=st.sampled_from(COLUMNS),
    descending=st.booleans(),
    micros=st.integers(-(10**15), 10**17),
    seconds=st.floats(allow_nan=False),
    row_id=st.integers(-(2**63), 2**63 - 1),
    is_null=st.booleans(),
)
def test_a_cursor_gives_back_the_position_it_was_made_of(
    column, descending, micros, seconds, row_id, is_null
):
    """Values survive exactly, floats too."""
    order = Order(column, descending)
    value = seconds if column == "duration" else micros
    position = Position(None if is_null and order.is_nullable else value, row_id)

    assert position == read_cursor(write_cursor(position, order, "d"), order, "d")


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize(("sign", "descending"), [("", False), ("+", False), ("-", True)])
def test_an_order_is_a_column_and_a_sign(column, sign, descending):
    """A minus descends, no sign and a plus ascend."""
    assert Order(column, descending) == Order.parse(f"{sign}{column}")


@pytest.mark.parametrize("text", ["", "id", "-", "--duration", "-+duration", "duration ", None, 7])
def test_an_unknown_order_is_refused_with_the_known_ones(text):
    """The message says what could be asked instead."""
    with pytest.raises(InvalidQuery, match="created_at, -created_at, finished_at") as caught:
        Order.parse(text)

    assert repr(text) in str(caught.value)


def test_a_cursor_of_another_order_is_refused():
    """Both orders are named."""
    text = write_cursor(Position(7, 1), NEWEST, "d")

    with pytest.raises(InvalidQuery, match=r"'-created_at', not 'created_at'"):
        read_cursor(text, Order("created_at", descending=False), "d")


def test_a_cursor_of_other_filters_is_refused():
    """The message says what to do."""
    text = write_cursor(Position(7, 1), NEWEST, "d")

    with pytest.raises(InvalidQuery, match="other filters"):
        read_cursor(text, NEWEST, "e")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "%%%",
        "ä",
        "\udc80",
        "A" * 5000,
        None,
        7,
        b"W10",
        packed(),
        packed("-created_at", "d", 1),
        packed("-created_at", "d", 1, 2, 3),
        packed("-created_at", "d", "1", 2),
        packed("-created_at", "d", None, 2),
        packed("-created_at", "d", True, 2),
        packed("-created_at", "d", 1.5, 2),
        packed("-created_at", "d", 2**62, 2),
        packed("-created_at", "d", 2**64, 2),
        packed("-created_at", "d", 1, 2**63),
        packed("-created_at", "d", 1, None),
        packed("-created_at", "d", 1, [2]),
        base64.urlsafe_b64encode(b"[" * 700).decode(),
        base64.urlsafe_b64encode(b'{"a":1}').decode(),
        base64.urlsafe_b64encode(b"\xff\xfe").decode(),
    ],
)
def test_a_text_that_is_no_cursor_is_refused(text):
    """Whatever a caller sends, the answer is InvalidQuery."""
    with pytest.raises(InvalidQuery, match="'after' is no cursor"):
        read_cursor(text, NEWEST, "d")


def test_a_duration_continues_only_from_a_number_of_seconds():
    """A cursor whose value is of another column's kind was not made by us."""
    order = Order("duration", descending=False)

    with pytest.raises(InvalidQuery, match="no cursor"):
        read_cursor(packed("duration", "d", "soon", 2), order, "d")
