"""The metrics of a process in prometheus_client: made once, told by every loop."""

from __future__ import annotations

import weakref
from collections import Counter as Numbers
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge

if TYPE_CHECKING:
    from aiotrack.core import Core

_COUNTERS: Final = {
    "reports": "Reports that hooks and verbs handed over",
    "flushed": "Reports that were committed",
    "groups": "Commits of groups of reports",
    "journaled": "Final reports that were kept on the local disk while the database was away",
    "late": "Hooks that went on before their report was committed",
    "dropped": "Reports that were given up since memory and disk were full",
    "failures": "Commits that failed",
    "nonsense": "Percentages of progress that were no numbers",
}


class Meter:
    """Counters and gauges in prometheus_client's default registry."""

    def __init__(self) -> None:
        self._counters = {
            name: Counter(f"aiotrack_{_named(name)}", f"{told}.")
            for name, told in _COUNTERS.items()
        }
        self._buffered = Gauge(
            "aiotrack_reports_buffered",
            "Reports that wait for their commit.",
            multiprocess_mode="livesum",
        )
        self._running = Gauge("aiotrack_runs", "Runs in flight.", multiprocess_mode="livesum")
        self._stalled = Gauge(
            "aiotrack_recording_stalled",
            "1 while the database has been away for longer than the commit budget.",
            multiprocess_mode="livemax",
        )
        self._told: weakref.WeakKeyDictionary[Core, Numbers[str]] = weakref.WeakKeyDictionary()

    def tell(self, core: Core) -> None:
        """Tell what a loop's recorder has counted since it was told last."""
        now = core.recorder.counters
        before = self._told.get(core, Numbers())
        for name, counter in self._counters.items():
            if now[name] > before[name]:
                counter.inc(now[name] - before[name])
        self._told[core] = Numbers(now)
        cores = tuple(self._told)
        self._buffered.set(sum(one.recorder.backlog for one in cores))
        self._running.set(sum(len(one.recorder.running) for one in cores))
        self._stalled.set(any(one.recorder.is_stalled for one in cores))


def _named(name: str) -> str:
    """Give the name of a counter, without the ``_total`` that prometheus_client adds."""
    if name in {"groups", "failures"}:
        return {"groups": "commits", "failures": "commit_failures"}[name]
    return "reports" if name == "reports" else f"reports_{name}"


METER: Final = Meter()
"""That of this process: a registry takes a name once."""
