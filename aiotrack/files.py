"""Files that one process holds by a lock, for as long as it lives. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

PIECE = 1024 * 1024
"""Bytes that are copied at once."""

TRIES = 16
"""New files that others may take before it is given up: more than one is hardly ever taken."""

_CAN_LOCK = importlib.util.find_spec("fcntl") is not None


def listed(folder: Path) -> list[Path]:
    """Give the journals in a folder, if it is there."""
    try:  # glob says nothing of a fault, from 3.13 on
        return sorted(path for path in folder.iterdir() if path.suffix == ".journal")
    except (FileNotFoundError, NotADirectoryError):
        return []


def make(folder: Path, name: Callable[[Path], Path]) -> tuple[IO[bytes], Path]:
    """Make a file of this process, and its folder if need be."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(TRIES):
        path = name(folder)
        handle = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        file = os.fdopen(handle, "r+b", buffering=0)
        try:
            is_ours = (lock(file) or not _CAN_LOCK) and path.exists()
        except OSError:  # unlocked, two might use it at once: better none
            file.close()
            path.unlink(missing_ok=True)
            raise
        if is_ours:
            _sync_folder(folder)
            return file, path
        file.close()  # whoever adopts was faster than the lock, and removes it
    raise OSError(errno.EAGAIN, "others take every new file", str(folder))


def is_at(path: Path, file: IO[bytes]) -> bool:
    """Whether a file is still where others will look for it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except (FileNotFoundError, NotADirectoryError):
        return False


def copy(old: IO[bytes], new: IO[bytes], size: int) -> None:
    """Write the first *size* bytes of a file to another one, synced."""
    old.seek(0)
    left = size
    while left and (piece := old.read(min(left, PIECE))):
        write_all(new, piece)
        left -= len(piece)
    os.fsync(new.fileno())


def lock(file: IO[bytes]) -> bool:
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


def write_all(file: IO[bytes], data: bytes) -> None:
    """Write every byte: a disk that is nearly full takes a part of them and says nothing."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]
