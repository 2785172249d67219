"""Python's cyclic garbage collector in a worker process: see docs/decisions/007."""

from __future__ import annotations

import gc

YOUNG = 2_000
"""New objects that a collection waits for at least: what Python has by itself since 3.13."""


def settle() -> None:
    """Let no collection walk again what is loaded by now, and collect no more often than needed."""
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    if 0 < young < YOUNG:  # 0: the user has turned it off
        gc.set_threshold(YOUNG, middle, old)
