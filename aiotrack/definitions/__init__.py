"""Task definitions: what may be sent by name, with which parameters, and when. Rows, no state."""

from __future__ import annotations

from aiotrack.definitions.verbs import Definitions, Fields

__all__ = ["Definitions", "Fields"]
