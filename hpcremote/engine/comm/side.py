"""The MPI side of an engine: what the controller says about calls, turned into what a :class:`World` does.

::

    I/O thread    release, settled, renew, wake ──┐ notes, and rings
                                                  ▼
    main thread   begin ... operations ... end    the gate: before an operation, or in the middle of one

The *gate* is where the main thread waits before it communicates, if a call failed here and it is not known
yet what became of it elsewhere; and where it makes communicators anew: by itself if there are spares, else
together with its peers. That is also done in the middle of an operation: the peers that have to take part may
be the very ones that it waits for. What had been sent by the old communicators in the running call is lost
then, so the call is released, unless it had not used them. Calls that are older than the one that failed go
on with the old ones.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence

from hpcremote.engine.comm.world import World
from hpcremote.errors import HPCRemoteError
from hpcremote.wire.messages import Renew, Stock
from hpcremote.wire.notes import Note, dump


class Side:
    """Implements :class:`hpcremote.engine.communication.Communication`.

    Args:
        world: the communicators.
        rank: our rank in COMM_WORLD.
        size: how many ranks there are.

    Attributes:
        renewed: see there.
        aborting: likewise.
    """

    def __init__(self, world: World, rank: int, size: int) -> None:
        self.renewed: Callable[[int, str], None] = lambda seq, problem: None
        self.aborting: Callable[[int], None] = lambda code: None
        self._world = world
        world.on_gate(self._pass)
        world.on_abort(self._abort)
        self._rank = rank
        self._size = size
        self._base = 0
        self._lock = threading.Lock()
        self._seq = 0
        self._together = False  # whether the running call is on several engines
        self._held: set[int] = set()  # numbers of calls that failed here and may not be over elsewhere
        self._renewals: deque[Renew | Stock] = deque()
        self._renewing = False
        self._signalled = False

    def place(self, engine: int) -> None:
        """We are engine number *engine*."""
        self._base = engine - self._rank

    # ------------------------------------------------------------ the main thread

    def begin(self, seq: int, targets: Sequence[int]) -> None:
        """A run begins."""
        ranks = tuple([target - self._base for target in targets])
        if min(ranks) < 0 or max(ranks) >= self._size:
            ranks = ()
        self._together = self._size > 1 and len(targets) > 1
        with self._lock:
            self._seq = seq
            self._world.begin(seq, ranks, gate=self._is_shut())

    def end(self, *, failed: bool) -> int:
        """The run has ended; return by what it communicated."""
        used = self._world.end(failed=failed)
        if failed and self._together:
            with self._lock:
                self._held.add(self._seq)
        return used

    def renewal_due(self, upcoming: Callable[[], int]) -> bool:
        """Say whether communicators have to be made anew before the run *upcoming*."""
        renewals = tuple(self._renewals)  # first: what had come before them is in the queue by now
        return bool(renewals) and min(one.after for one in renewals) < upcoming()

    def renew_now(self, upcoming: Callable[[], int]) -> None:
        """Make them anew."""
        while self.renewal_due(upcoming):
            self._renew(self._renewals[0])

    def signalled(self) -> bool:
        """A signal has come to interrupt the user's code; say whether it has to come again later."""
        self._signalled = self._renewing
        return self._renewing

    # ------------------------------------------------------------ any thread

    def release(self, seq: int, why: str) -> None:
        """End the waiting of run *seq*."""
        self._world.release(seq, why)

    def settled(self, seq: int) -> None:
        """Run *seq*, which failed here, has ended everywhere."""
        with self._lock:
            self._held.discard(seq)
            self._world.set_gate(self._is_shut())

    def renew(self, renewal: Renew | Stock) -> None:
        """Communicators have to be made anew, or spares to be made, as soon as possible."""
        with self._lock:
            self._renewals.append(renewal)
            self._world.set_gate(self._is_shut())

    def wake(self) -> None:
        """A signal has come: look."""
        self._world.ring()

    def note(self) -> str:
        """Say in which operation the main thread is, and which collectives it was in."""
        waiting = self._world.where()
        steps = self._world.steps()
        if waiting is None:
            return dump(Note(steps=steps))
        return dump(Note(waiting.operation, waiting.filename, waiting.lineno, steps, waiting.comm))

    def _abort(self, code: int) -> None:
        self.aborting(code)

    # ------------------------------------------------------------ the gate

    def _is_shut(self) -> bool:
        return bool(self._held) or self.renewal_due(lambda: self._seq)

    def _pass(self, inside: bool) -> bool:
        """Do what has to be done before the running call communicates (or, *inside*, communicates on).

        Returns:
            Whether communicators that the call had used were made anew.
        """
        lost = False
        while True:
            while self.renewal_due(lambda: self._seq):  # in their order, which is the same everywhere
                lost |= self._renew(self._renewals[0])
            if inside or not self._held:
                with self._lock:
                    self._world.set_gate(self._is_shut())
                return lost
            self._world.pause(lambda: not self._is_shut() or self.renewal_due(lambda: self._seq))

    def _renew(self, renewal: Renew | Stock) -> bool:
        problem = ""
        lost = False
        self._renewing = True
        try:
            ranks = tuple(renewal.ranks)
            if isinstance(renewal, Stock):
                self._world.stock(renewal.seq, ranks, world=renewal.world)
            else:
                lost = self._world.renew(renewal.seq, ranks, world=renewal.world, others=renewal.others)
        except HPCRemoteError as error:
            problem = str(error)
        finally:
            self._renewing = False
            with self._lock:
                self._renewals.popleft()
                self._held.discard(renewal.after)
        self.renewed(renewal.seq, problem)
        if self._signalled:
            self._signalled = False
            signal.raise_signal(signal.SIGINT)
        return lost
