"""What users call: ``tracker.audit``."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from aiotrack.lifecycle import Lifecycle
    from aiotrack.model import AuditEntry, Page

log = logging.getLogger(__name__)

PATIENCE: Final = 2.0
"""Seconds for one row: whoever did something does not wait for longer until he hears of it."""


class AuditLog:
    """Who did what to what: rows that are only ever appended to.

    Definitions, schedules and locks write theirs themselves, the REST API and the command line
    those of their callers. Rows are kept for the setting ``audit_retention_days``; the clean-up
    deletes older ones.
    """

    def __init__(self, tracker: Lifecycle) -> None:
        self._tracker = tracker

    async def append(
        self,
        action: str,
        target: str,
        *,
        by: str | int | None = None,
        reason: str | None = None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a row. Never raises: what cannot be stored is logged, for what was done is done.

        Waits for two seconds at the most; a database that is slower may have kept it all the same.

        Args:
            action: What was done, such as ``invoice.approve``.
            target: To what, such as ``invoice:7``.
            by: Who did it.
            reason: Why.
            before: What was; any values, which are bounded and redacted as arguments of a task are.
            after: What is.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                await self._append(action, target, by, reason, before, after)
        except Exception as error:  # whatever it is, nothing is undone by it
            told = f"no answer within {PATIENCE:g} s" if isinstance(error, TimeoutError) else error
            log.error("the audit does not know of %r on %r: %s", action, target, told)

    async def _append(
        self,
        action: str,
        target: str,
        by: str | int | None,
        reason: str | None,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        from aiotrack.repository.control.audit import Audit, Deed

        repository, encoder = self._tracker.core().repository, self._tracker.encoder
        deed: dict[str, Any] = {
            "action": encoder.name(str(action)),
            "target": encoder.name(str(target)),
            "actor": None if by is None else encoder.name(str(by)),
            "reason": None if reason is None else encoder.text(str(reason)),
            "before": self._shown(before),
            "after": self._shown(after),
        }
        await repository.connect()  # it knows what time it is
        await Audit(repository).append(Deed(at=self._tracker.clock.now(), **deed))

    async def list(
        self,
        *,
        actor: str | int | None = None,
        action: str | None = None,
        target: str | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[AuditEntry]:
        """Give a page of the rows that match every filter, the newest first.

        Any one of the filters is quick on any number of rows; what several leave is looked for
        among what the rarest gives.

        Args:
            actor: Done by exactly this one.
            action: Exactly this, such as ``schedule.pause``.
            target: Done to exactly this, such as ``definition:7``.
            since: Not before this aware time, or so long ago.
            until: Not after it; likewise.
            limit: Rows of the page, 1 to 1000.
            after: ``next`` of the page before, with the same filters.

        Raises:
            InvalidQuery: A filter, limit or cursor that cannot be served.
            InvalidValue: A time without an offset.
            QueryTimeout: No index serves it, and two seconds were over.
            StoreUnavailable: The database did not answer.
        """
        from aiotrack.repository.control.audit import Audit

        name = self._tracker.encoder.name
        told = {"actor": actor, "action": action, "target": target}
        exact = {key: None if value is None else name(str(value)) for key, value in told.items()}
        audit = Audit(self._tracker.core().repository)
        return await audit.page(limit=limit, after=after, since=since, until=until, **exact)

    def _shown(self, facts: Mapping[str, Any] | None) -> dict[str, Any] | None:
        if facts is None:
            return None
        found: dict[str, Any] = json.loads(self._tracker.encoder.encode_kwargs(facts).text)
        return found
