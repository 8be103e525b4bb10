"""The ranks of a running program, and what they say to each other between its steps.

They talk on a communicator of their own, so that nothing meets the program's messages, and only while
their main threads are in ``poll()``, ``embed()`` or ``close()``.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Ranks(Protocol):
    """All ranks of the program.

    Attributes:
        comm: their communicator; None without MPI.
        rank: which one this is.
        size: how many there are.
    """

    comm: Any
    rank: int
    size: int

    def tell(self, word: int) -> int:
        """Return the *word* (0 to 255) that rank 0 says; all ranks call this."""

    def all(self, value: T) -> list[T]:
        """Return what every rank says, by rank; all ranks call this."""

    def ask(self) -> None:
        """Tell rank 0 that something has to be agreed on; any rank, at any time, but rank 0."""

    def asked(self) -> bool:
        """Say whether anybody has asked since the last time (rank 0)."""

    def close(self) -> None:
        """Talk no more; all ranks call this."""


class Alone:
    """A program of one process, without MPI."""

    comm = None
    rank = 0
    size = 1

    def tell(self, word: int) -> int:
        """Return *word*."""
        return word

    def all(self, value: T) -> list[T]:
        """Return *value* as what all have said."""
        return [value]

    def ask(self) -> None:
        """Nobody is there to be asked."""

    def asked(self) -> bool:
        """Nobody is there to ask."""
        return False

    def close(self) -> None:
        """Nothing was opened."""


class Together:
    """The ranks of an MPI program, those of *comm*; all of them make this, and have it to themselves."""

    def __init__(self, comm: Any) -> None:
        self.comm = comm.Dup()
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        self._word = bytearray(1)
        self._nothing = bytearray(1)
        self._asking: list[Any] = []
        self._asks = 0  # how many were sent; on rank 0: received
        self.tell(0)  # the first use of a communicator is slow: not in the middle of a simulation
        self.all(None)

    def tell(self, word: int) -> int:
        """Return the *word* (0 to 255) that rank 0 says."""
        self._word[0] = word
        self.comm.Bcast(self._word, 0)
        return self._word[0]

    def all(self, value: T) -> list[T]:
        """Return what every rank says, by rank."""
        said: list[T] = self.comm.allgather(value)
        return said

    def ask(self) -> None:
        """Tell rank 0 that something has to be agreed on."""
        self._asking = [request for request in self._asking if not request.Test()]
        self._asking.append(self.comm.Isend(self._nothing, 0))
        self._asks += 1

    def asked(self) -> bool:
        """Say whether anybody has asked since the last time."""
        before = self._asks
        while self.comm.Iprobe():
            self.comm.Recv(self._nothing)
            self._asks += 1
        return self._asks > before

    def close(self) -> None:
        """Take in what is on its way, and free the communicator."""
        sent = sum(self.all(self._asks if self.rank else 0))
        while self.rank == 0 and self._asks < sent:
            self.comm.Recv(self._nothing)
            self._asks += 1
        for request in self._asking:
            request.Wait()
        self._asking.clear()
        self.comm.Free()
