"""What people read, as plain Python values: words, equality, copies."""

from __future__ import annotations

import copy
import dataclasses
import enum
import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from aiotrack import Execution, InvalidStatus, Page, TaskStatus

WORDS = {
    "PENDING": "created pending queued scheduled assigned",
    "STARTED": "started running in_progress processing",
    "SUCCESS": "completed done success succeeded",
    "FAILURE": "failed failure error timeout timed_out",
    "RETRY": "retry retrying",
    "REVOKED": "revoked cancelled canceled aborted",
}


class Old(enum.Enum):
    """A vocabulary as another tool has it."""

    OVER = "done"


class Numbered(enum.IntEnum):
    """Another one."""

    OVER = 3


@pytest.mark.parametrize("status", list(TaskStatus))
def test_every_promised_word_is_read_in_any_case(status: TaskStatus) -> None:
    """And a status is its own word, also for json."""
    for word in WORDS[status].split():
        for written in (word, word.upper(), word.title(), f" {word} "):
            assert TaskStatus.parse(written) is status
    assert TaskStatus.parse(status) is status
    assert f'"{status}"' == json.dumps(status)


@pytest.mark.parametrize(
    ("word", "mapping"),
    [
        (Old.OVER, None),
        ("Fertig", {"FERTIG": "completed"}),
        ("fertig", {"fertig": TaskStatus.SUCCESS}),
        (3, {3: "success"}),
        (Numbered.OVER, {Numbered.OVER: Old.OVER}),
        ("failed", {"failed": "done"}),
    ],
)
def test_words_of_ones_own(word: object, mapping: dict[Any, Any] | None) -> None:
    """Enums, numbers and a mapping, which is asked first."""
    assert TaskStatus.SUCCESS is TaskStatus.parse(word, mapping)


@pytest.mark.parametrize("word", ["", "perhaps", None, 3, True, b"done", ["done"], object()])
def test_an_unknown_word_is_refused(word: object) -> None:
    """Also under a mapping that does not have it."""
    with pytest.raises(InvalidStatus):
        TaskStatus.parse(word)
    with pytest.raises(InvalidStatus):
        TaskStatus.parse(word, {"fertig": "done", 4: "done"})


def execution(**facts: Any) -> Execution:
    """Give an execution with some facts."""
    born = {"id": 1, "task_id": "a", "task_name": "m:f", "module": "m", "metadata": {"k": [1]}}
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return Execution(**{**born, "status": TaskStatus.PENDING, "created_at": now, **facts})


def test_an_execution_is_a_value() -> None:
    """Equal by all that is known, in sets, pickled, copied, as a dict."""
    one = execution()
    other = execution(status=TaskStatus.SUCCESS)

    assert one == execution() != other
    assert {one, execution(), other} == {one, other}
    assert one == pickle.loads(pickle.dumps(one))
    assert one == copy.deepcopy(one)
    assert copy.deepcopy(one).metadata is not one.metadata
    assert "a" == json.loads(json.dumps(dataclasses.asdict(one), default=str))["task_id"]


def test_a_page_is_walked_through() -> None:
    """Like the list of its items."""
    page = Page([execution(), execution(task_id="b")], "next")

    assert page.items == list(page)
    assert len(page.items) == len(page)
    assert page.items[1] in page
    assert page == pickle.loads(pickle.dumps(page))
    assert not Page([])
