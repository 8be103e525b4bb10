"""How another thread gets the main thread out of a wait in MPI: a message from this rank to itself.

The main thread waits for its operation *or* for the wake-up. Where MPI is not thread safe enough for another
thread to send (less than MPI_THREAD_MULTIPLE), nobody waits in MPI: they poll. So they do where ranks share
cores: while one spins in ``MPI_Waitany`` for its whole time slice, that on which it waits does not run.
"""

from __future__ import annotations

import threading
from threading import get_ident

from mpi4py import MPI

#: Tag of messages to ourselves (agreements have higher ones).
_TAG = 1


class Bell:
    """The wake-up of one process.

    Attributes:
        main: the thread that this belongs to.
        wake: the receive that ends a wait.
        waker: the thread that waits in MPI with it; all others poll.
    """

    def __init__(self, private: MPI.Intracomm, *, crowded: bool = False) -> None:
        self.main = get_ident()
        self._lock = threading.Lock()
        self._sending: list[MPI.Request] = []
        self._private = private
        self._rank = private.Get_rank()
        self.wake = self._listen()
        safe = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self.waker = self.main if safe and not crowded else 0

    def ring(self) -> None:
        """Make the main thread look, where it waits: a signal has come."""
        with self._lock:
            self._ring()

    def close(self) -> None:
        """Give the private communicator back; whoever waits from now on polls."""
        with self._lock:
            self.waker = 0
        if self.wake and not self.wake.Test():
            self.wake.Cancel()
            self.wake.Wait()
        while self._private.Iprobe(self._rank, _TAG):
            self._private.Recv(bytearray(1), self._rank, _TAG)

    def _ring(self) -> None:
        if self.waker:
            self._sending = [request for request in self._sending if not request.Test()]
            self._sending.append(self._private.Isend(bytearray(1), self._rank, _TAG))

    def _listen(self) -> MPI.Request:
        return self._private.Irecv(bytearray(1), self._rank, _TAG)
