"""Neighbourhood collectives of communicators that have a topology; the arguments are mpi4py's.

Those on objects send the heads of :mod:`hpcremote.engine.comm.objects` by an operation of MPI's, and what
does not fit in them from rank to rank. A rank may be the same one's neighbour more than once, and MPI decides
which of its objects comes where: so the head says by which tag the rest of its object comes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from struct import Struct
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.base import Base
from hpcremote.engine.comm.objects import HEAD, ROOM, Objects, head_form, items_of, pack, unpack
from hpcremote.engine.comm.posts import posting

_T = MPI.Topocomm
_ARRAYS = ["allgather", "allgatherv", "alltoall", "alltoallv", "alltoallw"]
#: Tag of the rest of a rank's first object; lower ones are the other collectives'.
_TAG = 2
_tag = Struct("<q")

Parcel = tuple[bytes, int, int]


class Neighbours(Objects):
    """``Neighbor_allgather``, ``neighbor_allgather`` and their like."""

    inedges: list[int]
    outedges: list[int]

    def neighbor_allgather(self, sendobj: Any) -> list[Any]:
        """See mpi4py."""
        self.begin("neighbor_allgather")
        try:
            head, rest = pack(sendobj, _tag.pack(_TAG))
            parcels = [(rest, dest, _TAG) for dest in self.outedges]
            return self._trade(_T.Ineighbor_allgather, head, parcels)
        finally:
            self.watch.now = None

    def neighbor_alltoall(self, sendobj: Sequence[Any]) -> list[Any]:
        """See mpi4py."""
        self.begin("neighbor_alltoall")
        try:
            heads, parcels, dests = [], list[Parcel](), self.outedges
            for tag, (item, dest) in enumerate(zip(items_of(sendobj, len(dests)), dests, strict=True), _TAG):
                head, rest = pack(item, _tag.pack(tag))
                heads.append(head)
                parcels.append((rest, dest, tag))
            return self._trade(_T.Ineighbor_alltoall, b"".join(heads), parcels)
        finally:
            self.watch.now = None

    def _trade(self, post: Callable[..., Any], mine: bytes, parcels: list[Parcel]) -> list[Any]:
        """Send our heads, and the rests that there are; return the objects of those who send to us."""
        sources = self.inedges
        heads = bytearray(HEAD * len(sources))
        self.watch.wait(self, post(self, mine, heads))
        sends = self._send_all([one for one in parcels if one[0] and one[1] != MPI.PROC_NULL])
        rows = list(head_form.iter_unpack(heads))
        rests: list[Any] = [None] * len(rows)
        requests = list(sends)
        try:
            for slot, (size, word) in enumerate(rows):
                if size > ROOM:
                    rests[slot] = MPI.buffer.allocate(size)
                    (tag,) = _tag.unpack_from(word)
                    requests.append(self.hidden.Irecv(rests[slot], sources[slot], tag))
        except BaseException:  # no memory, or a signal's
            self.watch.drop(self, requests)
            raise
        self.watch.wait_all(self, requests)
        # Nothing comes from beyond the edge of a grid.
        return [unpack(data, rest) if size else None for (size, data), rest in zip(rows, rests, strict=True)]


def _waiting(name: str, post: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(getattr(_T, name))
    def collective(self: Base, sendbuf: Any, recvbuf: Any) -> None:
        self.collective(name, None, post, self, sendbuf, recvbuf)

    return collective


for _name in _ARRAYS:
    _post = getattr(_T, f"Ineighbor_{_name}")
    setattr(Neighbours, f"Neighbor_{_name}", _waiting(f"Neighbor_{_name}", _post))
    setattr(Neighbours, f"Ineighbor_{_name}", posting(_post, collective=True))
    _init = getattr(_T, f"Neighbor_{_name}_init")
    setattr(Neighbours, f"Neighbor_{_name}_init", posting(_init, collective=True))
