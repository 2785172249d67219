"""Who works: each worker process registers, beats, and says farewell.

The beats come from a thread of their own (``heart``); what is told stands in ``facts``. Who is lost
is rescued by ``aiotrack.rescue``, whenever it is a worker's turn.
"""

from __future__ import annotations

from aiotrack.workers.feature import Workers

__all__ = ["Workers"]
