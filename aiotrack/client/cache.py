"""What a client keeps: executions that are over, those that were asked for last."""

from __future__ import annotations

from collections import OrderedDict

from aiotrack.model import Execution


class Cache(OrderedDict[str | int, Execution]):
    """Executions by what they were asked for: a task_id (text), or their number.

    Args:
        size: Executions that are kept; 0: none.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def find(self, key: str | int) -> Execution | None:
        """Give what is kept, which stays for longer by that."""
        kept = self.get(key)
        if kept is not None:
            self.move_to_end(key)
        return kept

    def keep(self, key: str | int, found: Execution) -> None:
        """Keep an execution if it is truly over; the ones that were not asked for go."""
        if found.is_completed and not found.presumed:
            self[key] = found
            self.move_to_end(key)
            while len(self) > self._size:
                self.popitem(last=False)

    def forget(self, task_id: str) -> None:
        """Drop an execution that has changed though it is over, whatever it was asked for by."""
        for key in [key for key, one in self.items() if task_id in {key, one.task_id}]:
            del self[key]
