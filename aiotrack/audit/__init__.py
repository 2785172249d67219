"""The audit: who did what to what, and why."""

from __future__ import annotations

from aiotrack.audit.verbs import AuditLog

__all__ = ["AuditLog"]
