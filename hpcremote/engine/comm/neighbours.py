"""Neighbourhood collectives of communicators that have a topology; the arguments are mpi4py's.

Those on objects send heads (see :mod:`hpcremote.engine.comm.objects`) and rests from rank to rank, over the
hidden duplicate: MPI's own would need to be told sizes, and Open MPI's non-blocking forms have errors here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.base import Base
from hpcremote.engine.comm.objects import HEAD, ROOM, Objects, head_form, items_of, pack, unpack
from hpcremote.engine.comm.posts import posting

_T = MPI.Topocomm
_ARRAYS = ["allgather", "allgatherv", "alltoall", "alltoallv", "alltoallw"]
#: Of messages between neighbours.
_TAG = 2
_OPEN_MPI = MPI.Get_library_version().startswith("Open MPI")

#: Head and rest.
Packed = tuple[bytes, bytes]


class Neighbours(Objects):
    """``Neighbor_allgather``, ``neighbor_allgather`` and their like."""

    inedges: list[int]
    outedges: list[int]

    def neighbor_allgather(self, sendobj: Any) -> list[Any]:
        """See mpi4py."""
        self.begin("neighbor_allgather")
        try:
            packed = pack(sendobj)
            return self._trade([(packed, dest) for dest in self.outedges])
        finally:
            self.watch.now = None

    def neighbor_alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """See mpi4py."""
        self.begin("neighbor_alltoall")
        try:
            dests = self.outedges
            packed = [pack(item) for item in items_of(sendobj, len(dests))]
            return self._trade(list(zip(packed, dests, strict=True)))
        finally:
            self.watch.now = None

    def _trade(self, parcels: list[tuple[Packed, int]]) -> list[Any]:
        """Send these to their ranks; return the objects of those who send to us."""
        sources = self.inedges
        slots = _slots(self, len(sources))
        heads = [bytearray(HEAD) for _ in sources]
        rests: list[Any] = [b""] * len(sources)
        requests: list[MPI.Request] = []
        try:
            requests += (self.hidden.Irecv(heads[slot], sources[slot], _TAG) for slot in slots)
            requests += (self.hidden.Isend(head, dest, _TAG) for (head, _), dest in parcels)
            self.watch.wait_all(self, requests)
            requests += (self.hidden.Isend(rest, dest, _TAG) for (_, rest), dest in parcels if rest)
            for slot in slots:
                size, _ = head_form.unpack(heads[slot])
                if size > ROOM:
                    rests[slot] = MPI.buffer.allocate(size)
                    requests.append(self.hidden.Irecv(rests[slot], sources[slot], _TAG))
            self.watch.wait_all(self, requests)
        except BaseException:  # what others sent and we do not take must not meet the next operation
            self.watch.leave_behind(self, requests)
            raise
        rows = [head_form.unpack(head) for head in heads]
        # Nothing comes from beyond the edge of a grid.
        return [unpack(data, rest) if size else None for (size, data), rest in zip(rows, rests, strict=True)]


def _slots(comm: Base, count: int) -> Sequence[int]:
    """Return in which order the objects of one and the same source come, by the slots they are for.

    On a grid that closes after one or two ranks, a rank is the same one's neighbour in both directions, and
    what it sends down one dimension comes from up that dimension (MPI 4.1, section 8.6).
    """
    return [slot ^ 1 for slot in range(count)] if isinstance(comm, MPI.Cartcomm) else range(count)


def _is_swapped(comm: Base) -> bool:
    """Say whether the MPI library's non-blocking forms confuse the two directions of :func:`_slots`.

    Open MPI's do (5.0.11), and its blocking ones do not.
    """
    if not _OPEN_MPI or not isinstance(comm, MPI.Cartcomm):
        return False
    return any(period and size <= 2 for size, period in zip(comm.dims, comm.periods, strict=True))


def _waiting(name: str, post: Callable[..., Any]) -> Callable[..., Any]:
    plain = getattr(_T, name)

    @functools.wraps(plain)
    def collective(self: Base, sendbuf: Any, recvbuf: Any) -> None:
        if "alltoall" in name and _is_swapped(self):
            self.begin(name)
            try:
                plain(self, sendbuf, recvbuf)  # to be right is more than to be left
            finally:
                self.watch.now = None
        else:
            self.collective(name, None, post, self, sendbuf, recvbuf)

    return collective


for _name in _ARRAYS:
    _post = getattr(_T, f"Ineighbor_{_name}")
    setattr(Neighbours, f"Neighbor_{_name}", _waiting(f"Neighbor_{_name}", _post))
    setattr(Neighbours, f"Ineighbor_{_name}", posting(_post, collective=True))
    _init = getattr(_T, f"Neighbor_{_name}_init")
    setattr(Neighbours, f"Neighbor_{_name}_init", posting(_init, collective=True))
