"""What aiotrack is tested with, for users' tests too; each name loads its module on use."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiotrack.testing.servers import PostgresServer, ValkeyServer

__all__ = ["PostgresServer", "ValkeyServer"]


def __getattr__(name: str) -> object:
    if name in __all__:
        from aiotrack.testing import servers

        return getattr(servers, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
