"""When a background thread may take over from user threads, without a timer while it may not."""

from __future__ import annotations

import threading

#: How long user threads are given to come back, in seconds.
NAP = 0.005


class Standby:
    """The background thread's sleep.

    It naps while user threads come and go, so that a loop of short blocking calls never has to send it
    away. While one user thread goes on reading it sleeps without a timer: an idle engine burns nothing.

    Args:
        reader: the lock that the thread holds which reads.

    Attributes:
        readings: counted up by every user thread that begins to read.
    """

    def __init__(self, reader: threading.Lock) -> None:
        self.readings = 0
        self._reader = reader
        self._seen = -1
        self._asleep = False
        self._ended = False
        self._wake = threading.Event()

    def is_quiet(self) -> bool:
        """Say whether no user thread has begun to read since the last :meth:`sleep`."""
        return self.readings == self._seen

    def sleep(self) -> None:
        """Nap; or sleep until the reader leaves, if it has been reading since the last nap."""
        if self.is_quiet() and self._reader.locked():
            self._asleep = True
            # It may have left before it could see that; then there is nobody to wake us.
            if self._reader.locked() and not self._ended:
                self._wake.wait()
            self._asleep = False
            self._wake.clear()
        self._seen = self.readings
        self._wake.wait(NAP)
        self._wake.clear()

    def reader_left(self) -> None:
        """Wake up who waits for that. Called on the path of every call."""
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def end(self) -> None:
        """Wake up for good."""
        self._ended = True
        self._wake.set()
