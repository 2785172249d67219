"""``fenced_update``: a write that is refused when a later holder of the lock has written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Update, inspect, or_, update

from aiotrack.errors import InvalidValue

if TYPE_CHECKING:
    from sqlalchemy import Table


def fenced_update(table: Table | type[Any], fence: int, column: str = "fence") -> Update:
    """Make an UPDATE that changes only rows that no later holder of the lock has written.

    Add the rest: ``fenced_update(Account, lock.fence).where(Account.id == 7).values(balance=1)``.
    Its ``rowcount`` is 0 when the write was refused, or there is no such row. The same holder may
    write a row again. A row whose column is NULL was never written with a fence, and is changed.

    Args:
        table: A table, or a mapped class.
        fence: `TaskLock.fence`, up to 2**53: the column has to be a BIGINT.
        column: Name of the column, or mapped attribute, that keeps the last fence of a row.

    Raises:
        InvalidValue: The fence is no number, or there is no such column.
    """
    if isinstance(fence, bool) or not isinstance(fence, int):
        raise InvalidValue(f"a fence is lock.fence, a number, not {type(fence).__name__}")
    known = inspect(table).columns
    if column not in known:
        raise InvalidValue(f"{table} has no column {column!r} to keep the last fence in")
    last = known[column]
    return update(table).where(or_(last.is_(None), last <= fence)).values({last: fence})
