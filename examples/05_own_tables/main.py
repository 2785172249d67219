"""Join executions to a table of your own with SQLAlchemy, in your own session."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from sqlalchemy import ForeignKey, String, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from taskiq import InMemoryBroker

from aiotrack import ExecutionRow, Tracker, TrackerMiddleware


class Base(DeclarativeBase):
    """The application's own models: aiotrack's have a base and a metadata of their own."""


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Invoice(Base):
    __tablename__ = "invoices"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    task_id: Mapped[str] = mapped_column(String(255), index=True)  # no foreign key: see README


logging.getLogger("taskiq").setLevel(logging.CRITICAL)  # it would log the errors made here
folder = tempfile.TemporaryDirectory()
engine = create_async_engine(f"sqlite+aiosqlite:///{Path(folder.name) / 'shop.db'}")
tracker = Tracker(engine)  # one engine for both
broker = InMemoryBroker().with_middlewares(TrackerMiddleware(tracker))


@broker.task("billing.send")
async def send(name: str) -> str:
    if name == "Bob":
        raise ValueError("Bob has no address")
    return f"sent to {name}"


async def main() -> None:
    await broker.startup()
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    for number, name in enumerate(("Ann", "Bob"), 1):
        task = await send.kiq(name)
        async with AsyncSession(engine) as session, session.begin():
            session.add(Customer(id=number, name=name))
            session.add(Invoice(customer_id=number, task_id=task.task_id))
        await task.wait_result()

    async with AsyncSession(engine) as session:
        query = (
            select(Customer.name, ExecutionRow.status, ExecutionRow.error)
            .join(Invoice, Invoice.customer_id == Customer.id)
            .join(ExecutionRow, ExecutionRow.task_id == Invoice.task_id)
            .order_by(Customer.name)
        )
        for name, status, error in await session.execute(query):
            print(name, status, error)
    await broker.shutdown()
    await engine.dispose()  # the engine stays its owner's


if __name__ == "__main__":
    with folder:
        asyncio.run(main())
