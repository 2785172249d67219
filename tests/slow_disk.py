"""A disk below the journals that is slow, or stands still."""

from __future__ import annotations

import os
import threading
import time

import pytest


class SlowDisk:
    """Its syncs take as long as they are told, or wait for an answer.

    A disk that stands still cannot be had in a test, so `os.fsync` itself is replaced; folders and
    files are real.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.seconds = 0.0
        self.asked = 0
        self._sync = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        self.asked += 1
        time.sleep(self.seconds)
        self.answers.wait(60)
        self._sync(handle)
