"""Retries: the labels that ask for them, and what TaskIQ's middlewares read before the next one."""

from __future__ import annotations

import random
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, Final

from aiotrack.errors import InvalidValue
from aiotrack.labels import RETRY_BACKOFF, RETRY_DELAY, RETRY_JITTER, is_false, seconds
from aiotrack.settings import Settings

if TYPE_CHECKING:
    from aiotrack.lifecycle import Lifecycle

LONGEST: Final = 3600.0
"""Seconds that a backoff makes of a delay at most, if it was not longer from the beginning."""

SPREAD: Final = 0.25
"""Share of a delay that jitter adds at most."""


def get_task_retry_labels(
    max_retries: int | None = None,
    delay: float | None = None,
    backoff: float | None = None,
    jitter: bool | None = None,  # noqa: FBT001 - the fourth of a documented signature
    *,
    tracker: Lifecycle | None = None,
) -> dict[str, Any]:
    """Give the labels of a task that is retried: ``@broker.task(**get_task_retry_labels())``.

    One of TaskIQ's retry middlewares has to be on the broker: it sends the retries. The delay is
    kept by ``SmartRetryMiddleware`` with a schedule source, or by a broker that reads the label
    ``delay``; otherwise a retry comes at once. What is not given comes from the settings
    ``retry_max_retries`` (3), ``retry_delay_seconds`` (5), ``retry_backoff`` (2.0) and
    ``retry_jitter`` (True).

    Args:
        max_retries: Retries after the first attempt. TaskIQ's label counts attempts: one more.
        delay: Seconds before the first retry.
        backoff: How many times longer each further delay is, up to an hour; 1 keeps it.
        jitter: Each delay is longer by a random part of a quarter of it.
        tracker: Whose settings count; default: those of the environment.

    Raises:
        InvalidValue: A value outside its range.
        InvalidSetting: A variable of the environment cannot be used.
    """
    options = Settings.load() if tracker is None else tracker.options
    retries = options.retry_max_retries if max_retries is None else max_retries
    first = options.retry_delay_seconds if delay is None else delay
    factor = options.retry_backoff if backoff is None else backoff
    if type(retries) is not int or retries < 0:
        raise InvalidValue(f"max_retries must be a whole number from 0, not {retries!r}")
    _check("delay", first, 0, 30 * 86_400)
    _check("backoff", factor, 1, 1000)
    return {
        "retry_on_error": True,
        "max_retries": retries + 1,
        "delay": first,
        RETRY_DELAY: first,
        RETRY_BACKOFF: factor,
        RETRY_JITTER: options.retry_jitter if jitter is None else bool(jitter),
    }


def _check(name: str, value: Any, least: int, most: int) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not least <= value <= most:
        raise InvalidValue(f"{name} must be a number from {least} to {most:,}, not {value!r}")


def refuse(labels: MutableMapping[str, Any]) -> None:
    """Keep both retry middlewares from another try."""
    labels["retry_on_error"] = False


def space(labels: MutableMapping[str, Any], attempt: int) -> None:
    """Set the delay before the next attempt, where the task has labels of ours."""
    first = seconds(labels.get(RETRY_DELAY))
    if first is None:
        return
    factor = seconds(labels.get(RETRY_BACKOFF)) or 1.0
    try:
        delay = min(first * factor ** (attempt - 1), max(first, LONGEST))
    except OverflowError:
        delay = max(first, LONGEST)
    if not is_false(labels.get(RETRY_JITTER, False)):
        delay *= 1 + random.random() * SPREAD
    labels["delay"] = round(delay, 3)
