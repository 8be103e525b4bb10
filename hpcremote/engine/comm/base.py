"""What every interruptible communicator has: its family, its names, its broken and mended states."""

from __future__ import annotations

import weakref
from collections import deque
from typing import Any, Literal

from mpi4py import MPI

from hpcremote.engine.comm.watch import Entered, Watch

#: So many of a communicator's last collectives are remembered.
REMEMBERED = 32

_test = MPI.Request.Test


class Base(MPI.Intracomm):
    """A communicator, a hidden duplicate of it for our own messages, and the watch on the main thread.

    Attributes:
        label: its name, the same on all its ranks.
        trouble: why it cannot be used, or "".
        torn: whether that is because an operation on it was left, so that making it anew helps.
        steps: its last collectives.
        number: how many collectives were begun on it.
        family: the same object for a communicator and all that were made from it.
        parent: what it was made from, kept so that it hears when that is torn or made anew.
    """

    watch: Watch
    hidden: MPI.Intracomm
    label: str
    trouble: str
    torn: bool
    parent: Base | None
    steps: deque[Entered]
    family: object
    number: int
    _children: list[weakref.ref[Base]]

    def set_up(self, watch: Watch, hidden: MPI.Intracomm, label: str) -> None:
        """Complete what mpi4py made."""
        self.watch, self.hidden, self.label = watch, hidden, label
        self.trouble, self.torn, self.parent = "", False, None
        self.steps = deque(maxlen=REMEMBERED)
        self.family = object()
        self.number = 0
        self._children = []
        self.my_rank, self.my_size = self.Get_rank(), self.Get_size()

    def adopt(self, child: Base) -> None:
        """Remember that *child* was made from this one."""
        child.family, child.parent = self.family, self
        self._children = [one for one in self._children if one() is not None]
        self._children.append(weakref.ref(child))

    def tear(self, why: str) -> None:
        """It cannot be used any more, and neither can what was made from it."""
        self.trouble, self.torn = self.trouble or why, True
        for reference in self._children:
            if (child := reference()) is not None:
                child.tear(f"it was made from {self.label}, which is broken: {why}")

    def mend(self, fresh: MPI.Intracomm, hidden: MPI.Intracomm, why: str) -> None:
        """Point this very object at a fresh communicator; what was made from the old one has had its time."""
        repoint(self, fresh)
        self.hidden, self.trouble, self.torn, self.number = hidden, "", False, 0
        self.steps.clear()
        children, self._children = self._children, []
        for reference in children:
            if (child := reference()) is not None:
                child.outdate(f"it was made from a communicator that was renewed {why}: make it again")

    def outdate(self, why: str) -> None:
        """It was made from one that is not any more."""
        self.trouble, self.torn = why, False
        for reference in self._children:
            if (child := reference()) is not None:
                child.outdate(why)

    # ------------------------------------------------------------ around every operation

    # These are short of calls on purpose: for a tiny message half of the time is spent here.

    def begin(self, operation: str, root: int | None = None) -> None:
        """Enter a collective."""
        watch = self.watch
        if watch.alarm is not None or self.trouble:
            watch.refuse(self, operation, self.number + 1, root)
        self.number = number = self.number + 1
        watch.now = step = (self, operation, number, root)
        self.steps.append(step)
        if watch.family is not self.family:
            watch.turn_to(self.family)

    def note(self, operation: str, peer: int) -> None:
        """Do an operation of two ranks that does not wait."""
        watch = self.watch
        if watch.alarm is not None or self.trouble:
            watch.refuse(self, operation, self.number, peer)
        if watch.family is not self.family:
            watch.turn_to(self.family)

    def enter(self, operation: str, peer: int = -1) -> None:
        """Enter what is no collective: an operation of two ranks, or none of MPI's."""
        self.note(operation, peer)
        self.watch.now = (self, operation, self.number, peer)

    def look(self, operation: str) -> Literal[False]:
        """Nothing has come yet: who asks again and again has to leave, too, where waiting would end."""
        if self.watch.alarm is not None or self.trouble:
            self.watch.refuse(self, operation, self.number, -1)
        return False

    def collective(self, operation: str, root: int | None, post: Any, *args: Any) -> None:
        """Do a collective: *post* is its non-blocking form."""
        watch = self.watch
        if watch.alarm is not None or self.trouble:  # this is begin() without the call
            watch.refuse(self, operation, self.number + 1, root)
        self.number = number = self.number + 1
        watch.now = step = (self, operation, number, root)
        self.steps.append(step)
        if watch.family is not self.family:
            watch.turn_to(self.family)
        request = None
        try:
            request = post(*args)
            if not _test(request):
                watch.block(self, request)
        except BaseException:
            if request:  # a signal came before the wait: MPI goes on with its buffers
                watch.leave_behind(self, [request])
            raise
        finally:
            watch.now = None


def repoint(comm: MPI.Intracomm, fresh: MPI.Intracomm) -> None:
    """Write the handle of *fresh* into *comm*, wherever references to it are."""
    import ctypes  # only after a failure

    size = MPI._sizeof(MPI.Comm)  # noqa: SLF001 - mpi4py's documented door to handles
    ctypes.memmove(MPI._addressof(comm), MPI._addressof(fresh), size)  # noqa: SLF001
