"""A holder sleeps for longer than its lease, another does the work: the late write is refused."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from sqlalchemy import BigInteger
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from aiotrack import LockLost, Tracker, fenced_update
from aiotrack.testing.servers import ValkeyServer

logging.getLogger("aiotrack").addHandler(logging.NullHandler())  # the loss is also logged


class Base(DeclarativeBase):
    """The application's own models."""


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]
    fence: Mapped[int | None] = mapped_column(BigInteger)  # who wrote it last


async def write(session: AsyncSession, who: str, balance: int, fence: int) -> None:
    """Write, unless somebody who got the lock after us has written."""
    change = fenced_update(Account, fence).where(Account.id == 7).values(balance=balance)
    done = await session.execute(change)
    print(f"{who} writes {balance}: {'done' if done.rowcount else 'refused, it is too late'}")
    await session.commit()


async def main(folder: str, url: str) -> None:
    tracker = Tracker(f"sqlite+aiosqlite:///{folder}/aiotrack.db", redis=url)
    engine = create_async_engine(f"sqlite+aiosqlite:///{Path(folder) / 'shop.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    async def second() -> None:
        async with (
            tracker.lock("account", key=7, wait=10) as lock,
            AsyncSession(engine) as session,
        ):
            await write(session, "the second", 150, lock.fence)

    async with tracker, AsyncSession(engine) as session:
        session.add(Account(id=7, balance=100))
        await session.commit()
        try:
            # renew=False and the sleep stand for a machine that was frozen for a while
            async with tracker.lock("account", key=7, ttl=0.5, renew=False, on_lost="flag") as lock:
                balance = 100 + 10  # what the first one read, and means to write
                await asyncio.create_task(second())  # gets the lock when the lease is over
                await write(session, "the first", balance, lock.fence)
        except LockLost:
            print("the first hears that its lock was lost")
        account = await session.get_one(Account, 7, populate_existing=True)
        print("balance", account.balance)
    await engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, ValkeyServer() as server:
        asyncio.run(main(folder, server.url))
