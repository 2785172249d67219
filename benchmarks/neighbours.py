"""What people write when they need executions in their database: a session for each event.

Representative of what is found in projects: an ORM model, select, then insert or update, commit.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, String, Text, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from taskiq import TaskiqMessage, TaskiqMiddleware, TaskiqResult


class Base(DeclarativeBase):
    pass


class Execution(Base):
    __tablename__ = "task_executions"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[str] = mapped_column(String(255), unique=True)
    task_name: Mapped[str] = mapped_column(String(255), index=True)
    status: Mapped[str] = mapped_column(String(20), index=True)
    args: Mapped[Any] = mapped_column(JSON)
    kwargs: Mapped[Any] = mapped_column(JSON)
    result: Mapped[Any] = mapped_column(JSON, nullable=True)
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class NaiveMiddleware(TaskiqMiddleware):
    """Opens a session for each event, looks the row up, writes it, commits."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._engine = create_async_engine(url, pool_size=20, max_overflow=0)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    async def startup(self) -> None:
        async with self._engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def shutdown(self) -> None:
        await self._engine.dispose()

    async def post_send(self, message: TaskiqMessage) -> None:
        await self._write(message, created_at=datetime.now(UTC))

    async def pre_execute(self, message: TaskiqMessage) -> TaskiqMessage:
        await self._write(message, status="STARTED", started_at=datetime.now(UTC))
        return message

    async def post_execute(self, message: TaskiqMessage, result: TaskiqResult[Any]) -> None:
        await self._write(
            message,
            status="FAILURE" if result.is_err else "SUCCESS",
            finished_at=datetime.now(UTC),
            result=result.return_value,
            error=None if result.error is None else repr(result.error),
        )

    async def _write(self, message: TaskiqMessage, **values: Any) -> None:
        try:
            await self._write_once(message, values)
        except IntegrityError:  # the sender and the worker both found no row
            await self._write_once(message, values)

    async def _write_once(self, message: TaskiqMessage, values: dict[str, Any]) -> None:
        async with self._sessions() as session:
            query = select(Execution).where(Execution.task_id == message.task_id)
            row = await session.scalar(query)
            if row is None:
                row = Execution(
                    task_id=message.task_id,
                    task_name=message.task_name,
                    status="PENDING",
                    args=message.args,
                    kwargs=message.kwargs,
                )
                session.add(row)
            for name, value in values.items():
                setattr(row, name, value)
            await session.commit()
