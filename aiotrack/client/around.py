"""What there is around executions, over the REST API: workers, queues, locks, settings, audit."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiotrack.client import shapes
from aiotrack.client.transport import Again, Transport
from aiotrack.errors import InvalidInput, InvalidQuery, InvalidSetting

if TYPE_CHECKING:
    import builtins

    from aiotrack.alerts.verbs import Alert
    from aiotrack.health import Health
    from aiotrack.locks.verbs import LockInfo
    from aiotrack.model import AuditEntry, Page, Queue, TaskInfo, Worker
    from aiotrack.row_settings import Explanation


class Around:
    """What there is besides executions; see `aiotrack.client.Client`."""

    _transport: Transport

    @property
    def locks(self) -> Locks:
        """Who holds which lock: ``list(task_id=...)``, ``force_release(name, fence=...)``."""
        return Locks(self._transport)

    @property
    def audit(self) -> Audit:
        """Who did what to what: ``list(actor=..., target=...)``."""
        return Audit(self._transport)

    @property
    def alerts(self) -> Alerts:
        """What somebody ought to see to: ``list()``."""
        return Alerts(self._transport)

    @property
    def settings(self) -> Settings:
        """The server's settings: ``get``, ``explain``, ``set``, ``unset``."""
        return Settings(self._transport)

    async def tasks(self) -> builtins.list[TaskInfo]:
        """Give the tasks that the server can send."""
        told = await self._transport.ask("GET", "/task-types/")
        return [shapes.task(one) for one in told["items"]]

    async def workers(self) -> builtins.list[Worker]:
        """Give the worker processes: who lives, who was lost or stopped within a day."""
        told = await self._transport.ask("GET", "/workers/")
        return [shapes.worker(one) for one in told["items"]]

    async def queues(self) -> builtins.list[Queue]:
        """Give where messages wait, of the server's brokers."""
        told = await self._transport.ask("GET", "/queues/")
        return [shapes.queue(one) for one in told["items"]]

    async def health(self) -> Health:
        """Tell how the server and what it needs are; also when it is not ready."""
        return shapes.health(await self._transport.ask("GET", "/health", fine="dependencies"))


class Locks:
    """The locks that are held; see `Around.locks`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self, *, task_id: str | int | None = None) -> list[LockInfo]:
        """Give the locks that are held, by name.

        Args:
            task_id: Only those of this execution.

        Raises:
            LockUnavailable: Redis does not answer, or there is none.
        """
        params = None if task_id is None else [("task_id", str(task_id))]
        told = await self._transport.ask("GET", "/locks/", params=params)
        return [shapes.lock(one) for one in told["items"]]

    async def force_release(self, name: str, *, fence: int, reason: str | None = None) -> bool:
        """Take a lock from its holder, who is told at once, or at its next renewal.

        Args:
            name: As `list` gives it.
            fence: Of the holder that is meant, as `list` gives it.
            reason: Why, for the audit.

        Returns:
            False when nobody holds it, or somebody else does by now.

        Raises:
            LockUnavailable: Redis does not answer, or there is none.
        """
        body = {"name": name, "fence": fence, "reason": reason}
        told = await self._transport.ask("POST", "/locks/release", body=body, again=Again.UNHEARD)
        return bool(told["released"])


class Audit:
    """Who did what to what; see `Around.audit`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(
        self,
        *,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        limit: int = 50,
        after: str | None = None,
        **filters: str | int | None,
    ) -> Page[AuditEntry]:
        """Give a page of the rows that match every filter, the newest first.

        Args:
            since: Not before this aware time, or so long ago.
            until: Not after it; likewise.
            limit: Rows of the page, 1 to 500.
            after: ``next`` of the page before, with the same filters.
            **filters: ``actor``, ``action``, ``target``, each exact.

        Raises:
            InvalidQuery: What cannot be served.
        """
        times = {"since": since, "until": until}
        given = {
            **{name: shapes.moment(name, at) for name, at in times.items() if at is not None},
            **filters,
            "limit": limit,
            "after": after,
        }
        params = [(name, str(value)) for name, value in given.items() if value is not None]
        return shapes.audit(await self._transport.ask("GET", "/audit/", params=params))


class Alerts:
    """What somebody ought to see to; see `Around.alerts`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def list(self) -> list[Alert]:
        """Give the alerts that go on, the newest first."""
        told = await self._transport.ask("GET", "/alerts/")
        return [shapes.alert(one) for one in told["items"]]


class Settings:
    """The server's settings; see `Around.settings`. A token needs the scope ``admin``."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def get(self, key: str, user: str | int | None = None) -> Any:
        """Give what holds now: for *user*, or for whoever has no settings of their own.

        Raises:
            InvalidSetting: Unknown key.
        """
        return (await self.explain(key, user)).value

    async def explain(self, key: str, user: str | int | None = None) -> Explanation:
        """Tell what holds, which layer won, and what each layer says; raises as `get`."""
        return shapes.explanation(await self._ask("GET", key, params=_for(user)))

    async def set(
        self, key: str, value: float, scope: str | None = None, user: str | int | None = None
    ) -> None:
        """Make a setting, for all processes and from now on; as the tracker's.

        Raises:
            InvalidSetting: Unknown key or scope, or a value out of range; nothing is stored.
        """
        owner = None if user is None else str(user)
        body = {"value": value, "scope": scope, "user": owner}
        await self._ask("PUT", key, body=body)

    async def unset(self, key: str, user: str | int | None = None) -> None:
        """Take a setting back, of all or of one user; harmless when there was none.

        Raises:
            InvalidSetting: Unknown key.
        """
        await self._ask("DELETE", key, params=_for(user))

    async def _ask(
        self, method: str, key: str, *, params: shapes.Params | None = None, body: Any = None
    ) -> Any:
        if key in {"", ".", ".."} or not shapes.is_whole(key):  # a URL would lose it
            raise InvalidSetting(key, "there is no such setting")
        path = f"/settings/{quote(key, safe='')}"
        try:
            return await self._transport.ask(method, path, key=key, params=params, body=body)
        except (InvalidInput, InvalidQuery) as error:  # whatever is wrong with the request
            raise InvalidSetting(key, str(error)) from error


def _for(user: str | int | None) -> list[tuple[str, str]]:
    return [] if user is None else [("user", str(user))]
