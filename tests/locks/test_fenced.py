"""`fenced_update`: what an earlier holder writes late is refused, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import BigInteger, insert, select
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aiotrack import InvalidValue, fenced_update


class Base(DeclarativeBase):
    """Models of a project."""


class Account(Base):
    """One whose fence is stored under another name."""

    __tablename__ = "fenced_accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]
    fence: Mapped[int | None] = mapped_column("last_fence", BigInteger)


FENCE = 1_795_293_650_105_289


@pytest.mark.parametrize(
    ("target", "column"), [(Account, "fence"), (Account.__table__, "last_fence")]
)
async def test_a_late_write_is_refused(empty_database_url: str, target: Any, column: str) -> None:
    """Never written, again by the same holder, by the next: done; by the one before: refused."""
    engine = create_async_engine(empty_database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Account).values(id=7, balance=0))
        done = []
        for balance, fence in ((1, FENCE), (2, FENCE), (3, FENCE + 1), (4, FENCE)):
            change = fenced_update(target, fence, column).where(Account.id == 7)
            done.append((await connection.execute(change.values(balance=balance))).rowcount)
        found = (await connection.execute(select(Account.balance, Account.fence))).one()
    await engine.dispose()

    assert [1, 1, 1, 0] == done
    assert (3, FENCE + 1) == tuple(found)


@pytest.mark.parametrize(("fence", "column"), [("7", "fence"), (True, "fence"), (7, "version")])
def test_mistakes(fence: Any, column: str) -> None:
    """A statement without its condition would be worse than none."""
    with pytest.raises(InvalidValue):
        fenced_update(Account, fence, column)
