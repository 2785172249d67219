"""The dashboard: a page of plain ES modules over the REST API.

`mount_dashboard` adds it to an application. No build step, nothing from elsewhere, no inline script
or style. Needs the extra ``api``.
"""

from __future__ import annotations

from aiotrack.errors import MissingExtra

try:
    from aiotrack.dashboard.mount import mount_dashboard
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "starlette":
        raise
    raise MissingExtra("starlette", "api", "the dashboard") from None

__all__ = ["mount_dashboard"]
