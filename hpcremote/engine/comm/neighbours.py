"""Neighbourhood collectives of communicators that have a topology; the arguments are mpi4py's."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.base import Base
from hpcremote.engine.comm.posts import noted, posting

_T = MPI.Topocomm
_ARRAYS = ["allgather", "allgatherv", "alltoall", "alltoallv", "alltoallw"]


class Neighbours(Base):
    """``Neighbor_allgather`` and its like; those on objects are mpi4py's own, and cannot be left."""


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
for _name in ["neighbor_allgather", "neighbor_alltoall"]:
    setattr(Neighbours, _name, noted(getattr(_T, _name)))
