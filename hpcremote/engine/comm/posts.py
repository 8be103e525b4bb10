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
from hpcremote.engine.comm.requests import Pending, own

_SENDS = ["Isend", "Issend", "Irsend", "Ibsend", "isend", "issend", "ibsend"]
_RECEIVES = ["Irecv", "irecv"]
_OTHERS = ["Isendrecv", "Isendrecv_replace"]
_PERSISTENT = ["Send_init", "Ssend_init", "Rsend_init", "Bsend_init", "Recv_init"]
_COLLECTIVES = [
    *("Barrier", "Bcast", "Gather", "Gatherv", "Scatter", "Scatterv", "Allgather", "Allgatherv"),
    *("Alltoall", "Alltoallv", "Alltoallw", "Reduce", "Allreduce", "Reduce_scatter_block", "Reduce_scatter"),
    *("Scan", "Exscan"),
]
_LOOKS = ["Iprobe", "iprobe", "Improbe", "improbe"]
ANY_SOURCE, ANY_TAG = MPI.ANY_SOURCE, MPI.ANY_TAG


class Posts(Base):
    """``Isend``, ``Irecv``, ``Ibcast``, ..., and probes that do not wait; the arguments are mpi4py's."""


def _send(name: str) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def post(self: Posts, buf: Any, dest: int, tag: int = 0) -> Any:
        self._note(name, dest)
        made = Pending(plain(self, buf, dest, tag))
        made.comm, made.receives = self, False
        return made

    return post


def _receive(name: str) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def post(self: Posts, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        self._note(name, source)
        made = Pending(plain(self, buf, source, tag))
        made.comm, made.receives = self, True
        return made

    return post


def _post(name: str, *, collective: bool = False) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def post(self: Posts, *args: Any, **kwargs: Any) -> Any:
        if collective:
            self._begin(name)
        else:
            self._note(name, -1)
        self.watch.now = None
        return own(plain(self, *args, **kwargs), self, receives=name == "Recv_init")

    return post


def _look(name: str) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def look(self: Posts, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, *args, **kwargs)
        return found if found else self.look(name) or found

    return look


for _name in _SENDS:
    setattr(Posts, _name, _send(_name))
for _name in _RECEIVES:
    setattr(Posts, _name, _receive(_name))
for _name in _OTHERS + _PERSISTENT:
    setattr(Posts, _name, _post(_name))
for _name in _COLLECTIVES:
    setattr(Posts, f"I{_name.lower()}", _post(f"I{_name.lower()}", collective=True))
for _name in _LOOKS:
    setattr(Posts, _name, _look(_name))
