"""Communicators made from communicators are interruptible too, and know what they were made from.

Making one blocks inside MPI without a way out, so the members first agree that all have come.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mpi4py import MPI

from hpcremote.engine.comm.agree import agree
from hpcremote.engine.comm.base import Base

if TYPE_CHECKING:
    from typing_extensions import Self

#: Agreements of Create_group are numbered from here; the others have their index on the communicator.
_GROUPS = 1 << 40


class Derive(Base):
    """Dup, Split, Create and their like; arguments are mpi4py's, results interruptible."""

    def _plain(self) -> Any:
        """Return this communicator as mpi4py alone would have it."""
        return plain(MPI.Intracomm(self))

    def _derive(self, operation: str, make: Callable[[], MPI.Comm]) -> Any:
        self.begin(operation)
        try:
            agree(self.watch, self, self.hidden, range(self.my_size), self.number)
            return self._wrap(make(), f"{self.label}.{operation}#{self.number}")
        finally:
            self.watch.now = None

    def _wrap(self, made: MPI.Comm, label: str) -> Any:
        """Return *made* as one of ours; only intracommunicators can be."""
        if made == MPI.COMM_NULL or not isinstance(made, MPI.Intracomm):
            return made
        from hpcremote.engine.comm.communicator import dress  # knows all kinds, this one among them

        child = dress(made, self.watch, MPI.Intracomm(made).Dup(), label)
        self.adopt(child)
        return child

    def Dup(self, info: MPI.Info | None = None) -> Self:  # noqa: N802 - mpi4py's names, here and below
        """See mpi4py."""
        return self._derive("Dup", lambda: self._plain().Dup(info))  # type: ignore[no-any-return]

    def Dup_with_info(self, info: MPI.Info) -> Self:  # noqa: N802
        """See mpi4py."""
        return self._derive("Dup_with_info", lambda: self._plain().Dup_with_info(info))  # type: ignore[no-any-return]

    def Clone(self) -> Self:  # noqa: N802
        """See mpi4py."""
        return self._derive("Clone", lambda: self._plain().Clone())  # type: ignore[no-any-return]

    def Split(self, color: int = 0, key: int = 0) -> Any:  # noqa: N802
        """See mpi4py."""
        return self._derive("Split", lambda: self._plain().Split(color, key))

    def Split_type(self, split_type: int, key: int = 0, info: MPI.Info = MPI.INFO_NULL) -> Any:  # noqa: N802
        """See mpi4py."""
        return self._derive("Split_type", lambda: self._plain().Split_type(split_type, key, info))

    def Create(self, group: MPI.Group) -> Any:  # noqa: N802
        """See mpi4py."""
        return self._derive("Create", lambda: self._plain().Create(group))

    def Create_group(self, group: MPI.Group, tag: int = 0) -> Any:  # noqa: N802
        """See mpi4py."""
        self.enter("Create_group", tag)
        try:
            mine = self.Get_group()
            members = MPI.Group.Translate_ranks(group, list(range(group.Get_size())), mine)
            mine.Free()
            if self.my_rank not in members:
                return MPI.Intracomm()
            agree(self.watch, self, self.hidden, members, _GROUPS + tag)
            label = f"{self.label}.Create_group({','.join(map(str, members))})"
            return self._wrap(self._plain().Create_group(group, tag), label)
        finally:
            self.watch.now = None

    def Create_cart(  # noqa: N802
        self, dims: Sequence[int], periods: Sequence[bool] | None = None, reorder: bool = False
    ) -> Any:
        """See mpi4py."""
        return self._derive("Create_cart", lambda: self._plain().Create_cart(dims, periods, reorder))

    def Create_graph(  # noqa: N802
        self, index: Sequence[int], edges: Sequence[int], reorder: bool = False
    ) -> Any:
        """See mpi4py."""
        return self._derive("Create_graph", lambda: self._plain().Create_graph(index, edges, reorder))

    def Create_dist_graph(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        """See mpi4py."""
        return self._derive("Create_dist_graph", lambda: self._plain().Create_dist_graph(*args, **kwargs))

    def Create_dist_graph_adjacent(self, *args: Any, **kwargs: Any) -> Any:  # noqa: N802
        """See mpi4py."""
        make = lambda: self._plain().Create_dist_graph_adjacent(*args, **kwargs)  # noqa: E731
        return self._derive("Create_dist_graph_adjacent", make)

    def Free(self) -> None:  # noqa: N802
        """See mpi4py; one that cannot be used any more is left alone."""
        self._end("Free", super().Free)

    def free(self) -> None:
        """See mpi4py; likewise."""
        if self:
            self.Free()

    def Disconnect(self) -> None:  # noqa: N802
        """See mpi4py; likewise."""
        self._end("Disconnect", super().Disconnect)

    def _end(self, operation: str, end: Callable[[], None]) -> None:
        def free() -> MPI.Comm:
            self.hidden.Free()
            end()
            return MPI.COMM_NULL

        if not self.trouble:
            self._derive(operation, free)
        self.trouble = self.trouble or "it was freed"  # what was made from it lives on


def _unattended(name: str) -> Callable[..., Any]:
    """Return what makes one of mpi4py's own: nobody is there when it is made, or ranks have died."""

    @functools.wraps(getattr(MPI.Intracomm, name))
    def make(self: Derive, *args: Any) -> Any:
        self.begin(name)
        self.watch.now = None
        return getattr(self._plain(), name)(*args)

    return make


for _name in ["Idup", "Idup_with_info", "Shrink", "Ishrink"]:
    setattr(Derive, _name, _unattended(_name))


def plain(comm: MPI.Intracomm) -> MPI.Intracomm:
    """Return *comm* as mpi4py's class for its topology."""
    kinds = {MPI.CART: MPI.Cartcomm, MPI.GRAPH: MPI.Graphcomm, MPI.DIST_GRAPH: MPI.Distgraphcomm}
    kind = kinds.get(comm.Get_topology())
    return comm if kind is None else kind(comm)
