"""What a worker has taken and not yet acknowledged."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple


class Key(NamedTuple):
    """A message: its stream, and its id there."""

    stream: str
    id: bytes


class Held:
    """The messages of one listener; read by the thread that renews their leases.

    Args:
        lease: Seconds.
    """

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._guard = threading.Lock()
        self._keys: dict[Key, bool] = {}  # whether its acknowledgement is under way
        self._dropped: deque[Key] = deque()
        self._left: dict[Key, float] = {}
        self.most = 0
        """The most that were seen to be held at once."""

    def __len__(self) -> int:
        self._settle()
        return len(self._keys)

    def __contains__(self, key: Key) -> bool:
        return key in self._keys

    def add(self, keys: Iterable[Key]) -> None:
        """Hold messages: their leases are renewed from now on."""
        self._settle()
        with self._guard:
            self._keys.update(dict.fromkeys(keys, False))
        self.most = max(self.most, len(self._keys))

    def finish(self, key: Key) -> None:
        """Tell that a message is being acknowledged: soon it will not be ours any more."""
        with self._guard:
            if key in self._keys:
                self._keys[key] = True

    def lose(self, keys: Iterable[Key]) -> list[Key]:
        """Hold messages no more that are not ours; give those that were not being acknowledged."""
        with self._guard:
            return [key for key in keys if self._keys.pop(key, True) is False]

    def remove(self, keys: Iterable[Key]) -> None:
        """Hold them no more."""
        with self._guard:
            for key in keys:
                self._keys.pop(key, None)

    def drop(self, key: Key) -> None:
        """Tell that TaskIQ let go of a message without acknowledging it.

        Called when an acknowledgement is collected as garbage, in whatever thread: it takes no
        lock.
        """
        self._dropped.append(key)

    def keys(self) -> list[Key]:
        """Give all that is held."""
        self._settle()
        with self._guard:
            return list(self._keys)

    def left(self) -> list[Key]:
        """Give what TaskIQ let go of, as long as its lease may last: it counts as delivered."""
        self._settle()
        return list(self._left)

    def _settle(self) -> None:
        now = time.monotonic()
        with self._guard:
            while self._dropped:
                key = self._dropped.popleft()
                if key in self._keys:
                    del self._keys[key]
                    self._left[key] = now + 2 * self._lease
            for key in [key for key, end in self._left.items() if end < now]:
                del self._left[key]
