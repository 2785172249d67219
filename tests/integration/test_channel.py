"""Messages of Redis: heard after a silence, after a cut, and after a server that says nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from aiotrack.redis import channel as channels
from aiotrack.redis.channel import Channel
from aiotrack.redis.client import make_client
from tests.integration.proxy import Proxy, proxied

Next = Callable[[], Any]


@pytest.fixture
async def heard(
    redis_url: str, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Proxy, Next, list[str]]]:
    """A channel over a proxy; what says something on it and waits for it; what happened."""
    monkeypatch.setattr(channels, "SILENCE", 0.4)
    monkeypatch.setattr(channels, "AGAIN", 0.1)
    messages: asyncio.Queue[bytes] = asyncio.Queue()
    story: list[str] = []
    async with proxied(redis_url) as (proxy, url), Redis.from_url(redis_url) as sender:
        listening = Channel(
            make_client(url),
            queue_name,
            on_message=messages.put_nowait,
            on_open=lambda: story.append("open"),
            on_fault=lambda error: story.append(type(error).__name__),
        )
        assert await listening.open()

        async def said() -> bytes:
            await sender.publish(queue_name, "hello")
            async with asyncio.timeout(5):
                return await messages.get()

        yield proxy, said, story
        await listening.close()


async def test_it_hears_after_a_silence(heard: tuple[Proxy, Next, list[str]]) -> None:
    """However long nobody said anything, over the same connection."""
    _, said, story = heard
    await asyncio.sleep(1.5)

    assert b"hello" == await said()
    assert ["open"] == story


async def test_it_hears_after_a_loop_that_stood_still(
    heard: tuple[Proxy, Next, list[str]],
) -> None:
    """It heard nothing because it did not listen: it asks before it hangs up."""
    _, said, story = heard
    await asyncio.sleep(0.1)
    time.sleep(1.5)  # noqa: ASYNC251 - the fault itself
    await asyncio.sleep(1)

    assert b"hello" == await said()
    assert ["open"] == story


async def test_it_hears_after_a_cut(heard: tuple[Proxy, Next, list[str]]) -> None:
    """It connects anew, and tells that something may have been missed."""
    proxy, said, story = heard
    proxy.cut()
    await asyncio.sleep(0.6)

    assert b"hello" == await said()
    assert "open" == story[0] == story[-1]
    assert 2 == story.count("open")


async def test_it_hears_after_a_line_that_went_dead(heard: tuple[Proxy, Next, list[str]]) -> None:
    """Nobody cut it, and nothing comes any more: it asks, and hangs up."""
    proxy, said, story = heard
    proxy.is_black_hole = True
    await asyncio.sleep(1.5)
    proxy.is_black_hole = False
    async with asyncio.timeout(10):
        while story.count("open") < 2:  # noqa: ASYNC110 - as a user would see it
            await asyncio.sleep(0.05)

    assert b"hello" == await said()
