"""What a Redis server answers, in pieces of any size."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import NoScriptError, ResponseError

from aiotrack.redis.line import Answers

WORDS = st.binary(max_size=40).map(lambda text: text.replace(b"\r", b"").replace(b"\n", b""))
VALUES = st.recursive(
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


def written(value: Any) -> bytes:
    """Write a value as a server does."""
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n%b" % (len(value), b"".join(map(written, value)))


@given(st.lists(VALUES, max_size=6), st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_pieces_of_any_size_make_the_same_answers(values: list[Any], sizes: list[int]) -> None:
    """Nothing is lost, doubled or cut, wherever the bytes are parted."""
    data = b"".join(map(written, values))
    answers, found, at = Answers(), [], 0
    while at < len(data):
        size = sizes[len(found) % len(sizes)] if at else sizes[0]
        found += list(answers.feed(data[at : at + size]))
        at += size

    assert values == found


@given(WORDS)
def test_a_status_is_its_word(word: bytes) -> None:
    """As it was said."""
    assert [word] == list(Answers().feed(b"+" + word + b"\r\n"))


@pytest.mark.parametrize(
    ("told", "kind", "words"),
    [
        (b"-NOSCRIPT No matching script.\r\n", NoScriptError, "No matching script."),
        (b"-ERR no such thing\r\n", ResponseError, "ERR no such thing"),
        (b"-WRONGTYPE \xff\r\n", ResponseError, "WRONGTYPE \ufffd"),
    ],
)
def test_a_refusal_is_what_it_means(told: bytes, kind: type[Exception], words: str) -> None:
    """An exception, given and not raised: answers behind it are read all the same."""
    refusal, answer = Answers().feed(told + b":1\r\n")

    assert (kind, words, 1) == (type(refusal), str(refusal), answer)


@pytest.mark.parametrize("nonsense", [b"HTTP/1.1 400\r\n", b"$x\r\n", b"%1\r\n", b"\r\n"])
def test_nonsense_is_refused(nonsense: bytes) -> None:
    """Another server than Redis, or another protocol."""
    with pytest.raises(ValueError, match=r"answer|invalid literal"):
        list(Answers().feed(nonsense))
