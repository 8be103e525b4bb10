"""Sleep until a connection has something, or another thread rings."""

from __future__ import annotations

import contextlib
import os
import select
import weakref
from collections.abc import Sequence

_RING = b"\1\0\0\0\0\0\0\0"  # what an eventfd takes; a pipe takes anything


class Watch:
    """A connection's descriptors and a bell, for one thread to sleep on.

    Args:
        fds: descriptors to watch for reading; the first one is also the one to write to.

    Attributes:
        fds: those that are watched now.
    """

    def __init__(self, fds: Sequence[int]) -> None:
        if hasattr(os, "eventfd"):
            self._bell = self._button = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self._bell, self._button = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Not by a close(): another thread may be about to ring, and the number may be another file's by then.
        weakref.finalize(self, _close_all, {self._bell, self._button})
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self.fds: Sequence[int] = ()
        self.change(fds)

    def ring(self) -> None:
        """Make :meth:`wait` return. From any thread, a signal handler or the garbage collector."""
        with contextlib.suppress(BlockingIOError):  # it rings already
            os.write(self._button, _RING)

    def wait(self, milliseconds: float | None, *, writing: bool) -> bool:
        """Sleep for at most so long; return whether one of the descriptors fired.

        Args:
            milliseconds: or None for as long as it takes.
            writing: wake up, too, when the first descriptor takes more.
        """
        if writing:
            self._poll.modify(self._first, select.POLLIN | select.POLLOUT)
        fired = False
        for fd, _ in self._poll.poll(milliseconds):
            if fd == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.read(fd, 4096)
            else:
                fired = True
        if writing:
            self._poll.modify(self._first, select.POLLIN)
        return fired

    def change(self, fds: Sequence[int]) -> None:
        """Watch these descriptors instead."""
        for fd in self.fds:
            self._poll.unregister(fd)
        for fd in fds:
            self._poll.register(fd, select.POLLIN)
        self.fds, self._first = fds, fds[0]

    def forget(self) -> None:
        """Do not watch the first descriptor any more."""
        self._poll.unregister(self._first)


def _close_all(fds: set[int]) -> None:
    for fd in fds:
        os.close(fd)
