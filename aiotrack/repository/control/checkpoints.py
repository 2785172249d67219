"""Checkpoints: one row for each task, which only the newest of its runs may write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from aiotrack.clock import to_datetime
from aiotrack.repository.store import Repository

CHAIN: Final = 32
"""Reruns of reruns that are followed: a guess, more than anybody clicks; a ring of them ends."""

_SAVE: Final = """
INSERT INTO aiotrack_checkpoints AS t (task_id, state, attempt, run_started_at, run_id, seq, at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (task_id) DO UPDATE SET state = excluded.state, attempt = excluded.attempt,
    run_started_at = excluded.run_started_at, run_id = excluded.run_id, seq = excluded.seq,
    at = excluded.at
WHERE (t.run_id = excluded.run_id AND t.seq <= excluded.seq)
    OR (t.run_id <> excluded.run_id AND (t.attempt, t.run_started_at, t.run_id)
        < (excluded.attempt, excluded.run_started_at, excluded.run_id))
RETURNING run_id
"""
"""A run's later word replaces its earlier one, a later run's that of an earlier run."""

_WHOSE: Final = "SELECT run_id FROM aiotrack_checkpoints WHERE task_id = $1"

_LAST: Final = text(f"""
WITH RECURSIVE chain (task_id, depth) AS (
    SELECT CAST(:task_id AS VARCHAR(255)), 0
    UNION ALL
    SELECT CAST(e.rerun_of AS VARCHAR(255)), chain.depth + 1
    FROM chain JOIN aiotrack_executions e ON e.task_id = chain.task_id
    WHERE e.rerun_of IS NOT NULL AND chain.depth < {CHAIN}
)
SELECT c.state FROM chain JOIN aiotrack_checkpoints c ON c.task_id = chain.task_id
ORDER BY chain.depth LIMIT 1
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One state of one run; times in microseconds, ``state`` is JSON text."""

    task_id: str
    state: str
    attempt: int
    run_started_at: int
    run_id: str
    seq: int
    at: int


class Checkpoints:
    """The checkpoints of a repository. All verbs raise `StoreUnavailable`."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def save(self, checkpoint: Checkpoint) -> bool:
        """Commit a checkpoint by one statement; False when a later run's stands, and stays."""
        repository = self._repository
        started, at = checkpoint.run_started_at, checkpoint.at
        is_sqlite = repository.dialect == "sqlite"
        values = (
            *(checkpoint.task_id, checkpoint.state, checkpoint.attempt),
            started if is_sqlite else to_datetime(started),
            *(checkpoint.run_id, checkpoint.seq),
            at if is_sqlite else to_datetime(at),
        )
        if await repository.execute(_SAVE, values):
            return True
        whose = await repository.execute(_WHOSE, (checkpoint.task_id,))
        return bool(whose) and whose[0][0] == checkpoint.run_id  # its own later word overtook it

    async def last(self, task_id: str, rerun_of: str | None = None) -> str | None:
        """Give the state of a task, else of the one that it is a rerun of; one or two SELECTs.

        Args:
            task_id: As it is stored.
            rerun_of: What it is a rerun of, where its record may not tell it yet.
        """
        for start in (task_id, rerun_of):
            async with self._repository.connection() as connection:
                found = (await connection.execute(_LAST, {"task_id": start})).first()
            if found is not None:
                return str(found[0])
            if rerun_of is None:
                return None
        return None
