"""Signals by which a batch system says that it is about to end a job: handed on to the node agent.

::

    scheduler ──signal──▶ rank: Python's C handler ──one byte──▶ FIFO ──▶ agent ──Warned──▶ controller

The byte is written within the signal handler (``signal.set_wakeup_fd``), also while C code holds the GIL.
The rank works on, after SIGTERM too: the controller has the hooks run, and ends it in time. If that does not
happen, it ends by itself.

Only inside of a batch job; elsewhere signals are what they always are.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType

from hpcremote.wire.walltime import WARNINGS

#: How long the rank lives on after a SIGTERM that nobody does anything about, in seconds.
PATIENCE = 40.0


class Signals:
    """This process' end of the FIFO.

    Args:
        path: the FIFO, which this makes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
        # Both ends: what is written while no agent is there waits for the next one.
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._since = 0.0
        self._pid = os.getpid()

    def install(self) -> None:
        """From now on. Called in the main thread, before whatever else handles SIGTERM."""
        for number in WARNINGS:
            if number == signal.SIGTERM or signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, self._on_signal)
        signal.set_wakeup_fd(self._fd, warn_on_full_buffer=False)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked child of the user's
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        if number == signal.SIGTERM:
            self._since = self._since or time.monotonic()

    def tick(self) -> None:
        """End this process if nobody else does (called now and then while a call runs).

        One that idles ends with its connection, which a controller or agent that has ended takes along.
        """
        if self._since and time.monotonic() - self._since > PATIENCE:
            os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Take the FIFO away. Signals are taken, and lead nowhere."""
        signal.set_wakeup_fd(-1)
        self._path.unlink(missing_ok=True)
        os.close(self._fd)
