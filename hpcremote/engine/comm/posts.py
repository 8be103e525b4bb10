"""Non-blocking operations: mpi4py's, with requests that can be waited for as blocking operations are.

They are counted as communication, and wait at the gate, like all others: what was sent by a call that failed
must not meet a later one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.base import Base
from hpcremote.engine.comm.requests import own

_SENDS = [
    *("Isend", "Issend", "Irsend", "Ibsend", "isend", "issend", "ibsend", "Isendrecv", "Isendrecv_replace"),
    *("Send_init", "Ssend_init", "Rsend_init", "Bsend_init"),
]
_RECEIVES = ["Irecv", "irecv", "Recv_init"]
_COLLECTIVES = [
    *("Barrier", "Bcast", "Gather", "Gatherv", "Scatter", "Scatterv", "Allgather", "Allgatherv"),
    *("Alltoall", "Alltoallv", "Alltoallw", "Reduce", "Allreduce", "Reduce_scatter_block", "Reduce_scatter"),
    *("Scan", "Exscan"),
]
_LOOKS = ["Iprobe", "iprobe", "Improbe", "improbe"]


class Posts(Base):
    """``Isend``, ``Irecv``, ``Ibcast``, ..., and probes that do not wait; the arguments are mpi4py's."""


def _post(name: str, *, receives: bool = False, collective: bool = False) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def post(self: Posts, *args: Any, **kwargs: Any) -> Any:
        if collective:
            self._begin(name)
        else:
            self._point(name, -1)
        self.watch.now = None
        return own(plain(self, *args, **kwargs), self, receives=receives)

    return post


def _look(name: str) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def look(self: Posts, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, *args, **kwargs)
        return found if found else self.look(name) or found

    return look


for _name in _SENDS:
    setattr(Posts, _name, _post(_name))
for _name in _RECEIVES:
    setattr(Posts, _name, _post(_name, receives=True))
for _name in _COLLECTIVES:
    setattr(Posts, f"I{_name.lower()}", _post(f"I{_name.lower()}", collective=True))
for _name in _LOOKS:
    setattr(Posts, _name, _look(_name))
