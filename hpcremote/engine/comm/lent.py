"""The communicators of calls on a program that lends its ranks (``hpcremote.embed()``).

They differ from an engine's in when they are made anew after a failure. Between calls the ranks of a program
are not waiting for work: they are in the program, perhaps in a collective of its own, and cannot come
together. So what a failed call used is put aside by each rank for itself, and made anew by the next call that
asks for it. The controller's ``Renew`` says when: it has a number in the one order, as calls have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm import current
from hpcremote.engine.comm.communicator import Comm
from hpcremote.engine.comm.world import Key, World

_WORN = "an earlier call on these ranks failed: call hpcremote.comm() in this one"


class Lent(World):
    """Made by all ranks of the program together; ``MPI.COMM_WORLD`` stays the program's own."""

    def __init__(self, internal: MPI.Intracomm, *, crowded: bool = False) -> None:
        super().__init__(internal, replace=False, crowded=crowded)
        self._worn: dict[Key, Comm] = {}

    def begin(self, seq: int, ranks: tuple[int, ...], *, gate: bool = False) -> None:
        """A call begins: here and nowhere else there is something for ``hpcremote.comm()`` to give."""
        super().begin(seq, ranks, gate=gate)
        current.install(self)

    def end(self, *, failed: bool = False) -> int:
        """The call is over."""
        current.install(None)
        return super().end(failed=failed)

    def comm(self, interruptible: bool = True) -> Any:
        """Return the communicator over the ranks of the running call, as an engine does."""
        # Which is where a rank waits that does not know what became of a call.
        self._agreement.enter("comm()")
        self._watch.now = None
        made = super().comm(interruptible)
        if isinstance(made, Comm) and made.family is not self._watch.family:
            self._watch.turn_to(made.family)
        return made

    def _make(self, key: Key) -> Any:
        made = super()._make(key)
        if (worn := self._worn.pop(key, None)) is None:
            return made
        worn.mend(made, made.hidden, "after a failure")  # whoever kept a reference goes on with it
        self._kept[key] = worn
        self._list()
        return worn

    def renew(self, seq: int, ranks: tuple[int, ...], *, world: bool = True, others: bool = False) -> bool:
        """Put aside what a failed call used, that is what comm() returned on *ranks*, or with *world* at all.

        Nobody waits for anybody here; ranks and numbers are as for :meth:`World.renew`.

        Returns:
            Whether the running call had used one of them.
        """
        aside = [key for key in self._kept if world or key[0] == ranks]
        used = False
        for key in aside:
            comm = self._kept.pop(key)
            if isinstance(comm, Comm):
                used |= any(comm.family is family for family in self._watch.families)
                comm.outdate(_WORN)
                self._worn[key] = comm
        self._list()
        return used

    def stock(self, seq: int, ranks: tuple[int, ...], *, world: bool) -> None:
        """Make no spares, for the same reason."""

    def _lay_in(self, key: Key | None, make: Callable[[Key | None], MPI.Intracomm]) -> None:
        """Likewise."""

    def close(self) -> None:
        """Free what calls were given; all ranks call this, and no call comes any more."""
        broken = {key for key, comm in self._kept.items() if getattr(comm, "trouble", "")}
        broken = broken.union(*self._internal.allgather(broken))
        for key in sorted(self._kept.keys() - broken):
            comm = self._kept[key]
            if comm == MPI.COMM_NULL:  # the user has freed it
                continue
            if isinstance(comm, Comm):
                comm.hidden.Free()
                comm.outdate("its program has left the cluster")
            MPI.Intracomm.Free(comm)
        self._watch.close()
        self._internal.Free()
