"""One server as a child process: started, killed, paused, and gone when its parent is gone."""

from __future__ import annotations

import contextlib
import logging
import os
import pwd
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiotrack.errors import AioTrackError, MissingExtra

if TYPE_CHECKING:
    import psutil

log = logging.getLogger(__name__)

STOP_TIMEOUT = 20.0  # seconds for a clean stop before it is killed; a guess
LOG_TAIL = 2_000  # characters of the server's own log in an error

# Runs between fork and exec, as a program of its own: `preexec_fn` may deadlock in a process with
# threads and warns since Python 3.12. Privileges go first: giving them up clears the death signal.
_LAUNCHER = """
import ctypes, os, signal, sys
parent, death, uid, gid, *command = sys.argv[1:]
if uid != "-":
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(death), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit("the parent is gone")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execv(command[0], command)
"""


class ServerFailed(AioTrackError):
    """An embedded server did not start, or died; the end of its log is in the message."""

    code = "server-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whose rights a server runs with."""

    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> Account | None:
        """Find the account for servers that refuse root; None when we are not root.

        ``nobody`` exists everywhere, so that nothing has to be created on the user's machine.
        """
        if os.geteuid() != 0:
            return None
        entry = pwd.getpwnam("nobody")
        return cls(uid=entry.pw_uid, gid=entry.pw_gid)


class ServerProcess:
    """A started server and the processes that it has forked."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        log_file: Path,
        account: Account | None = None,
        death: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start *command*.

        Args:
            command: Absolute path of the binary, and its arguments.
            cwd: Working directory.
            log_file: Takes stdout and stderr, appended.
            account: Whose rights it gets; None keeps ours.
            death: The signal that it gets when this process dies (Linux only).
        """
        self.log_file = log_file
        who = ("-", "-") if account is None else (str(account.uid), str(account.gid))
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(death))]

        def start() -> subprocess.Popen[bytes]:
            with log_file.open("ab") as out:
                return subprocess.Popen(
                    [*launcher, *who, *command],
                    cwd=cwd,
                    env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in a terminal is for the parent alone
                )

        self._process = _in_lasting_thread(start)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True until the process has ended; a paused one is running."""
        return self._process.poll() is None

    def stop(self, sign: signal.Signals, timeout: float = STOP_TIMEOUT) -> None:
        """Ask the server to end with *sign*; kill it after *timeout* seconds."""
        if not self.running:
            return
        self.resume()
        self._process.send_signal(sign)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            log.warning("server %d ignored %s for %s s: killed", self.pid, sign.name, timeout)
            self.kill()

    def kill(self) -> None:
        """End the server and its children at once, like a power cut; returns when all are gone."""
        if not self.running:
            return
        self._process.send_signal(signal.SIGSTOP)  # it forks no more while we look
        children = self._children()
        self._process.kill()
        self._process.wait()
        _signal_all(children, signal.SIGKILL)
        _wait_gone(children)

    def pause(self) -> None:
        """Freeze the server and its children: connections stay open and nobody answers."""
        self._process.send_signal(signal.SIGSTOP)
        _signal_all(self._children(), signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on; harmless when it runs."""
        _signal_all(self._children(), signal.SIGCONT)
        self._process.send_signal(signal.SIGCONT)

    def log_tail(self) -> str:
        """Give the end of the server's log."""
        try:
            return self.log_file.read_text(errors="replace")[-LOG_TAIL:]
        except OSError:
            return ""

    def _children(self) -> list[psutil.Process]:
        try:
            import psutil
        except ImportError as error:
            raise MissingExtra("psutil", "embedded", "stopping an embedded server") from error
        try:
            children: list[psutil.Process] = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        return children


def poll(timeout: float, *, first: float = 0.005, longest: float = 0.1) -> Iterator[float]:
    """Yield the seconds that are left, with growing pauses, until *timeout* seconds are over."""
    end = time.monotonic() + timeout
    pause = first
    while (left := end - time.monotonic()) > 0:
        yield left
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, longest)


def _signal_all(processes: Sequence[psutil.Process], sign: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, sign)


def _wait_gone(processes: Sequence[psutil.Process]) -> None:
    """Wait until none of them runs; a zombie that nobody reaps (containers) counts as gone."""
    for _ in poll(STOP_TIMEOUT):
        if not any(_alive(process) for process in processes):
            return


def _alive(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


# Linux sends the parent's death signal when the *thread* that started the child ends. Servers are
# restarted from worker threads too, so all are started from one thread that lasts.
_starts: queue.SimpleQueue[
    tuple[Future[subprocess.Popen[bytes]], Callable[[], subprocess.Popen[bytes]]]
]
_starts = queue.SimpleQueue()
_starter_lock = threading.Lock()
_starter: threading.Thread | None = None


def _in_lasting_thread(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    global _starter
    done: Future[subprocess.Popen[bytes]] = Future()
    with _starter_lock:
        if _starter is None or not _starter.is_alive():  # not alive: we are a fork of its process
            _starter = threading.Thread(target=_serve_starts, name="aiotrack-servers", daemon=True)
            _starter.start()
    _starts.put((done, start))
    return done.result()


def _serve_starts() -> None:
    while True:
        done, start = _starts.get()
        try:
            done.set_result(start())
        except BaseException as error:
            done.set_exception(error)
