"""The communicators that users get: mpi4py's, with blocking operations that can be left."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from mpi4py import MPI

from hpcremote.engine.comm.collectives import Collectives
from hpcremote.engine.comm.derive import Derive, plain
from hpcremote.engine.comm.neighbours import Neighbours
from hpcremote.engine.comm.objects import Objects
from hpcremote.engine.comm.points import Points
from hpcremote.engine.comm.posts import Posts
from hpcremote.engine.comm.watch import Watch

if TYPE_CHECKING:
    from typing_extensions import Self


class Comm(Points, Collectives, Objects, Posts, Derive):
    """An ``MPI.Intracomm`` in whose blocking operations no rank is lost."""

    def __new__(cls, comm: MPI.Comm | None = None) -> Self:
        """Make one; ``type(comm)(comm)`` is *comm*, as there must be no second one that nobody renews."""
        return comm if isinstance(comm, cls) else MPI.Intracomm.__new__(cls, comm)

    def Abort(self, errorcode: int = 0) -> NoReturn:  # noqa: N802 - mpi4py's name
        """See mpi4py; it is said before, since all ranks end by it, others perhaps before this one."""
        self.watch.abort(errorcode)
        super().Abort(errorcode)

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.label == "COMM_WORLD":
            return (comm_world, ())
        return super().__reduce__()


class Cart(Neighbours, Comm, MPI.Cartcomm):
    """An ``MPI.Cartcomm``."""

    def Sub(self, remain_dims: Any) -> Any:  # noqa: N802 - mpi4py's name
        """See mpi4py."""
        return self._derive("Sub", lambda: self._plain().Sub(remain_dims))


class Graph(Neighbours, Comm, MPI.Graphcomm):
    """An ``MPI.Graphcomm``."""


class Distgraph(Neighbours, Comm, MPI.Distgraphcomm):
    """An ``MPI.Distgraphcomm``."""


def dress(made: MPI.Intracomm, watch: Watch, hidden: MPI.Intracomm, label: str) -> Comm:
    """Return *made* as one of ours."""
    kinds: list[tuple[type[MPI.Intracomm], type[Comm]]] = [
        (MPI.Cartcomm, Cart),
        (MPI.Graphcomm, Graph),
        (MPI.Distgraphcomm, Distgraph),
    ]
    made = plain(made)
    kind = next((ours for theirs, ours in kinds if isinstance(made, theirs)), Comm)
    comm = kind(made)
    comm.set_up(watch, hidden, label)
    return comm


def comm_world() -> MPI.Intracomm:
    """Return MPI.COMM_WORLD as it is bound here (for unpickling)."""
    return MPI.COMM_WORLD
