"""The seam for features: a part of a loop's core that can be deleted with its folder.

The core never names one; `aiotrack.tracker` lists the standard ones, a line each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from taskiq import AsyncBroker

    from aiotrack.core import Core
    from aiotrack.current import Run
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.report import Report
    from aiotrack.sweep import Sweep


class Feature:
    """One object for each event loop that uses a tracker. Every hook here does nothing.

    Args:
        tracker: Its settings, encoder and clock.
        core: What belongs to the loop: connections, buffer, writer, live wake-ups.
    """

    sweeps: ClassVar[tuple[Sweep, ...]] = ()
    """Tasks of ours that a schedule runs, once for each due time across a fleet."""

    def __init__(self, tracker: Lifecycle, core: Core) -> None:
        self.tracker = tracker
        self.core = core

    @classmethod
    def attach(cls, tracker: Lifecycle, broker: AsyncBroker) -> None:
        """Meet a broker as soon as the middleware does, long before any loop runs."""

    def serve(self, broker: AsyncBroker) -> None:
        """Begin what a worker does, in its loop, before its first run: never wait."""

    async def ready(self) -> None:
        """Get ready in a worker, after `serve` and before its first message: for a second or two.

        What takes longer is done meanwhile.
        """

    def on_begin(self, run: Run) -> None:
        """Meet a run before its body. With ``run.cancel`` set, the body does not run.

        ``run.check`` looks at what the body gives, in its thread; what it raises makes it fail.
        """

    def on_raise(self, run: Run, error: BaseException) -> None:
        """Look at what a body raised, in the body's thread, before retry middlewares do.

        ``run.error_class`` and ``run.labels`` may be set.
        """

    def on_commit(self, reports: Sequence[Report]) -> None:
        """Hear of reports that are durable now, in the loop, between two groups: never wait."""

    async def before_change(self, task_id: str) -> None:
        """Write what belongs to a record as it stands, before its status is changed by hand.

        Args:
            task_id: As it is stored.
        """

    async def close(self, *, for_good: bool) -> None:
        """Let go of what is held, within half a second.

        Args:
            for_good: Otherwise runs are in flight, and may need it again.
        """


def hooks(features: Iterable[Feature], name: str) -> tuple[Callable[..., Any], ...]:
    """Give a hook of all features that have one: those that do nothing cost nothing."""
    return tuple(
        getattr(one, name)
        for one in features
        if getattr(type(one), name) is not getattr(Feature, name)
    )
