"""The local file that takes reports while the database is away, and gives them back.

One file a process, locked by it for as long as it lives; whoever can lock a file of a process that
is gone adopts it. A frame is length, CRC-32 and JSON: a torn end is noticed and left out. Replaying
is harmless when repeated, because reports may be told any number of times.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import json
import logging
import os
import struct
import tempfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from aiotrack.clock import boot_id, host_offset, settle_by_host
from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness, is_unsettled, settled

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Size of one process' journal; what does not fit is refused."""

READ_AT_ONCE = 1 * 1024 * 1024
"""Bytes that are read for one replay at most, and one report: big ones come in smaller pieces."""

ADOPTED_AT_ONCE = 16
"""Journals of others that are open at a time."""

TRIES = 16
"""New files that others may take before it is given up: more than one is hardly ever taken."""

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
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._file: IO[bytes] | None = None
        self._path = _new_path(folder)
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
            file = self._file or self._open()
            try:
                if os.fstat(file.fileno()).st_size != self.size:
                    file.truncate(self.size)  # the rest of an append that failed
                _write_all(file, b"".join(frames))
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
        return read(self._file, offset, count)

    def clear(self, offset: int) -> bool:
        """Forget what this process kept: it is in the database up to *offset*.

        Returns:
            False, and nothing is forgotten, when more was kept meanwhile.
        """
        if offset < self.size:
            return False
        if self._file is not None:
            self._file.truncate(0)
            os.fsync(self._file.fileno())
        self.size = 0
        return True

    def leave(self) -> None:
        """Start anew in another file; this one waits for whoever adopts it."""
        self.close()
        self._path = _new_path(self._folder)
        self.size = 0

    def close(self) -> None:
        """Let the file go; an empty one is removed, another waits for whoever adopts it."""
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
        try:
            paths = sorted(self._folder.iterdir())  # glob says nothing of a fault, from 3.13 on
        except (FileNotFoundError, NotADirectoryError):
            return found
        for path in paths:
            is_theirs = path.suffix == ".journal" and path != self._path
            if not is_theirs or len(found) >= ADOPTED_AT_ONCE:
                continue
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                file = stack.enter_context(path.open("r+b", buffering=0))
                if _lock(file) and path.exists():
                    stack.pop_all()
                    found.append(Orphan(path, file))
        return found

    def _open(self) -> IO[bytes]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(TRIES):
            handle = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
            file = os.fdopen(handle, "r+b", buffering=0)
            try:
                is_ours = (_lock(file) or not _CAN_LOCK) and self._path.exists()
            except OSError:  # unlocked, two might use it at once: better none
                file.close()
                self._path.unlink(missing_ok=True)
                raise
            if is_ours:
                _sync_folder(self._folder)
                self._file = file
                return file
            file.close()  # whoever adopts was faster than the lock, and removes it
            self._path = _new_path(self._folder)
        raise OSError(errno.EAGAIN, "others take every new journal", str(self._folder))


_CAN_LOCK = importlib.util.find_spec("fcntl") is not None


class Orphan:
    """A journal whose process is gone."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file

    def read(self, offset: int, count: int) -> tuple[list[Report], int]:
        """Give up to *count* reports from *offset* on, up to the first damage."""
        return read(self._file, offset, count)

    def remove(self) -> None:
        """Delete it: its reports are in the database."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Let it go, to be adopted by another process."""
        self._file.close()


def _lock(file: IO[bytes]) -> bool:
    """Take a file for this process; where the system has no such locks nothing is adopted.

    Returns:
        False when another process has it.

    Raises:
        OSError: No file can be locked there: NFS without its lock daemon, some of FUSE's.
    """
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a power cut, where folders can be opened."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _new_path(folder: Path) -> Path:
    return folder / f"{os.getpid()}-{uuid4().hex[:12]}.journal"


def _write_all(file: IO[bytes], data: bytes) -> None:
    """Write every byte: a disk that is nearly full takes a part of them and says nothing."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def read(file: IO[bytes], offset: int, count: int) -> tuple[list[Report], int]:
    """Read frames of a journal, and say where the next one begins; damage is passed over."""
    reports: list[Report] = []
    end = os.fstat(file.fileno()).st_size
    enough = min(end, offset + READ_AT_ONCE)
    while len(reports) < count and offset < enough:
        file.seek(offset)
        length, payload = _frame(file)
        if length > end - offset:
            log.warning("%s is torn or damaged at byte %d: the rest is lost", file.name, offset)
            return reports, end
        if payload is None:
            log.error("%s is damaged at byte %d: a report is lost", file.name, offset)
        else:
            try:
                reports.append(from_json(json.loads(payload)))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                log.error("%s holds a report that cannot be read: %r", file.name, error)
        offset += length
    return reports, offset


def _frame(file: IO[bytes]) -> tuple[int, bytes | None]:
    """Read a frame: its length, too great when it is torn, and what it holds, None if damaged."""
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return _TORN, None
    length, checksum = _FRAME.unpack(head)
    if length > MAX_BYTES:
        return _TORN, None
    payload = file.read(length)
    return _FRAME.size + length, payload if zlib.crc32(payload) == checksum else None


def to_json(report: Report) -> dict[str, Any]:
    """Give a report as JSON can hold it; one without a date says whose clock it is by."""
    said = asdict(report)
    if is_unsettled(report):
        said["clock"] = [boot_id(), host_offset()]
    return said


def from_json(said: dict[str, Any]) -> Report:
    """Give back what `to_json` made, also by an older release: unknown fields are left out."""
    told = said.pop("origin")
    origin = Origin(**{k: v for k, v in told.items() if k in Origin.__slots__})
    patch = said.pop("patch", None)
    boot, offset = said.pop("clock", None) or (None, 0)
    rest = {k: v for k, v in said.items() if k in Report.__slots__}
    rest["witness"] = Witness(rest["witness"])
    rest["status"] = TaskStatus(rest["status"])
    report = Report(origin=origin, **rest)
    if patch:
        report.patch = {key: (tuple(stamp), text) for key, (stamp, text) in patch.items()}
    if boot is not None and boot != boot_id():
        return settled(report, lambda moment: settle_by_host(moment, offset))
    return report
