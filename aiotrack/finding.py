"""Which tracker is meant by a function that was given none."""

from __future__ import annotations

from aiotrack.current import CURRENT
from aiotrack.errors import TrackerNotFound
from aiotrack.lifecycle import Lifecycle, started


def the_tracker(given: Lifecycle | None = None) -> Lifecycle:
    """Give the tracker that is meant: the one given, the current run's, or the only started one.

    Raises:
        TrackerNotFound: None is started here, or several are; they are named by their databases.
    """
    if given is not None:
        return given
    run = CURRENT.get()
    if run is not None and not run.is_over:
        return run.tracker
    found = started()
    if len(found) != 1:
        raise TrackerNotFound(tuple(sorted(map(repr, found))))
    return found[0]
