"""Where executions are kept: tables, migrations, writes by group, reads by keyset."""

from __future__ import annotations

from aiotrack.repository.store import Repository
from aiotrack.repository.tables import AttemptRow, Base, ExecutionRow

__all__ = ["AttemptRow", "Base", "ExecutionRow", "Repository"]
