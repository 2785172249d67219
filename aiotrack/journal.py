"""The local file that takes reports while the database is away, and gives them back.

One file a process, locked by it for as long as it lives; whoever can lock a file of a process that
is gone adopts it. A frame is length, CRC-32 and JSON: a torn end is noticed and left out. Replaying
is harmless when repeated, because reports may be told any number of times.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO
from uuid import uuid4

from aiotrack.files import copy, is_at, listed, lock, make, write_all
from aiotrack.report import Report
from aiotrack.wording import from_json, to_json

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Size of one process' journal; what does not fit is refused."""

READ_AT_ONCE = 1 * 1024 * 1024
"""Bytes that are read for one replay at most, and one report: big ones come in smaller pieces."""

ADOPTED_AT_ONCE = 16
"""Journals of others that are open at a time."""

TOLD = 3
"""Faults of one file that are told one by one; the rest is counted."""

UNREAD = 16
"""Files that nobody could read whole and that are kept, of one database: the newest ones."""

_FRAME = struct.Struct(">II")
_TORN = 1 << 62
"""Length of a frame that has no end."""


def default_folder() -> Path:
    """Give the user's state folder, or a temporary one where there is no home."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        base = Path(state) if state else Path.home() / ".local" / "state"
    except RuntimeError:
        base = Path(tempfile.gettempdir())
    return base / "aiotrack"


class Journal:
    """Appends reports durably; blocking, to be called from a thread.

    Args:
        folder: Where journals of this database lie; made on first use.
        max_bytes: What it takes.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._faults: set[Path] = set()
        self._max_bytes = max_bytes
        self._file: IO[bytes] | None = None
        self._path = _new_path(folder)
        self._damage = Damage()
        self.size = 0
        """Bytes that are kept now."""

    def append(self, reports: Iterable[Report]) -> int:
        """Keep *reports*, synced to the disk when this returns.

        Returns:
            How many fitted in; the first ones do.

        Raises:
            OSError: The disk is full, or the folder cannot be written.
        """
        frames, count, size = [], 0, self.size
        for report in reports:
            payload = json.dumps(to_json(report), separators=(",", ":")).encode()
            frame = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
            if size + len(frame) > self._max_bytes:
                break
            size += len(frame)
            frames.append(frame)
            count += 1
        if frames:
            file = self._ready()
            self._check(file)
            try:
                if os.fstat(file.fileno()).st_size != self.size:
                    file.truncate(self.size)  # the rest of an append that failed
                write_all(file, b"".join(frames))
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(self.size)
                raise
            self.size = size
        return count

    def read(self, offset: int, count: int) -> tuple[list[Report], int]:
        """Give up to *count* reports from *offset* (bytes) on, and where the next ones begin."""
        if self._file is None or offset >= self.size:
            return [], offset
        self._check(self._file)
        return read(self._file, offset, count, self._damage)

    def clear(self, offset: int) -> bool:
        """Forget what this process kept: it is in the database up to *offset*.

        Returns:
            False, and nothing is forgotten, when more was kept meanwhile.
        """
        if offset < self.size:
            return False
        if self._damage.count:
            _set_aside(self._path, self._damage)
            self.size = 0
            self.leave()
        elif self._file is not None:
            self._file.truncate(0)
            os.fsync(self._file.fileno())
        self.size = 0
        return True

    def leave(self) -> None:
        """Start anew in another file; this one waits for whoever adopts it."""
        self.close()
        self._path = _new_path(self._folder)
        self._damage = Damage()
        self.size = 0

    def close(self) -> None:
        """Let the file go; an empty one is removed, another waits for whoever adopts it."""
        if self.size and self._file is not None:
            with contextlib.suppress(OSError):
                self._ready()
        file, self._file = self._file, None
        if file is not None:
            if self.size == 0:
                self._path.unlink(missing_ok=True)
            file.close()

    def another(self) -> Journal:
        """Give a journal beside this one, in a file of its own, for what still fits in here."""
        return Journal(self._folder, max_bytes=self._max_bytes - self.size)

    def after_fork(self) -> None:
        """Let the parent's file go in a child: it would stay locked for as long as that lives."""
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def adopt(self) -> list[Orphan]:
        """Take the journals of processes that are gone; each is locked until it is let go.

        Raises:
            OSError: The folder is there, and cannot be looked into.
        """
        found: list[Orphan] = []
        faults: dict[Path, OSError] = {}
        for path in listed(self._folder):
            if path == self._path or len(found) >= ADOPTED_AT_ONCE:
                continue
            try:
                with contextlib.ExitStack() as stack:
                    file = stack.enter_context(path.open("r+b", buffering=0))
                    if lock(file) and path.exists():
                        stack.pop_all()
                        found.append(Orphan(path, file))
            except FileNotFoundError:  # another adopted it
                pass
            except OSError as error:
                faults[path] = error
        for path in [path for path in faults if path not in self._faults][:1]:
            what = "%s and %d others are not replayed: another account's, or damaged: %s"
            log.warning(what, path, len(faults) - 1, faults[path])
        self._faults = set(faults)
        return found

    def _check(self, file: IO[bytes]) -> None:
        if os.fstat(file.fileno()).st_size < self.size:  # behind a hole nobody would read
            raise OSError(errno.EIO, "somebody cut the journal", str(self._path))

    def _ready(self) -> IO[bytes]:
        """Give the file to write to; where somebody removed it, a new one with what it held."""
        old = self._file
        if old is not None and is_at(self._path, old):
            return old
        file, path = make(self._folder, _new_path)
        if old is not None:
            try:
                copy(old, file, self.size)
            except OSError:
                file.close()
                path.unlink(missing_ok=True)
                raise
            log.warning("%s was removed; what it held is in %s: see journal_dir", self._path, path)
            old.close()
        self._file, self._path = file, path
        return file


