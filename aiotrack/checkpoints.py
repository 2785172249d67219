"""Checkpoints: where a run's work stands, kept for the run that goes on with it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from aiotrack.current import CURRENT, Run
from aiotrack.encode import encode_task_id
from aiotrack.errors import InvalidValue, NoCurrentExecution, StoreUnavailable
from aiotrack.lifecycle import Lifecycle

T = TypeVar("T")

PAUSE = 0.05
"""Seconds before a database that did not answer is asked again."""

FROM_THREAD = 5.0
"""Seconds more than the budget that a thread waits for a loop that is busy with something else."""


class Checkpoints(Lifecycle):
    """State that outlives a run; see `Tracker`."""

    async def checkpoint(self, state: Any) -> bool:
        """Keep where the work of this execution stands; it is committed when this returns.

        The next run of it, by a retry or a redelivery, and a rerun get it from `last_checkpoint`.
        Nothing in it is redacted.

        Args:
            state: What JSON gives back as it was: dict with text keys, list, str, int, float,
                bool, None; at most ``max_value_bytes`` of JSON. None says: begin anew.

        Returns:
            False when a later run of this execution has stored one: theirs stands. This run is a
            forgotten one (the broker took it for dead, and delivered again) and may stop.

        Raises:
            InvalidValue: It would not come back as it is, or it is too large. Nothing is stored.
            NoCurrentExecution: No execution runs in this context.
            StoreUnavailable: Not committed within ``commit_budget``; it may be later.
        """
        run = _running("checkpoint()")
        return await self._save(run, self._written(state), time.monotonic_ns())

    def checkpoint_sync(self, state: Any) -> bool:
        """Keep where the work stands, from a task that runs in a thread. As `checkpoint`.

        Raises:
            RuntimeError: An event loop runs in this thread: await `checkpoint` there.
        """
        run = _running("checkpoint_sync()")
        work = self._save(run, self._written(state), time.monotonic_ns())
        return self._from_thread(run, work)

    async def last_checkpoint(self, *, task_id: str | int | None = None) -> Any:
        """Give the state that `checkpoint` stored last for this execution, None if there is none.

        For a rerun without one of its own it is that of the execution which it repeats.

        Args:
            task_id: Another execution than the one that runs here.

        Raises:
            NoCurrentExecution: No execution runs in this context, and no *task_id* is given.
            StoreUnavailable: The database did not answer within ``commit_budget``.
        """
        run = None if task_id is not None else _running("last_checkpoint()")
        return await self._stored(run, task_id)

    def last_checkpoint_sync(self, *, task_id: str | int | None = None) -> Any:
        """Give the last state to a task that runs in a thread. As `last_checkpoint`.

        Raises:
            RuntimeError: An event loop runs in this thread: await `last_checkpoint` there.
        """
        run = None if task_id is not None else _running("last_checkpoint_sync()")
        return self._from_thread(run, self._stored(run, task_id))

    def _written(self, state: Any) -> str:
        """Give a state as JSON text.

        Raises:
            InvalidValue: It would come back altered, or is too large.
        """
        try:
            text = json.dumps(state, allow_nan=False, separators=(",", ":"))
            is_kept = json.loads(text) == state
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidValue(f"a checkpoint must be JSON: {error}") from error
        if not is_kept:
            raise InvalidValue(
                "a checkpoint must come back from JSON as it was: use lists for tuples, texts for "
                "the keys of a dict"
            )
        most = self.options.max_value_bytes
        if len(text) > most:
            raise InvalidValue(
                f"a checkpoint of {len(text)} bytes is over max_value_bytes ({most}): store the "
                "data elsewhere and its place here"
            )
        return text

    async def _save(self, run: Run, state: str, seq: int) -> bool:
        from aiotrack.repository.control.checkpoints import Checkpoint, Checkpoints

        repository = self.core().repository

        async def save() -> bool:
            await repository.connect()  # it knows what time it is
            checkpoint = Checkpoint(
                task_id=run.origin.task_id,
                state=state,
                attempt=run.attempt,
                run_started_at=self.clock.settle(run.started_at),
                run_id=run.run_id,
                seq=seq,
                at=self.clock.now(),
            )
            return await Checkpoints(repository).save(checkpoint)

        return await self._within_budget(save)

    async def _stored(self, run: Run | None, task_id: str | int | None) -> Any:
        from aiotrack.repository.control.checkpoints import Checkpoints

        repository = self.core().repository
        rerun_of = None if run is None else run.origin.rerun_of
        key = encode_task_id(task_id) if run is None else run.origin.task_id

        async def read() -> str | None:
            await repository.connect()
            return await repository.apart(Checkpoints(repository).last(key, rerun_of))

        found = await self._within_budget(read)
        return None if found is None else json.loads(found)

    async def _within_budget(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the database until it answers, also over a connection that was cut."""
        budget = self.options.commit_budget
        trouble = StoreUnavailable(f"the database did not answer within {budget:g} s")
        try:
            async with asyncio.timeout(budget):
                while True:
                    try:
                        return await ask()
                    except StoreUnavailable as error:
                        trouble = error
                        await asyncio.sleep(PAUSE)
        except TimeoutError:
            raise trouble from None

    def _from_thread(self, run: Run | None, work: Coroutine[Any, Any, T]) -> T:
        """Let the loop of the run do *work*, and wait for it."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            work.close()
            raise RuntimeError("an event loop runs in this thread: await the async verb instead")
        loop = (None if run is None else run.loop) or self.living_loop()
        if loop is None or loop.is_closed():
            work.close()
            raise StoreUnavailable("no event loop can reach the database: start the tracker first")
        done = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return done.result(self.options.commit_budget + FROM_THREAD)
        except TimeoutError as error:
            done.cancel()
            raise StoreUnavailable("the event loop is blocked, or has ended") from error


def _running(wanted: str) -> Run:
    """Give the run of this context.

    Raises:
        NoCurrentExecution: There is none, or it is over.
    """
    run = CURRENT.get()
    if run is None or run.is_over:
        raise NoCurrentExecution(wanted)
    return run
