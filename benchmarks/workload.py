"""A mixed workload whose right outcome is known: successes, failures, retries that help or not."""

from __future__ import annotations

from dataclasses import dataclass

ATTEMPTS = 3  # at most: the retry middleware's max_retries
KINDS = ("success", "success", "success", "retry1", "success", "failure", "success", "retry2")


@dataclass(frozen=True, slots=True)
class Expected:
    """What has to be known of a task in the end."""

    status: str
    errors: tuple[str, ...]
    """The text of each failed attempt's error, in order."""


def kind_of(number: int) -> str:
    """Give the kind of the task with this number."""
    return KINDS[number % len(KINDS)]


def words(number: int, attempt: int) -> str:
    """Give the text of the error that an attempt raises."""
    return f"task {number} attempt {attempt}."


def expected(number: int) -> Expected:
    """Give what a tracker has to know of a task."""
    kind = kind_of(number)
    if kind == "success":
        return Expected("SUCCESS", ())
    failed = ATTEMPTS if kind == "failure" else int(kind[-1])
    errors = tuple(words(number, attempt) for attempt in range(1, failed + 1))
    return Expected("FAILURE" if kind == "failure" else "SUCCESS", errors)
