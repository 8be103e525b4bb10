"""Making communicators out of the internal one, also where a rank has died (ULFM)."""

from __future__ import annotations

from time import monotonic, sleep

from mpi4py import MPI

from hpcremote.engine.comm.agree import NOBODY
from hpcremote.engine.comm.watch import NAP
from hpcremote.errors import HPCRemoteError

SOME_LEFT = (
    "a rank of this MPI job has died, and the MPI library makes no new communicator over some of the others "
    "any more: make the call on all that are left, or restart the set"
)
#: How long the rank that decides may take to see a death that another one has seen, in seconds.
ALSO = 3.0
#: What is said before a communicator is made: no room; a rank has died; and: make it of all that are left.
FULL, LOST, SHRINK = 1, 2, 3


class Maker:
    """Makes plain communicators. All ranks concerned call the same at the same time, and have agreed to.

    Args:
        internal: a duplicate of COMM_WORLD that nobody else uses.

    Attributes:
        everyone: its ranks.
    """

    def __init__(self, internal: MPI.Intracomm) -> None:
        self._internal = internal
        self.everyone = tuple(range(internal.Get_size()))

    def bare(self, ranks: tuple[int, ...] | None) -> MPI.Intracomm:
        """Make one over *ranks* (None: everybody), in that order."""
        if ranks is None or ranks == self.everyone:
            return self._internal.Dup()
        everybody = self._internal.Get_group()
        group = everybody.Incl(ranks)
        try:
            return self._internal.Create_group(group)
        except MPI.Exception as error:
            if not _tells_of_death(error):
                raise
            raise HPCRemoteError(SOME_LEFT) from None
        finally:
            group.Free()
            everybody.Free()

    def of_survivors(self, ranks: tuple[int, ...]) -> MPI.Intracomm:
        """Make one of what is left when a rank has died: these *ranks*, in that order."""
        left = self._internal.Shrink()
        try:
            return MPI.Intracomm(left.Split(0, ranks.index(self._internal.Get_rank())))
        finally:
            left.Free()

    def dead(self) -> set[int]:
        """Return the ranks that MPI knows to have died while others live on (ULFM)."""
        if MPI.ERR_PROC_FAILED == MPI.ERR_UNKNOWN:  # this library knows of no such thing
            return set()
        try:
            dead = self._internal.Get_failed()
        except (MPI.Exception, NotImplementedError):
            return set()
        everybody = self._internal.Get_group()
        try:
            return {*MPI.Group.Translate_ranks(dead, list(range(dead.Get_size())), everybody)}
        finally:
            dead.Free()
            everybody.Free()

    def judge(self, ranks: tuple[int, ...], said: int) -> int:
        """Decide for all *ranks* what the words mean: each for itself might not know of the same deaths."""
        if said != LOST:
            return said
        deadline = monotonic() + ALSO
        while not (dead := self.dead()) and monotonic() < deadline:
            self._internal.Iprobe(tag=NOBODY)  # MPI looks around
            sleep(NAP)
        return SHRINK if dead and {*ranks} == {*self.everyone} - dead else LOST


def warm(made: MPI.Intracomm) -> MPI.Intracomm:
    """Return a plain communicator in which nothing has to be made any more."""
    made.allreduce(0)  # mpi4py makes a hidden duplicate at the first one, holding the GIL
    return made


def _tells_of_death(error: MPI.Exception) -> bool:
    """Say whether *error* is that a rank has died; some MPI libraries have no name for that."""
    return MPI.ERR_PROC_FAILED != MPI.ERR_UNKNOWN and error.Get_error_class() == MPI.ERR_PROC_FAILED
