"""What is written through the API, told to the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiotrack.api.site import Here


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
    by = here.caller.actor
    await here.tracker.audit.append(action, target, by=by, reason=reason, after=after)
