"""The schema's history (Alembic), callable from aiotrack and from a user's own Alembic.

In a user's own migration::

    from aiotrack.repository import migrations

    def upgrade() -> None:
        migrations.upgrade()        # to this release's schema, in the migration's own transaction

    def downgrade() -> None:
        migrations.downgrade()      # back to nothing

Either way the table ``aiotrack_version`` says where the schema stands.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

__all__ = ["config", "downgrade", "upgrade"]


def config(connection: Connection | None = None) -> Config:
    """Give the Alembic configuration of aiotrack's migrations, bound to *connection*."""
    from alembic.config import Config

    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def upgrade(connection: Connection | None = None, revision: str = "head") -> None:
    """Bring the schema up to *revision*.

    Args:
        connection: An open connection; None takes the one of the Alembic migration that runs now.
        revision: ``head`` or the number of a migration.
    """
    from alembic import command

    bound = config(_connection(connection))
    with _inside_another():
        command.upgrade(bound, revision)


def downgrade(connection: Connection | None = None, revision: str = "base") -> None:
    """Bring the schema down to *revision*; ``base`` drops every table of aiotrack."""
    from alembic import command

    bound = config(_connection(connection))
    with _inside_another():
        command.downgrade(bound, revision)


def _connection(given: Connection | None) -> Connection:
    if given is not None:
        return given
    from alembic import op

    return op.get_bind()


@contextlib.contextmanager
def _inside_another() -> Iterator[None]:
    """Give a user's migration that runs now its `op` and `context` back afterwards.

    Alembic keeps both in module globals, and the end of a run inside takes them away.
    """
    from alembic import context, op

    found: list[Any] = [getattr(module, "_proxy", None) for module in (context, op)]
    try:
        yield
    finally:
        for proxy in found:
            if proxy is not None:
                proxy._install_proxy()  # noqa: SLF001 - Alembic has no public way
