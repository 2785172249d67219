"""A worker's side: takes messages, waits for them, takes over those of the dead, and leaves."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from taskiq import AckableMessage

from aiotrack.brokers import streams
from aiotrack.brokers.acker import Acker
from aiotrack.brokers.backoff import Backoff, told
from aiotrack.brokers.delivery import Acknowledgement, Delivery
from aiotrack.brokers.hazards import look
from aiotrack.brokers.held import Held, Key
from aiotrack.brokers.renewer import Renewer
from aiotrack.brokers.room import Room
from aiotrack.brokers.scripts import GROUPS, LEAVE, RECLAIM, TAKE, TIDY
from aiotrack.redis.client import FAULTS
from aiotrack.redis.wire import Link, Wire, connected, pack

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from taskiq import AsyncBroker

log = logging.getLogger(__name__)

BLOCK: Final = 2.0
"""Seconds that an idle worker waits at the server at a time: without uvloop a signal may have to
wait as long."""

PATIENCE: Final = 5.0
"""Seconds that an answer may take: what is given up at the client may be done at the server."""

AGED: Final = 10
"""Of so many messages that a worker takes, one is that which has waited longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is agreed on with the others who serve the same queues.

    Attributes:
        queues: What is listened to.
        group: Whose messages they are.
        lease: Seconds.
        max_deliveries: After so many a message is set aside.
    """

    queues: tuple[str, ...]
    group: str
    lease: float
    max_deliveries: int


class Listener:
    """One consumer of the group, from the first message that it is asked for to its farewell.

    Args:
        broker: Whose receiver asks.
        terms: What is agreed on.
        consumer: Its name; nobody else's.
        redis: Says where the server is.
        wire: The connection for all that does not block.
    """

    def __init__(
        self, broker: AsyncBroker, terms: Terms, consumer: str, redis: Redis, wire: Wire
    ) -> None:
        self._terms, self._consumer, self._redis, self._wire = terms, consumer, redis, wire
        turned = [terms.queues[at:] + terms.queues[:at] for at in range(len(terms.queues))]
        self._turns = deque(streams.streams(queues) for queues in turned)
        self._dead_of = {
            streams.stream(queue, level): streams.dead(queue)
            for queue in terms.queues
            for level in streams.LEVELS
        }
        self._held = Held(terms.lease)
        self._room = Room(broker, self._held)
        self._acker = Acker(wire, terms.group, self._held, terms.lease)
        self._renewer = Renewer(redis, terms.group, consumer, self._held, terms.lease)
        self._buffer: deque[tuple[Key, bytes]] = deque()
        self._link: Link | None = None
        self._link_id = 0
        self._is_known = False
        self._since_aged = 0
        self._reclaim_at = time.monotonic()
        self._tidy_at = time.monotonic()
        self._faults: set[str] = set()
        self._is_gone = False
        self._is_in_doubt = False

    async def messages(self) -> AsyncGenerator[AckableMessage, None]:
        """Give message after message, for ever; what is left at the end is handed back."""
        self._renewer.start()
        try:
            while True:
                if not self._buffer:
                    self._keep(await self._fetch())
                while self._buffer:
                    key, data = self._buffer.popleft()
                    if key in self._held:  # else its lease was lost meanwhile
                        ack = Acknowledgement(key, self._held, self._acker.ack)
                        yield Delivery(data=data, ack=ack)
        finally:
            await self._stop()

    async def leave(self, *, goes: bool = True) -> None:
        """Hand back what TaskIQ was not given; say farewell if nothing is left then."""
        if self._is_gone or not self._is_known:
            return
        try:
            await self._hand_back(goes=goes)
        except FAULTS as error:
            log.warning("messages that were not begun are delivered after a lease: %s", error)
        else:
            self._is_gone = goes

    async def _hand_back(self, *, goes: bool) -> None:
        names = self._turns[0]
        kept = (*self._held.keys(), *self._held.left())
        words = (self._terms.group, self._consumer, int(goes), *_pairs(names, kept))
        handed = await self._wire.run(LEAVE, names, *words)
        if handed:
            log.info("%d messages that were not begun were handed back", handed)

    # ── taking ──────────────────────────────────────────────────────────────────────────────────
    async def _fetch(self) -> list[tuple[Key, bytes]]:
        """Wait for messages; whatever happens to Redis, it goes on."""
        backoff = Backoff("the worker")
        while True:
            try:
                found = await self._fetch_once()
            except FAULTS as error:
                self._is_in_doubt = True
                await backoff.pause(error)
            except Exception as error:
                self._is_in_doubt = True
                log.exception("taking messages failed")
                await backoff.pause(error)
            else:
                backoff.end()
                if found:
                    return found

    async def _fetch_once(self) -> list[tuple[Key, bytes]]:
        if not self._is_known:
            await self._introduce()
        if self._is_in_doubt:  # an answer that was lost may have had messages in it
            await self._hand_back(goes=False)
            self._is_in_doubt = False
        now = time.monotonic()
        if now >= self._reclaim_at and (found := await self._reclaim()):
            return found
        return await self._take() or await self._wait()

    async def _introduce(self) -> None:
        """Make the groups, and be seen by others."""
        await look(self._wire)
        names = self._turns[0]
        fault = await self._wire.run(GROUPS, names, self._terms.group, self._consumer)
        self._say(fault)
        self._is_known = True

    async def _take(self) -> list[tuple[Key, bytes]]:
        wanted = self._room.size()
        aged, names = (self._since_aged + wanted) // AGED, self._turns[0]
        words = (self._terms.group, self._consumer, wanted, aged)
        # Not twice: what the first try took would lie until its lease ends.
        fault, taken = await self._wire.run_once(TAKE, names, *words)
        self._say(fault)
        self._turns.rotate(-1)
        found = _messages(names, taken)
        self._since_aged = max(0, self._since_aged + len(found) - aged * AGED)
        return found

    async def _wait(self) -> list[tuple[Key, bytes]]:
        """Wait at the server until something comes, or until there is other work."""
        link = self._link
        if link is None or not link.is_open or link.is_last:
            link = await self._connect()
        names = self._turns[0]
        left = min(BLOCK, max(0.0, self._reclaim_at - time.monotonic()))
        answer = await link.ask(
            pack(
                (
                    *("XREADGROUP", "GROUP", self._terms.group, self._consumer, "COUNT", 1),
                    *("BLOCK", int(left * 1000) + 1, "STREAMS", *names, *(">" for _ in names)),
                )
            )
        )
        found = [
            (Key(stream.decode(), name), _data(fields))
            for stream, entries in answer or ()
            for name, fields in entries
        ]
        self._since_aged = min(AGED - 1, self._since_aged + len(found))
        if len(found) > 1 and len(found) > (room := self._room.size()):
            self._held.add(key for key, _ in found[:room])
            try:
                await self._hand_back(goes=False)  # several levels answered at once
            except BaseException:  # nobody gets these: their leases must end
                self._held.remove(key for key, _ in found[:room])
                raise
            del found[room:]
        return found

    async def _connect(self) -> Link:
        link = self._link = Link(await connected(self._redis), BLOCK + PATIENCE)
        try:
            self._link_id = await link.ask(pack(("CLIENT", "ID")))
        except FAULTS:  # not allowed: then the end of the connection must do
            self._link_id = 0
        return link

    # ── the messages of the dead ────────────────────────────────────────────────────────────────
    async def _reclaim(self) -> list[tuple[Key, bytes]]:
        terms, wanted, names = self._terms, self._room.size(), self._turns[0]
        dead_names = tuple(self._dead_of[name] for name in names)
        lease = max(1, int(terms.lease * 1000))
        words = (terms.group, self._consumer, wanted, lease, terms.max_deliveries)
        kept = _pairs(names, self._held.keys())
        keys = (*names, *dead_names)
        fault, taken, dead = await self._wire.run_once(RECLAIM, keys, *words, *kept)
        self._say(fault)
        for at in range(0, len(dead), 3):
            log.error(
                "message %s of %s was delivered %d times and never acknowledged: it is in %s now",
                dead[at + 1].decode(),
                names[dead[at] - 1],
                dead[at + 2],
                dead_names[dead[at] - 1],
            )
        found = _messages(names, taken)
        if found:
            log.warning(
                "%d messages of workers that stopped are taken over, the first: %s of %s",
                len(found),
                found[0][0].id.decode(),
                found[0][0].stream,
            )
        if len(taken) < wanted * 3:  # else there may be more
            self._reclaim_at = time.monotonic() + terms.lease / 4 * random.uniform(0.9, 1.0)
            await self._tidy()
        return found

    async def _tidy(self) -> None:
        """Take dead consumers away, now and then."""
        now, lease = time.monotonic(), self._terms.lease
        if now >= self._tidy_at:
            self._tidy_at = now + 5 * lease
            with contextlib.suppress(*FAULTS):
                names = self._turns[0]
                await self._wire.run(TIDY, names, self._terms.group, int(10 * lease * 1000))

    # ── the end ─────────────────────────────────────────────────────────────────────────────────
    async def _stop(self) -> None:
        """Take nothing more, and hand back what was not given to TaskIQ."""
        self._held.remove(key for key, _ in self._buffer)
        self._buffer.clear()
        link, self._link = self._link, None
        if link is not None and link.is_open and self._link_id:
            with contextlib.suppress(*FAULTS):
                await self._wire.ask("CLIENT", "UNBLOCK", self._link_id)
        if link is not None:
            link.drop(ConnectionResetError("the worker stops"))
        await self.leave(goes=False)
        self._renewer.close()

    def _keep(self, found: Sequence[tuple[Key, bytes]]) -> None:
        self._held.add(key for key, _ in found)
        self._buffer.extend(found)

    def _say(self, fault: bytes) -> None:
        """Log what is wrong with one stream of several, once."""
        text = fault.decode(errors="replace")
        if text and text not in self._faults and len(self._faults) < 100:
            self._faults.add(text)
            log.error("%s", told(ValueError(text)))


def _pairs(names: Sequence[str], keys: Iterable[Key]) -> list[object]:
    places = {name: at for at, name in enumerate(names, 1)}
    return [word for key in keys for word in (places[key.stream], key.id)]


def _messages(names: Sequence[str], flat: Sequence[Any]) -> list[tuple[Key, bytes]]:
    return [(Key(names[flat[at] - 1], flat[at + 1]), flat[at + 2]) for at in range(0, len(flat), 3)]


def _data(fields: Sequence[bytes]) -> bytes:
    """Find the message among an entry's fields; one that is not ours is none."""
    for at in range(0, len(fields), 2):
        if fields[at] == b"data":
            return fields[at + 1]
    return b""
