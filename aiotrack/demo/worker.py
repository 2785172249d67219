"""A real worker, scheduler or server as a child: started, watched, surely gone at the end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

PROCESSES = 2
"""Worker processes of one ``taskiq worker``."""

STOP_TIMEOUT = 8.0
"""Seconds from SIGTERM to SIGKILL; an idle worker needs two."""

LOG_LINES = 15
"""Lines of its log that are shown when it dies."""


class Child:
    """A command of TaskIQ, or of ours, in a process group of its own.

    Args:
        program: ``taskiq`` or ``aiotrack``.
        verb: The command.
        target: What it runs: ``package.module:name``.
        options: What else it is told.
        environment: Added to ours.
        log_file: Takes what it prints.
    """

    def __init__(
        self,
        program: str,
        verb: str,
        target: str,
        *options: str,
        environment: Mapping[str, str],
        log_file: Path,
    ) -> None:
        self.words = f"{program} {verb} {target}"
        self._log_file = log_file
        self._command = [sys.executable, "-m", program, verb, target, *options]
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **environment}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the demo, which stops it in good order
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id of its main process; 0 before the start."""
        return 0 if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its main process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Let it finish what runs; kill what is left of it after `STOP_TIMEOUT`. Repeatable."""
        process = self._process
        if process is None:
            return
        try:
            if process.poll() is None:
                process.terminate()
                process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also when somebody is impatient and presses Ctrl-C again
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            self._process = None

    def last_words(self) -> str:
        """Give the end of its log."""
        lines = self._log_file.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])


class Worker(Child):
    """``taskiq worker`` for a broker."""

    def __init__(self, broker: str, *, environment: Mapping[str, str], log_file: Path) -> None:
        super().__init__(
            *("taskiq", "worker", broker),
            *("--workers", str(PROCESSES)),
            *("--max-async-tasks", "5"),  # a process; so some tasks wait, and both get work
            *("--max-fails", "3"),  # a worker that cannot start ends, and does not try for ever
            *("--wait-tasks-timeout", "3", "--shutdown-timeout", "3"),
            environment=environment,
            log_file=log_file,
        )


class Scheduler(Child):
    """``taskiq scheduler``: it finds the sweeps among the broker's tasks."""

    def __init__(self, scheduler: str, *, environment: Mapping[str, str], log_file: Path) -> None:
        super().__init__(
            "taskiq", "scheduler", scheduler, environment=environment, log_file=log_file
        )


class Server(Child):
    """``aiotrack serve``: the dashboard, and the API that it asks."""

    def __init__(
        self, broker: str, *options: str, environment: Mapping[str, str], log_file: Path
    ) -> None:
        super().__init__(
            *("aiotrack", "serve", broker, *options), environment=environment, log_file=log_file
        )
