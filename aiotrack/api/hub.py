"""One follower for each thing that is followed, shared by all its clients; and their places.

A channel follows an execution, or what a filter matches. It makes an event of each change once, and
keeps the newest for those of its clients who have not written them yet: what a slow client costs is
bounded, and no other client waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiotrack.api.bodies import to_bytes
from aiotrack.api.problems import Refused
from aiotrack.api.rows import moving
from aiotrack.errors import AioTrackError, SlowConsumer, StoreUnavailable

if TYPE_CHECKING:
    from aiotrack.core import Core
    from aiotrack.following import Follower
    from aiotrack.model import Execution

log = logging.getLogger(__name__)

CLIENTS: Final = 200
"""Open streams of a process."""

OF_ONE: Final = 10
"""Open streams of one known caller."""

WAITING: Final = 256
"""Events of a filter that a client may leave unwritten."""

AT_ONCE: Final = 128
"""Events between two pauses, so that whoever reads gets to read them."""

GAP, GAP_EACH = 0.02, 0.000_25
"""Seconds from a look that was woken to the next (of a filter: for each filter that is followed),
and as much more for each client: telling 200 of them takes some ten milliseconds of a core."""

READS: Final = 4
"""Clients that look for what they missed at once: all of them may come back together."""

AGAIN: Final = 1.0
"""Seconds between two looks while the database is away."""

SOON: Final = "5"
"""Seconds after which whoever found no place may try again."""


# ── places ──────────────────────────────────────────────────────────────────────────────────────
class Places:
    """Counts the open streams of this process."""

    def __init__(self) -> None:
        self.taken = 0
        self._of: Counter[str] = Counter()

    @contextlib.contextmanager
    def take(self, caller: str | None) -> Iterator[None]:
        """Hold a place.

        Args:
            caller: Who takes it; None is nobody in particular.

        Raises:
            Refused: All are taken (503), or he has enough (429).
        """
        if caller is not None and self._of[caller] >= OF_ONE:
            detail = f"{OF_ONE} event streams of one caller are open: close one"
            raise Refused(429, "too-many-streams", detail, {"Retry-After": SOON})
        if self.taken >= CLIENTS:
            detail = f"{CLIENTS} event streams are open in this process: try again later"
            raise Refused(503, "no-place", detail, {"Retry-After": SOON})
        self.taken += 1
        if caller is not None:
            self._of[caller] += 1
        try:
            yield
        finally:
            self.taken -= 1
            if caller is not None:
                self._of[caller] -= 1
                if not self._of[caller]:
                    del self._of[caller]


PLACES: Final = Places()


# ── events ──────────────────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Event:
    """A state of an execution, as it is written.

    Attributes:
        id: Of the state for an execution's stream, of the moment for a filter's.
        key: The execution's task_id.
        read_at: When the read began that gave it, by the monotonic clock.
        is_last: Nothing follows it.
        chunk: What is written.
    """

    id: str
    key: str
    read_at: float
    is_last: bool
    chunk: bytes


def state_of(execution: Execution) -> tuple[str, bytes]:
    """Give an execution as events carry it, and a short name of that state."""
    told = to_bytes(moving(execution))
    return hashlib.sha256(told).hexdigest()[:16], told


def chunk_of(kind: str, id_: str, data: bytes) -> bytes:
    """Give an event as it is written."""
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (id_.encode(), kind.encode(), data)


# ── clients ─────────────────────────────────────────────────────────────────────────────────────
class Client:
    """Where one client is in a channel's events."""

    def __init__(self, seen: int) -> None:
        self.seen = seen
        self.noted = 0
        self.is_gone = False
        self.wake = asyncio.Event()

    def leave(self) -> None:
        """Note that nobody reads any more."""
        self.is_gone = True
        self.wake.set()