class Damage:
    """What of a file could not be read."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, text: str, *values: object) -> None:
        """Count a fault, and tell it unless there were many."""
        self.count += 1
        if self.count <= TOLD:
            log.error(text, *values)


class Orphan:
    """A journal whose process is gone."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file
        self._damage = Damage()

    def read(self, offset: int, count: int) -> tuple[list[Report], int]:
        """Give up to *count* reports from *offset* on, up to the first damage."""
        return read(self._file, offset, count, self._damage)

    def remove(self) -> None:
        """Delete it: its reports are in the database; what could not be read is kept."""
        if self._damage.count:
            _set_aside(self.path, self._damage)
        else:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Let it go, to be adopted by another process."""
        self._file.close()


def _new_path(folder: Path) -> Path:
    return folder / f"{os.getpid()}-{uuid4().hex[:12]}.journal"


def _set_aside(path: Path, damage: Damage) -> None:
    """Keep what nobody could read under a name that is not looked for; of many the newest."""
    kept = path.with_suffix(".unread")
    path.replace(kept)
    log.error("%s could not be read in %d places: it is kept as %s", path, damage.count, kept)
    with contextlib.suppress(OSError):
        others = sorted(path.parent.glob("*.unread"), key=lambda one: one.stat().st_mtime_ns)
        for one in others[:-UNREAD]:
            one.unlink(missing_ok=True)


def read(
    file: IO[bytes], offset: int, count: int, damage: Damage | None = None
) -> tuple[list[Report], int]:
    """Read frames of a journal, and say where the next one begins; damage is passed over."""
    damage = damage or Damage()
    reports: list[Report] = []
    end = os.fstat(file.fileno()).st_size
    enough = min(end, offset + READ_AT_ONCE)
    while len(reports) < count and offset < enough:
        file.seek(offset)
        length, payload = _frame(file)
        if length > end - offset:
            if _is_blank(file, offset):  # a power cut in a write: nobody was told that it is kept
                log.warning("%s was not written to its end, from byte %d on", file.name, offset)
            else:
                what = "%s is torn or damaged at byte %d: the rest is not read"
                damage.add(what, file.name, offset)
            return reports, end
        if payload is None:
            damage.add("%s is damaged at byte %d: a report is not read", file.name, offset)
        else:
            try:
                reports.append(from_json(json.loads(payload)))
            except Exception as error:  # whatever damage or a newer release makes of it
                damage.add("%s holds a report that cannot be read: %r", file.name, error)
        offset += length
    return reports, offset


def _is_blank(file: IO[bytes], offset: int) -> bool:
    """Whether nothing but zeros follows."""
    file.seek(offset)
    while piece := file.read(READ_AT_ONCE):
        if piece.strip(b"\0"):
            return False
    return True


def _frame(file: IO[bytes]) -> tuple[int, bytes | None]:
    """Read a frame: its length, too great when it is torn, and what it holds, None if damaged."""
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return _TORN, None
    length, checksum = _FRAME.unpack(head)
    if not 0 < length <= MAX_BYTES:  # zeros would be frames of nothing, with a true checksum
        return _TORN, None
    payload = file.read(length)
    return _FRAME.size + length, payload if zlib.crc32(payload) == checksum else None
