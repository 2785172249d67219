"""The local file that takes reports while the database is away, and gives them back.

One file a process, locked by it for as long as it lives; whoever can lock a file of a process that
is gone adopts it. A frame is length, CRC-32 and JSON: a torn end is noticed and left out. Replaying
is harmless when repeated, because reports may be told any number of times.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from aiotrack.model import TaskStatus
from aiotrack.report import Origin, Report, Witness

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Size of one process' journal; what does not fit is refused."""

_FRAME = struct.Struct(">II")
_MAX_FRAME = 4 * 1024 * 1024
"""A longer frame is damage: a report's values are bounded far below it."""


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
        self._path = folder / f"{os.getpid()}-{uuid4().hex[:12]}.journal"
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
                file.write(b"".join(frames))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(self.size)
                file.seek(self.size)
                raise
            self.size = size
        return count

    def read(self, offset: int, count: int) -> tuple[list[Report], int]:
        """Give up to *count* reports from *offset* (bytes) on, and where the next ones begin."""
        return read(self._path, offset, count) if offset < self.size else ([], offset)

    def clear(self) -> None:
        """Forget what this process kept: it is in the database."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.seek(0)
            os.fsync(self._file.fileno())
        self.size = 0

    def close(self) -> None:
        """Let the file go; an empty one is removed, another waits for whoever adopts it."""
        file, self._file = self._file, None
        if file is not None:
            if self.size == 0:
                self._path.unlink(missing_ok=True)
            file.close()

    def adopt(self) -> list[Orphan]:
        """Take the journals of processes that are gone; each is locked until it is let go."""
        found = []
        for path in sorted(self._folder.glob("*.journal")):
            if path != self._path:
                with contextlib.suppress(OSError):
                    file = path.open("r+b")
                    if _lock(file) and path.exists():
                        found.append(Orphan(path, file))
                    else:
                        file.close()
        return found

    def _open(self) -> IO[bytes]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        self._file = os.fdopen(handle, "r+b", buffering=0)
        _lock(self._file)
        return self._file


class Orphan:
    """A journal whose process is gone."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path = path
        self._file = file

    def read(self, offset: int, count: int) -> tuple[list[Report], int]:
        """Give up to *count* reports from *offset* on, up to the first damage."""
        return read(self.path, offset, count)

    def remove(self) -> None:
        """Delete it: its reports are in the database."""
        self.path.unlink(missing_ok=True)
        self._file.close()

    def close(self) -> None:
        """Let it go, to be adopted by another process."""
        self._file.close()


def _lock(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def read(path: Path, offset: int, count: int) -> tuple[list[Report], int]:
    """Read frames of a journal, and say where the next one begins."""
    reports: list[Report] = []
    with path.open("rb") as file:
        file.seek(offset)
        while len(reports) < count and (head := file.read(_FRAME.size)):
            payload = _payload(head, file)
            if payload is None:
                log.warning("%s is damaged at byte %d: what follows is left out", path, offset)
                break
            offset = file.tell()
            try:
                reports.append(from_json(json.loads(payload)))
            except (ValueError, TypeError, KeyError) as error:
                log.error("%s holds a report that cannot be read: %r", path, error)
    return reports, offset


def _payload(head: bytes, file: IO[bytes]) -> bytes | None:
    """Read what belongs to a frame's head; None when it is torn or damaged."""
    if len(head) < _FRAME.size:
        return None
    length, checksum = _FRAME.unpack(head)
    payload = file.read(length) if length <= _MAX_FRAME else b""
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def to_json(report: Report) -> dict[str, Any]:
    """Give a report as JSON can hold it."""
    return asdict(report)


def from_json(said: dict[str, Any]) -> Report:
    """Give back what `to_json` made, also by an older release: unknown fields are left out."""
    origin = Origin(**{k: v for k, v in said.pop("origin").items() if k in Origin.__slots__})
    patch = said.pop("patch", None)
    rest = {k: v for k, v in said.items() if k in Report.__slots__}
    rest["witness"] = Witness(rest["witness"])
    rest["status"] = TaskStatus(rest["status"])
    report = Report(origin=origin, **rest)
    if patch:
        report.patch = {key: (tuple(stamp), text) for key, (stamp, text) in patch.items()}
    return report
