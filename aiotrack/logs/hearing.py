"""To which attempt a record belongs: the run, or the collector, of the context it is logged in."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from aiotrack.current import COLLECTING, CURRENT, Run
from aiotrack.logs.lines import FRAMEWORK, line_of
from aiotrack.logs.listener import writers

if TYPE_CHECKING:
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.logs.collector import Collecting
    from aiotrack.logs.scroll import Scroll
    from aiotrack.logs.writer import Logs

_making = threading.RLock()


def hear(record: logging.LogRecord) -> None:
    """Put a record to its attempt; never raise, never wait."""
    collecting = COLLECTING.get()
    run = CURRENT.get()
    if run is None and collecting is None:
        return
    try:
        if record.name.partition(".")[0] in FRAMEWORK:
            return
        scroll = _scroll_for(record, collecting, run)
        if scroll is None or scroll.is_gone:
            return
        writer = scroll.writer
        tracker = writer.tracker
        line = line_of(record, tracker.clock.now(), tracker.encoder, writer.longest)
        writer.put(scroll, line)
    except Exception:  # a record that nobody can make a line of, or a process that ends
        return


def _scroll_for(
    record: logging.LogRecord, collecting: Collecting | None, run: Run | None
) -> Scroll | None:
    while collecting is not None:
        if collecting.wants(record):
            return collecting.scroll
        collecting = collecting.outer
    if run is None or run.is_over:
        return None
    scroll = run.logs
    if scroll is None:
        writer = writer_near(run.tracker)
        if writer is None or not writer.is_on or record.levelno < writer.level:
            return None
        scroll = scroll_of(run, writer)
    return None if record.levelno < scroll.writer.level else scroll


def scroll_of(run: Run, writer: Logs) -> Scroll:
    """Give a run's scroll; the first line of a run has it made."""
    made = writer.scroll_of(run)
    with _making:  # two threads may log their first lines at once
        run.logs = run.logs or made
    return run.logs


def writer_near(tracker: Lifecycle) -> Logs | None:
    """Give a tracker's writer in the running loop, else in a living one; None: there is none."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    found = None
    for writer in writers():
        if writer.tracker is tracker and not writer.loop.is_closed():
            found = writer
            if writer.loop is here:
                break
    return found
