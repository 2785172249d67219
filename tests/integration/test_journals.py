"""Which journals a process looks for: its database's, also when it is idle."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aiotrack import ExecutionNotFound, Tracker
from aiotrack.journal import Journal
from tests.control.crew import serving
from tests.integration.load import run_report
from tests.waits import until


def abandon(folder: Path, task_id: str) -> None:
    """Leave a journal as a process does that is killed in an outage."""
    journal = Journal(folder)
    journal.append([run_report(task_id)])
    journal.close()


def journals(folder: Path) -> list[Path]:
    """Give the journals below a folder."""
    return list(folder.rglob("*.journal"))


async def appears(tracker: Tracker, task_id: str) -> None:
    """Wait until a task is recorded."""

    async def is_there() -> bool:
        try:
            await tracker.get(task_id)
        except ExecutionNotFound:
            return False
        return True

    await until(f"{task_id} is recorded", is_there, 10)


@pytest.mark.parametrize("variable", ["AIOTRACK_JOURNAL_DIR", "XDG_STATE_HOME"])
async def test_a_task_may_change_the_current_folder(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """A relative folder is where it was when the tracker was made: the next process finds it."""
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    monkeypatch.delenv("AIOTRACK_JOURNAL_DIR", raising=False)
    monkeypatch.setenv(variable, "journals")
    monkeypatch.chdir(tmp_path / "here")
    tracker = Tracker(sqlite_url)
    monkeypatch.chdir(tmp_path / "there")
    async with tracker:
        kept = await tracker.core().keeper.keep(run_report("a"))
        found = journals(tmp_path)

    assert kept
    assert 1 == len(found)
    assert found[0].is_relative_to(tmp_path / "here" / "journals")


async def test_an_idle_worker_adopts_what_another_left(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there first, and runs nothing: what a killed one kept is recorded all the same."""
    monkeypatch.setattr("aiotrack.keeper.LOOK_AGAIN", 0.3)
    settings = {"journal_dir": str(tmp_path), "heartbeat_seconds": 0.1}
    tracker = Tracker(sqlite_url, settings={**settings, "rescue_lost_enabled": False})
    broker = serving(tracker)
    await broker.startup()
    await until("it looked", lambda: not tracker.core().keeper.has_work)
    await asyncio.sleep(0.5)
    abandon(tracker.core().keeper._journal._folder, "killed")
    await appears(tracker, "killed")
    await broker.shutdown()

    assert [] == journals(tmp_path)
