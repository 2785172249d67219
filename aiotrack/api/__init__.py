"""The REST API: `create_router` for a FastAPI application, `create_app` for one of its own.

One module for each resource. Needs the extra ``api``.
"""

from __future__ import annotations

from aiotrack.errors import MissingExtra

try:
    from aiotrack.api.access import Scope, Token
    from aiotrack.api.app import create_app
    from aiotrack.api.router import create_ingest, create_router
except ModuleNotFoundError as error:
    package = (error.name or "").partition(".")[0]
    if package not in {"fastapi", "pydantic", "starlette"}:
        raise
    raise MissingExtra(package, "api", "the REST API") from None

__all__ = ["Scope", "Token", "create_app", "create_ingest", "create_router"]
