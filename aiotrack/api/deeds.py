"""What is written through the API, told to the audit."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from aiotrack.api.site import Here

log = logging.getLogger(__name__)


async def record(
    here: Here,
    action: str,
    target: str,
    *,
    reason: str | None = None,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Add a row to the audit; what was done stays done when it cannot be stored.

    Args:
        here: Who did it.
        action: Such as ``execution.cancel``.
        target: What it was done to, as ``execution:a1``.
        reason: As the caller gave it.
        after: What came of it; secrets are masked.
    """
    from aiotrack.repository.audit import Audit, Deed

    tracker = here.tracker
    try:
        repository = tracker.core().repository
        await repository.connect()  # it knows what time it is
        encoder, actor = tracker.encoder, here.caller.actor
        deed = Deed(
            at=tracker.clock.now(),
            actor=None if actor is None else encoder.name(actor),
            action=action,
            target=encoder.name(target),
            reason=None if reason is None else encoder.text(reason),
            after=None if after is None else json.loads(encoder.encode_kwargs(after).text),
        )
        await Audit(repository).append(deed)
    except Exception:
        log.exception("%s of %s is not in the audit", action, target)
