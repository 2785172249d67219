"""`Client`: the tracker's verbs, asked of the REST API."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, Unpack
from urllib.parse import quote

from aiotrack.cancellation import CancelOutcome
from aiotrack.client import shapes
from aiotrack.client.around import Around
from aiotrack.client.cache import Cache
from aiotrack.client.configs import Definitions, Schedules
from aiotrack.client.faults import error_told
from aiotrack.client.follow import follow
from aiotrack.client.transport import Again, Transport
from aiotrack.errors import InvalidInput, InvalidSetting, InvalidValue
from aiotrack.labels import PRIORITIES
from aiotrack.model import Count, Rerun
from aiotrack.waiting import until_over

if TYPE_CHECKING:
    import builtins
    from types import TracebackType

    from aiotrack.counts import Stats
    from aiotrack.model import Attempt, Execution, LogLine, Page
    from aiotrack.repository.filters import Narrowing


class Client(Around):
    """The tracker's verbs over HTTP; the same values, the same errors.

    ``async with Client("http://127.0.0.1:8000", token=...) as client: await client.get("a1")``

    A request is made again where that can do no harm: when no connection could be made, when the
    server said 429 or 503, and, of what may be done twice, also when the answer got lost or was a
    502 or 504. What sends tasks, and `cancel_many`, are made again only when they were certainly
    not done. Before the n-th retry a random time of up to ``backoff`` * 2 ** (n - 1) seconds is
    waited for, or what the server's ``Retry-After`` says; never more than ``max_backoff``.
    Executions with a true final status are kept: they are asked for once, and again after a rerun.

    Args:
        url: Of the server; without a path the API is at ``/api/v1``, as `aiotrack serve` has it.
        token: Its secret; None: the server asks for none.
        retries: How often a request is made again.
        backoff: Seconds before the first retry at most.
        max_backoff: Seconds before any retry at most.
        cache_size: Executions that are kept; 0: none.

    Raises:
        InvalidSetting: An argument that cannot be used.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        retries: int = 5,
        backoff: float = 1.0,
        max_backoff: float = 30.0,
        cache_size: int = 1024,
    ) -> None:
        if cache_size < 0:
            raise InvalidSetting("cache_size", "must be 0 or more")
        self._transport = Transport(
            url, token, retries=retries, backoff=backoff, max_backoff=max_backoff
        )
        self._cache = Cache(cache_size)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._transport.base!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connections go. Harmless when repeated."""
        await self._transport.close()

    @property
    def definitions(self) -> Definitions:
        """Task definitions: ``create``, ``get``, ``list``, ``update``, ``delete``."""
        return Definitions(self._transport)

    @property
    def schedules(self) -> Schedules:
        """Their schedules: ``start``, ``stop``, ``pause``, ``resume``, ``trigger``, ``status``."""
        return Schedules(self._transport, self.get)

    # ── executions ──────────────────────────────────────────────────────────────────────────────
    async def get(self, task_id: str | int) -> Execution:
        """Give the execution with *task_id*.

        Raises:
            ExecutionNotFound: There is none, or the token may not see it.
            StoreUnavailable: The server, or its database, did not answer.
        """
        return await self._execution(str(task_id), f"{await self._at(task_id)}/")

    async def get_by_id(self, id: int) -> Execution:  # noqa: A002 - as the tracker's
        """Give the execution with the number *id*.

        Raises:
            ExecutionNotFound: There is none.
        """
        return await self._execution(id, f"/executions/{int(id)}/")

    async def _at(self, task_id: str | int) -> str:
        """Give the path of an execution; for an id that a URL loses the one by its number.

        Raises:
            InvalidValue: No URL can carry the id.
            ExecutionNotFound: There is no such execution.
        """
        key = str(task_id)
        if not key or not shapes.is_whole(key):
            what = "holds half a character" if key else "is empty"
            raise InvalidValue(f"task_id {what}, which no URL can carry: use get_by_id")
        if key in {".", ".."}:
            params = [("task_id", key), ("sync", "false")]
            path = "/executions/status/"
            told = await self._transport.ask("GET", path, key=key, params=params)
            return f"/executions/{told['id']}"
        return f"/executions/by-task-id/{quote(key, safe='')}"

    async def _execution(self, key: str | int, path: str) -> Execution:
        kept = self._cache.find(key)
        if kept is not None:
            return kept
        return self._keep(await self._transport.ask("GET", path, key=key), key)

    def _keep(self, told: Any, key: str | int | None = None) -> Execution:
        found = shapes.execution(told)
        self._cache.keep(found.task_id if key is None else key, found)
        return found

    async def list(
        self,
        *,
        limit: int = 50,
        after: str | None = None,
        order: str = "-created_at",
        **filters: Unpack[Narrowing],
    ) -> Page[Execution]:
        """Give a page of the executions that match every filter; all that the token may see.

        The rows carry ids, names, status, times, who asked and the progress in ``metadata``; `get`
        gives the rest. Metadata is matched by texts, numbers, booleans and None.

        Args:
            limit: Rows of the page, 1 to 500.
            after: ``next`` of the page before, with the same order and filters.
            order: ``created_at``, ``finished_at`` or ``duration``; ``-`` for descending.
            **filters: As `Tracker.list` takes them.

        Raises:
            InvalidQuery: A filter, cursor, limit or order that cannot be served.
        """
        params = [*shapes.params_of(filters), ("page_size", str(limit)), ("order", order)]
        if after is not None:
            params.append(("after", after))
        return shapes.page(await self._transport.ask("GET", "/executions/", params=params))

    async def count(self, **filters: Unpack[Narrowing]) -> Count:
        """Count what the filters of `list` match, as far as 10,000."""
        params = [*shapes.params_of(filters), ("page_size", "1"), ("count", "true")]
        told = await self._transport.ask("GET", "/executions/", params=params)
        return Count(told["total"], told["total_exact"])

    async def stats(self, **filters: Unpack[Narrowing]) -> Stats:
        """Count what the filters of `list` match, whole, by module, by task and over time."""
        params = shapes.params_of(filters)
        return shapes.stats(await self._transport.ask("GET", "/executions/stats/", params=params))

    async def attempts(self, task_id: str | int) -> builtins.list[Attempt]:
        """Give every run of an execution in order, each with its own error.

        Raises:
            ExecutionNotFound: There is no such execution.
        """
        path = f"{await self._at(task_id)}/attempts/"
        told = await self._transport.ask("GET", path, key=str(task_id))
        return [shapes.attempt(one) for one in told["items"]]

    async def logs(
        self,
        task_id: str | int,
        *,
        attempt: int | None = None,
        level: str | int | None = None,
        limit: int = 200,
        after: str | None = None,
    ) -> Page[LogLine]:
        """Give a page of what an execution logged, in the order of its attempts.

        Args:
            task_id: The execution.
            attempt: Only this attempt's lines.
            level: The lowest level, a name or a number.
            limit: Lines of the page, 1 to 1,000.
            after: ``next`` of the page before, with the same filters.

        Raises:
            ExecutionNotFound: There is no such execution.
            InvalidQuery: What cannot be served.
        """
        given = {"attempt": attempt, "level": level, "limit": limit, "after": after}
        params = [(name, str(value)) for name, value in given.items() if value is not None]
        path = f"{await self._at(task_id)}/logs/"
        return shapes.lines(await self._transport.ask("GET", path, key=str(task_id), params=params))

    async def sync(self, task_id: str | int) -> Execution:
        """Fill an unfinished record from the server's result backends.

        Raises:
            ExecutionNotFound: There is no such execution.
        """
        path = f"{await self._at(task_id)}/sync/"
        return self._keep(await self._transport.ask("POST", path, key=str(task_id)))

    async def cancel(self, task_id: str | int, *, reason: str | None = None) -> CancelOutcome:
        """End an execution, wherever it is; who asked is the token's name.

        When an answer got lost it is asked again: ``finished`` may then be its own doing.

        Raises:
            ExecutionNotFound: There is no such execution.
        """
        path, body = f"{await self._at(task_id)}/cancel/", {"reason": reason}
        told = await self._transport.ask("POST", path, key=str(task_id), body=body)
        return CancelOutcome(told["outcome"])

    async def rerun(self, task_id: str | int) -> Execution:
        """Send the same task again, and give the new execution.

        Raises:
            ExecutionNotFound: There is no such execution.
            NotRepeatable: Its arguments are not stored as they were.
            UnknownTask: The server knows no such task.
            StoreUnavailable: The server did not answer: it may have been sent.
            ClientError: Its broker, or what stands between, failed: it may have been sent.
        """
        path = f"{await self._at(task_id)}/rerun/"
        key = str(task_id)
        try:
            told = await self._transport.ask("POST", path, key=key, again=Again.UNHEARD)
        finally:  # it says as what it was sent again, also when the answer got lost
            self._cache.forget(key)
        return self._keep(told)

    # ── many at once ────────────────────────────────────────────────────────────────────────────
    async def cancel_many(
        self, *, reason: str | None = None, limit: int = 1000, **filters: Unpack[Narrowing]
    ) -> Counter[CancelOutcome]:
        """End the executions that match every filter, the newest first.

        Args:
            reason: As in `cancel`.
            limit: Executions at most, 1 to 10,000.
            **filters: As in `list`; without ``status`` all that are not finished.

        Returns:
            How many there were of each outcome.

        Raises:
            InvalidQuery: A filter that cannot be served.
            InvalidInput: A limit that cannot.
            QueryTimeout: No index serves it, and two seconds were over.
            StoreUnavailable: The server did not answer: some may have been cancelled.
        """
        params, body = [*shapes.chosen(filters), ("limit", str(limit))], {"reason": reason}
        path = "/executions/cancel/"
        told = await self._transport.ask(
            "POST", path, params=params, body=body, again=Again.UNHEARD
        )
        return +Counter({CancelOutcome(one): many for one, many in told["outcomes"].items()})

    async def rerun_many(
        self, *, limit: int = 100, **filters: Unpack[Narrowing]
    ) -> builtins.list[Rerun]:
        """Rerun what the filters of `list` match, the oldest first; asked again, it goes on.

        Args:
            limit: Executions at most, 1 to 500.
            **filters: As in `list`.

        Returns:
            Each execution with its rerun, or with the error that says why there is none.

        Raises:
            InvalidQuery: A filter that cannot be served.
            InvalidInput: A limit that cannot.
            StoreUnavailable: The server did not answer: some may have been sent.
        """
        params = [*shapes.chosen(filters), ("limit", str(limit))]
        path = "/executions/rerun/"
        try:
            told = await self._transport.ask("POST", path, params=params, again=Again.UNHEARD)
        finally:
            self._cache.clear()  # which of them were sent again, a lost answer does not say
        return [await self._rerun(one) for one in told["items"]]

    async def _rerun(self, told: Mapping[str, Any]) -> Rerun:
        task_id, new_id = told["task_id"], told["rerun_as"]
        if new_id is None:
            return Rerun(task_id=task_id, error=error_told(told["code"], told["error"], task_id))
        return Rerun(task_id=task_id, execution=await self.get(new_id))

    # ── following ───────────────────────────────────────────────────────────────────────────────
    async def watch(self, task_id: str | int) -> AsyncIterator[Execution]:
        """Give an execution as it is, and again whenever it changed, until its status is final.

        By the server's events, which go on where they stopped when the connection is lost; a server
        that cannot give them is asked again and again, more slowly the longer nothing changes.

        Raises:
            ExecutionNotFound: There is no such execution.
            StoreUnavailable: The server could not be reached, as often as `retries` says.
        """
        shown = None
        path = f"{await self._at(task_id)}/events/"
        execution = await self.get(task_id)
        changes = follow(self._transport, path)
        try:
            while True:
                if execution != shown:
                    yield execution
                    shown = execution
                    changes.restart()
                if execution.is_completed:
                    return
                await changes.next()
                execution = await self.get(task_id)
        finally:
            await changes.close()

    async def wait(self, task_id: str | int, timeout: float | None = None) -> Execution:
        """Wait until an execution's status is final; a presumed verdict counts.

        Args:
            task_id: The execution.
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            ExecutionNotFound: There is no such execution.
            WaitTimeout: The time is over; it has the ``execution`` as it is.
            InvalidValue: *timeout* is negative or no number.
            StoreUnavailable: The server could not be reached.
        """
        return await until_over(self, task_id, timeout)

    # ── sending ─────────────────────────────────────────────────────────────────────────────────
    async def submit(
        self,
        task: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        priority: int | str = 1,
        timeout: float | None = None,
        description: str = "",
    ) -> Execution:
        """Send a task by its name, and give its execution.

        Args:
            task: As `tasks` names it.
            args: None: over HTTP arguments have names.
            kwargs: Keyword arguments.
            priority: 1, the lowest, to 10; or ``low``, ``medium``, ``high``, ``urgent``.
            timeout: Seconds that a run may take.
            description: Kept as ``metadata["description"]``.

        Raises:
            InvalidInput: What cannot be sent, with every fault; also a task that nobody knows.
            QueueFull: Too many messages wait.
            StoreUnavailable: The server did not answer: it may have been sent.
            ClientError: Its broker, or what stands between, failed: it may have been sent.
        """
        if args:
            raise InvalidInput(["arguments have names: give them as kwargs"], task)
        body = {
            "task_type": task,
            "description": description,
            "parameters": dict(kwargs or {}),
            "priority": PRIORITIES.get(str(priority).strip().lower(), priority),
            "timeout_seconds": timeout,
        }
        told = await self._transport.ask("POST", "/tasks", body=body, again=Again.UNHEARD)
        return await self.get(told["task_id"])
