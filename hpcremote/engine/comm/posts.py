"""Non-blocking operations: mpi4py's, with requests that can be waited for as blocking operations are.

Also those that never wait (probes that look once, buffered sends), and some that are mpi4py's own. All are
counted as communication, and wait at the gate: what was sent by a call that failed must not meet a later one.
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
_PERSISTENT = ["Send_init", "Ssend_init", "Rsend_init", "Bsend_init", "Recv_init", "Psend_init", "Precv_init"]
_COLLECTIVES = [
    *("Barrier", "Bcast", "Gather", "Gatherv", "Scatter", "Scatterv", "Allgather", "Allgatherv"),
    *("Alltoall", "Alltoallv", "Alltoallw", "Reduce", "Allreduce", "Reduce_scatter_block", "Reduce_scatter"),
    *("Scan", "Exscan"),
]
_NEVER_WAIT = ["Iprobe", "iprobe", "Improbe", "improbe", "Bsend", "bsend"]
#: Waiting in these cannot be left.
_PLAIN = ["Create_intercomm", "Spawn", "Spawn_multiple", "Accept", "Connect"]
ANY_SOURCE, ANY_TAG = MPI.ANY_SOURCE, MPI.ANY_TAG


class Posts(Base):
    """``Isend``, ``Irecv``, ``Ibcast``, ..., ``Iprobe``, ...; the arguments are mpi4py's."""


def _send(name: str) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def post(self: Posts, buf: Any, dest: int, tag: int = 0) -> Any:
        self.note(name, dest)
        made = Pending(plain(self, buf, dest, tag))
        made.comm, made.hidden, made.receives = self, self.hidden, False
        return made

    return post


def _receive(name: str) -> Callable[..., Any]:
    plain = getattr(MPI.Intracomm, name)

    @functools.wraps(plain)
    def post(self: Posts, buf: Any = None, source: int = ANY_SOURCE, tag: int = ANY_TAG) -> Any:
        self.note(name, source)
        made = Pending(plain(self, buf, source, tag))
        made.comm, made.hidden, made.receives = self, self.hidden, True
        return made

    return post


def posting(plain: Callable[..., Any], *, collective: bool = False) -> Callable[..., Any]:
    """Return *plain*, which makes a request, as one that makes one of ours."""
    name = plain.__name__

    @functools.wraps(plain)
    def post(self: Base, *args: Any, **kwargs: Any) -> Any:
        if collective:
            self.begin(name)
            self.watch.now = None
        else:
            self.note(name, -1)
        return own(plain(self, *args, **kwargs), self, receives=name == "Recv_init")

    return post


def noted(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return *plain* as it is, but counted and behind the gate."""
    name = plain.__name__

    @functools.wraps(plain)
    def do(self: Base, *args: Any, **kwargs: Any) -> Any:
        self.note(name, -1)
        return plain(self, *args, **kwargs)

    return do


for _name in _SENDS:
    setattr(Posts, _name, _send(_name))
for _name in _RECEIVES:
    setattr(Posts, _name, _receive(_name))
for _name in _OTHERS + _PERSISTENT:
    setattr(Posts, _name, posting(getattr(MPI.Intracomm, _name)))
for _name in [*(f"I{name.lower()}" for name in _COLLECTIVES), *(f"{name}_init" for name in _COLLECTIVES)]:
    setattr(Posts, _name, posting(getattr(MPI.Intracomm, _name), collective=True))
for _name in _NEVER_WAIT + _PLAIN:
    setattr(Posts, _name, noted(getattr(MPI.Intracomm, _name)))
