"""Requests that nobody waits for any more: MPI goes on with their buffers, which have to live as long.

::

    an operation that was left      ──▶ keep ──┐
    a request that its user dropped ──▶ drop ──┴▶ look: is it over? then its buffer may go
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from time import perf_counter, sleep
from typing import Any, NamedTuple

from mpi4py import MPI

#: How long a cancelled receive may take to end, in seconds. One whose message is on its way ends with that,
#: and there may be nobody any more who sends the rest.
ENDING = 0.5
#: Between two looks at it, in seconds.
_NAP = 0.001
#: So many are looked at after each call: however many there are, it costs the same.
_FEW = 8

_test = MPI.Request.Test


class _Kept(NamedTuple):
    """A request, and for a receive that its user dropped what it was posted on (see ``Base.hidden``)."""

    request: MPI.Request
    comm: Any = None
    hidden: Any = None

    def is_vain(self) -> bool:
        """Say whether nobody can send to it any more."""
        return self.comm is not None and (bool(self.comm.trouble) or self.comm.hidden is not self.hidden)


class Left:
    """Those of one process.

    Attributes:
        kept: all of them.
    """

    def __init__(self) -> None:
        self.kept: deque[_Kept] = deque()
        self._ids: set[int] = set()

    def keep(self, requests: Iterable[MPI.Request]) -> None:
        """Keep these very objects, whoever else has them."""
        for request in requests:
            if id(request) not in self._ids:
                self._ids.add(id(request))
                self.kept.append(_Kept(request))

    def has(self, request: MPI.Request) -> bool:
        """Say whether this very object is kept."""
        return id(request) in self._ids

    def drop(self, request: MPI.Request, comm: Any = None, hidden: Any = None) -> None:
        """Keep one that nobody else has, a receive with what it was posted on; any thread, at any time."""
        self.kept.append(_Kept(request, comm, hidden))

    def look(self) -> None:
        """Let go what is over, and cancel what is in vain."""
        for _ in range(min(len(self.kept), _FEW)):
            one = self.kept.popleft()
            if is_over(one.request):
                self._ids.discard(id(one.request))
                continue
            if one.is_vain():
                one.request.Cancel()
                one = _Kept(one.request)
            self.kept.append(one)


def is_over(request: MPI.Request) -> bool:
    """Say whether MPI has done with a request that nobody waits for: an error is as good an end as any."""
    try:
        return bool(_test(request))
    except MPI.Exception:
        return not request  # MPI may say that it goes on (a receive from anybody, and one has died)


def cancel(request: MPI.Request, over: Callable[[], bool]) -> bool:
    """Cancel a receive; say whether that has ended it, which *over* asks MPI."""
    request.Cancel()
    deadline = perf_counter() + ENDING
    while not over():
        if perf_counter() > deadline:
            return False
        sleep(_NAP)
    return True
