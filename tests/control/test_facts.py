"""What a worker tells of itself, where the system or TaskIQ tells it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from taskiq.receiver import Receiver

from aiotrack.workers import facts
from tests.control.crew import QuietBroker


def test_memory_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is installed psutil tells it."""
    here = facts.memory()
    assert here is not None

    def fail(_: Path) -> str:
        raise OSError("no /proc")

    monkeypatch.setattr(Path, "read_text", fail)
    other = facts.memory()
    monkeypatch.setattr(facts, "import_module", fail)
    nothing = facts.memory()

    assert other is not None
    assert 0.5 < other / here < 2
    assert None is nothing


async def test_how_many_run_at_once() -> None:
    """As many as were ever free; without a limit nobody knows."""
    broker = QuietBroker()
    nobody = facts.Room([broker]).size()
    receiver = Receiver(broker, max_async_tasks=3)
    assert receiver.sem is not None
    await receiver.sem.acquire()
    room = facts.Room([broker])
    busy = room.size()
    receiver.sem.release()
    idle = room.size()
    await receiver.sem.acquire()
    again = room.size()
    unlimited = Receiver(broker)
    none = facts.Room([broker]).size()

    assert (None, 2, 3, 3, None) == (nobody, busy, idle, again, none)
    assert unlimited.sem is None


async def test_the_share_of_a_core() -> None:
    """Since it was asked last."""
    cpu = facts.Cpu()
    at_once = cpu.share()
    await asyncio.sleep(0.05)
    share = cpu.share()

    assert None is at_once
    assert share is not None
    assert 0 <= share < 4


def test_versions() -> None:
    """Of what decides how tasks run."""
    assert all(part[0].isdigit() for part in facts.versions().values())
