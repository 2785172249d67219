"""Requests that are made again where that can do no harm."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from aiotrack.client.faults import code_of, error_of, object_with
from aiotrack.errors import (
    InvalidInput,
    InvalidQuery,
    InvalidSetting,
    QueueFull,
    ScheduleUnavailable,
    StoreUnavailable,
)

log = logging.getLogger(__name__)

PREFIX: Final = "/api/v1"
"""Where `aiotrack serve` has the API."""

TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0, pool=30.0)
"""Seconds: the server gives up on a query after two, and on a database that is away after a few."""

STREAMING: Final = httpx.Timeout(10.0, connect=5.0, pool=30.0, read=45.0)
"""Seconds: an open stream of events says something every 15."""

NEVER_CAME: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""No connection: the server cannot have heard of the request."""


class Again(Enum):
    """When a request may be made again."""

    ALWAYS = "always"
    """Doing it twice is doing it once."""

    UNHEARD = "unheard"
    """Only when it was certainly not done."""


class Transport:
    """Connections to one API.

    Args:
        url: Of the server; with a path it is where the API is.
        token: Sent as ``Authorization: Bearer``.
        retries: How often a request is made again.
        backoff: Seconds before the first retry at most; twice as long before each further one.
        max_backoff: Seconds before any retry at most.

    Raises:
        InvalidSetting: What cannot be used.
    """

    def __init__(
        self, url: str, token: str | None, *, retries: int, backoff: float, max_backoff: float
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidSetting("url", "must be http://... or https://...")
        if retries < 0 or not 0 <= backoff <= max_backoff:
            raise InvalidSetting("retries", "must be 0 or more, and 0 <= backoff <= max_backoff")
        if token is not None and not (token.isascii() and token.isprintable() and token):
            raise InvalidSetting("token", "must be printable ASCII")
        path = parts.path.rstrip("/") or PREFIX
        self.base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{path}"
        self.retries = retries
        self._backoff = backoff
        self._max_backoff = max_backoff
        headers = {"accept": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self.http = httpx.AsyncClient(headers=headers, timeout=TIMEOUT)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | int | None = None,
        again: Again = Again.ALWAYS,
        params: list[tuple[str, str]] | None = None,
        body: Any = None,
        fine: str | None = None,
    ) -> Any:
        """Make a request until it is answered, and give what the answer holds.

        Args:
            method: GET, POST, ...
            path: Behind the API's own, already percent-encoded.
            key: What is asked for, for the error that says that it is not there.
            again: When it may be made again.
            params: Query parameters.
            body: Sent as JSON.
            fine: What a 503 holds that is an answer all the same.

        Raises:
            AioTrackError: What the server said, as the tracker's own error; `StoreUnavailable`
                when it could not be reached.
            InvalidQuery: A read that cannot be sent.
            InvalidInput: Anything else that cannot.
        """
        tries = 0
        while True:
            pause: float | None = None
            try:
                answer = await self.http.send(self._request(method, path, params, body))
            except httpx.TransportError as error:
                if tries >= self.retries or not _may_after_error(error, again):
                    raise StoreUnavailable(self.unreachable(error)) from error
                trouble: object = error
            else:
                if answer.is_success or _is_fine(answer, fine):
                    return _json(answer)
                if tries >= self.retries or not _may_after_answer(answer, again):
                    raise error_of(answer.status_code, answer.content, key, is_read=method == "GET")
                trouble, pause = answer.status_code, retry_after(answer.headers)
            log.debug("%s %s: %r, once more", method, path, trouble)
            await self.pause(tries, pause)
            tries += 1

    def _request(
        self, method: str, path: str, params: list[tuple[str, str]] | None, body: Any
    ) -> httpx.Request:
        url = f"{self.base}{path}"
        try:
            return self.http.build_request(method, url, params=tuple(params or ()), json=body)
        except (TypeError, ValueError, RecursionError, httpx.InvalidURL) as error:
            fault = f"it cannot be sent over HTTP: {error}"
            raise InvalidQuery(fault) if method == "GET" else InvalidInput([fault]) from error

    async def pause(self, tries: int, told: float | None = None) -> None:
        """Wait before a retry: as long as the server said, else longer each time, with jitter.

        Args:
            tries: Retries so far.
            told: Seconds; at most `max_backoff` of them are waited for.
        """
        if told is not None:
            await asyncio.sleep(min(told, self._max_backoff))
            return
        most = min(self._max_backoff, self._backoff * 2 ** min(tries, 60))
        await asyncio.sleep(random.uniform(0, most))

    def unreachable(self, error: Exception) -> str:
        """Say that the server could not be asked."""
        told = str(error) or type(error).__name__
        return f"the API at {self.base} did not answer: {told}"

    async def close(self) -> None:
        """Let the connections go."""
        await self.http.aclose()


def _is_fine(answer: httpx.Response, fine: str | None) -> bool:
    is_away = answer.status_code == 503  # which proxies say, too, in their own words
    return is_away and fine is not None and object_with(fine, answer.content) is not None


def _may_after_error(error: httpx.TransportError, again: Again) -> bool:
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError)):
        return False
    return again is Again.ALWAYS or isinstance(error, NEVER_CAME)


def _may_after_answer(answer: httpx.Response, again: Again) -> bool:
    """Whether a refusal is one for the moment, and whether nothing was done."""
    if answer.status_code == 429:
        return True
    if answer.status_code == 503 and code_of(answer.content) in _NOT_BEGUN:
        return True
    return again is Again.ALWAYS and answer.status_code in {502, 503, 504}


_NOT_BEGUN: Final = {kind.code for kind in (QueueFull, ScheduleUnavailable)}
"""What the API says before it does anything. A database or broker may go away half-way, with the
message taken, and a proxy says 503 of an answer that got lost, too."""


def retry_after(headers: httpx.Headers) -> float | None:
    """Read ``Retry-After``, seconds or a date; None when it is absent or nonsense."""
    told = headers.get("retry-after", "").strip()
    if told.isascii() and told.isdigit():
        return float(told[:9])
    try:
        moment = parsedate_to_datetime(told)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def _json(answer: httpx.Response) -> Any:
    if answer.status_code == 204 or not answer.content:
        return None
    try:
        return answer.json()
    except (ValueError, RecursionError):
        raise error_of(answer.status_code, b"", None, is_read=True) from None
