"""R37: whatever stands in a query, path or body is a 4xx or an answer; never an error of ours."""

from __future__ import annotations

import time

import psutil
import pytest
from httpx import AsyncClient

from aiotrack import Tracker
from tests.api.abuse import LISTS, PATHS, TEXTS, encoded, strings
from tests.api.conftest import Clients

HUGE = (10**30, -(10**30), 2**63, -(2**63) - 1, 10**9, 1e308)


@pytest.fixture
def database_url(postgres_url: str) -> str:
    """The database that takes words for orders more easily."""
    return postgres_url


async def ask(client: AsyncClient, path: str) -> float:
    """Ask, and give how long it took."""
    began = time.perf_counter()
    answer = await client.get(path)
    took = time.perf_counter() - began
    assert answer.status_code < 500, (path, answer.text)
    if answer.status_code >= 400:
        assert "application/problem+json" == answer.headers["content-type"], (path, answer.text)
        assert len(answer.content) < 20_000
    return took


@pytest.mark.no_cover
async def test_injections(tracker: Tracker, api: Clients) -> None:
    """Five hundred strings, each in every text there is; none finds what it should not."""
    await tracker.register("a1", "shop.pay", metadata={"a": "1"})
    memory = psutil.Process().memory_info().rss
    times = []
    async with api() as client:
        for number, text in enumerate(strings(500)):
            told = encoded(text)
            name = TEXTS[number % len(TEXTS)]
            found = await client.get(f"/executions/?text={told}&module={told}")
            assert found.status_code < 500, (text, found.text)
            assert found.status_code >= 400 or [] == found.json()["items"], text
            for paths in (LISTS, PATHS):
                path = paths[number % len(paths)]
                times.append(await ask(client, path.format(name=name, told=told)))
        assert 1 == (await client.get("/executions/?count=true")).json()["total"]
    times.sort()

    assert times[int(len(times) * 0.99)] < 2.0  # the bar is 0.1 on a machine that is free
    assert psutil.Process().memory_info().rss - memory < 50 * 2**20


@pytest.mark.parametrize("value", HUGE)
async def test_numbers_that_fit_nowhere(api: Clients, value: float) -> None:
    """In every parameter that is a number, and in paths."""
    async with api() as client:
        for name in ("page", "page_size", "limit", "config_id", "metadata.a", "since", "after"):
            await ask(client, f"/executions/?{name}={value}")
            await ask(client, f"/executions/1/logs/?{name}={value}&attempt={value}&level={value}")
        for path in ("/executions/{}/", "/executions/{}/events/", "/configs/{}", "/tasks/{}"):
            await ask(client, path.format(value))


async def test_depth_and_size(api: Clients) -> None:
    """A million brackets, a megabyte of digits, a page of a thousand million rows."""
    bodies = (
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"9" * 1_000_000,
        b'{"task_type": "' + b"a" * 1_000_000 + b'"}',
        b"\xff\xfe",
        b'"\\ud800"',
        b"{",
        b"NaN",
    )
    async with api() as client:
        for body in bodies:
            for path in ("/tasks", "/configs", "/locks/release", "/executions/cancel/?all=true"):
                headers = {"content-type": "application/json"}
                began = time.perf_counter()
                answer = await client.post(path, content=body, headers=headers)
                assert answer.status_code in {413, 422}, (body[:20], answer.text[:200])
                assert time.perf_counter() - began < 5.0
        assert 422 == (await client.get("/executions/?page_size=1000000000")).status_code
        assert 422 == (await client.get("/executions/?page=1000000000")).status_code
        many = "&".join(f"module={number}" for number in range(3000))
        assert 422 == (await client.get(f"/executions/?{many}")).status_code
