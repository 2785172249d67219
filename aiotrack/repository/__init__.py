"""Where executions are kept: tables, migrations, writes by group, reads by keyset."""

from __future__ import annotations

from aiotrack.repository.columns import Base
from aiotrack.repository.control.tables import WorkerRow
from aiotrack.repository.store import Repository
from aiotrack.repository.tables import AttemptRow, ExecutionRow

__all__ = ["AttemptRow", "Base", "ExecutionRow", "Repository", "WorkerRow"]
