"""The tracker's verbs over HTTP: for processes that have no database, only the API's address.

Needs the extra ``client``; the errors do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiotrack.client.faults import AccessRefused, ClientError
from aiotrack.errors import MissingExtra

if TYPE_CHECKING:
    from aiotrack.client.client import Client

__all__ = ["AccessRefused", "Client", "ClientError"]


def __getattr__(name: str) -> Any:
    if name != "Client":
        raise AttributeError(f"module 'aiotrack.client' has no attribute {name!r}")
    try:
        from aiotrack.client.client import Client
    except ModuleNotFoundError as error:
        if error.name != "httpx":
            raise
        raise MissingExtra("httpx", "client", "aiotrack.client") from None
    return Client