class Channel:
    """What one follower tells its clients.

    Args:
        hub: Whose it is.
        follower: Where changes come from.
        make: Makes an event of a state, with the time of its read.
        is_one: It follows one execution: only the newest event counts.
    """

    def __init__(
        self,
        hub: Hub,
        follower: Follower,
        make: Callable[[Execution, float], Event],
        *,
        is_one: bool,
    ) -> None:
        self.follower = follower
        self.make = make
        self.is_over = False
        """Nothing follows any more."""
        self.note = b""
        """What to say besides events, and how many times that was changed."""
        self.notes = 0
        self.is_one = is_one
        self._events: deque[Event] = deque(maxlen=1 if is_one else WAITING)
        self.told = 0
        """How many events there were."""
        self._hub = hub
        self._clients: set[Client] = set()
        self._joined: tuple[int, int, bytes] = (0, 0, b"")
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run())

    @contextlib.contextmanager
    def join(self) -> Iterator[Client]:
        """Hear of what comes from now on; the last who leaves ends it."""
        client = Client(self.told)
        client.noted = self.notes
        self._clients.add(client)
        try:
            yield client
        finally:
            self._clients.discard(client)
            if not self._clients:
                self.close()

    async def ready(self) -> None:
        """Wait until nothing will be missed.

        Raises:
            AioTrackError: What is followed is not there, or cannot be found.
        """
        await asyncio.shield(self._ready)

    def take(self, client: Client) -> list[Event] | None:
        """Give what a client has not seen; None: he is so late that some of it is gone."""
        behind = self.told - client.seen
        if behind > len(self._events) and not self.is_one:
            return None
        client.seen = self.told
        behind = min(behind, len(self._events))
        return [self._events[at] for at in range(len(self._events) - behind, len(self._events))]

    def joined(self, client: Client, events: list[Event]) -> bytes:
        """Give events just taken as one piece; clients who keep up share it."""
        first, last = client.seen - len(events), client.seen
        if self._joined[:2] != (first, last):
            self._joined = (first, last, b"".join(event.chunk for event in events))
        return self._joined[2]

    async def _run(self) -> None:
        try:
            await self._follow()
        except SlowConsumer:
            log.warning("more changes than event streams can tell: their clients begin anew")
        except AioTrackError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._ready.cancel()
            raise
        except Exception as error:
            log.exception("event streams ended")
            self._fail(error)
        finally:
            self.close()

    async def _follow(self) -> None:
        for execution in await self.follower.begin():
            self._put(execution)
        self._ready.set_result(None)
        while not self.is_over:
            try:
                found = await self.follower.next()
            except StoreUnavailable:
                self._say(b": the database is away\n\n")
                await asyncio.sleep(AGAIN)
                continue
            self._say(b"")
            await self._tell(found)

    async def _tell(self, found: list[Execution]) -> None:
        """Pass on states, no faster than they can be written, and look again after a pause."""
        for start in range(0, max(1, len(found)), AT_ONCE):
            some = found[start : start + AT_ONCE]
            for execution in some:
                self._put(execution)
            if some:
                self._wake()
            if not self.is_over:
                crowd = 1 if self.is_one else self._hub.filters
                await asyncio.sleep(GAP * crowd + GAP_EACH * len(self._clients))

    def _put(self, execution: Execution) -> None:
        event = self.make(execution, self.follower.read_at)
        self._events.append(event)
        self.told += 1
        self.is_over = event.is_last

    def _say(self, note: bytes) -> None:
        if note != self.note:
            self.note = note
            self.notes += 1
            self._wake()

    def _fail(self, error: Exception) -> None:
        if not self._ready.done():
            self._ready.set_exception(error)
            self._ready.exception()  # those who wait for it tell; there may be none

    def close(self) -> None:
        """Tell nothing more: its clients are told to come again."""
        self.is_over = True
        self._hub.forget(self)
        self._wake()
        if self._task is not asyncio.current_task():
            self._task.cancel()

    def _wake(self) -> None:
        for client in self._clients:
            client.wake.set()


# ── the hub ─────────────────────────────────────────────────────────────────────────────────────
class Hub:
    """The channels of an event loop."""

    def __init__(self) -> None:
        self.channels: dict[str, Channel] = {}
        self.reading = asyncio.Semaphore(READS)
        """Held by a client that reads what it missed."""

    @property
    def filters(self) -> int:
        """How many filters are followed; each of them looks at every change."""
        return sum(not one.is_one for one in self.channels.values())

    def channel(
        self,
        name: str,
        follower: Callable[[], Follower],
        make: Callable[[Execution, float], Event],
        *,
        is_one: bool = False,
    ) -> Channel:
        """Give the channel of a name; make it if nobody follows that yet."""
        found = self.channels.get(name)
        if found is None:
            found = self.channels[name] = Channel(self, follower(), make, is_one=is_one)
        return found

    def close(self) -> None:
        """End every channel: the server stops."""
        for channel in list(self.channels.values()):
            channel.close()

    def forget(self, channel: Channel) -> None:
        """Let go of a channel that is over."""
        for name, one in self.channels.items():
            if one is channel:
                del self.channels[name]
                return


_HUBS: weakref.WeakKeyDictionary[Core, Hub] = weakref.WeakKeyDictionary()


def hub_of(core: Core) -> Hub:
    """Give the hub of a loop's core."""
    found = _HUBS.get(core)
    if found is None:
        found = _HUBS[core] = Hub()
    return found
