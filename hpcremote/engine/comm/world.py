"""The communicators of an engine, from MPI_Init to the end.

::

    internal        a duplicate of COMM_WORLD that only this package uses: agreements, making others
    COMM_WORLD      the name is bound to an interruptible duplicate (unless told not to), and with it Request
    comm()          one for each tuple of ranks that calls were made on, kept for ever

Freeing a communicator needs all of its ranks at once, so none is freed: those that broke are left behind,
and there is a limit to how many different tuples of ranks may call comm().
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.agree import NOBODY, agree
from hpcremote.engine.comm.base import repoint
from hpcremote.engine.comm.communicator import Comm, dress
from hpcremote.engine.comm.record import Waiting
from hpcremote.engine.comm.requests import Request
from hpcremote.engine.comm.watch import Watch
from hpcremote.errors import HPCRemoteError
from hpcremote.wire.messages import OWN_COMM, WORLD
from hpcremote.wire.notes import Step

_SOME_LEFT = (
    "a rank of this MPI job has died, and the MPI library makes no new communicator over some of the others "
    "any more: make the call on all that are left, or restart the set"
)
#: comm() makes at most so many communicators (MPI libraries have room for about 2,000; each of ours is two).
LIMIT = 256

#: How long the rank that decides may take to see a death that another one has seen, in seconds.
ALSO = 3.0
#: What is said before a communicator is made: no room; a rank has died; and: make it of all that are left.
_FULL, _LOST, _SHRINK = 1, 2, 3

#: (ranks, whether interruptible)
Key = tuple[tuple[int, ...], bool]


class World:
    """All of an engine's communicators. Made by all ranks together, on the main thread."""

    def __init__(self, internal: MPI.Intracomm, *, replace: bool) -> None:
        """Set up.

        Args:
            internal: a duplicate of COMM_WORLD that nobody else uses from now on.
            replace: bind the name MPI.COMM_WORLD to an interruptible duplicate.
        """
        self._internal = internal
        self._watch = Watch(internal)
        self._everyone = tuple(range(internal.Get_size()))
        self._ranks: tuple[int, ...] = ()
        self._running = False
        self._plainly = False  # the call has asked for a plain communicator, whose use nobody sees
        self._asked = 0  # how often comm() had to make one in this call
        self._lost = False  # a rank has died, all know that took part in the last renewal
        self._kept: dict[Key, Any] = {}
        self._known: tuple[Comm, ...] = ()  # for other threads
        # On whose behalf we wait in agreements. Every communicator costs memory (MPICH has room for a few,
        # then takes 2 MB more), and most sessions never ask for comm(): so there are no more than two here.
        self._agreement = dress(internal, self._watch, internal, "an agreement")
        self._stand_in = self._fresh(None, "COMM_WORLD") if replace else None
        if self._stand_in is not None:
            self._stand_in.Set_name(MPI.COMM_WORLD.Get_name())
            setattr(MPI, "COMM_WORLD", self._stand_in)  # noqa: B010 - it is Final for everybody else
            setattr(MPI, "Request", Request)  # noqa: B010 - Waitall and its like are called on the class
        self._list()

    # ------------------------------------------------------------ calls

    def begin(self, seq: int, ranks: tuple[int, ...], *, gate: bool = False) -> None:
        """A call on *ranks* (in view order) starts on the main thread.

        Args:
            seq: its number.
            ranks: () where there can be no communicator over the call's engines: they are of several sets.
            gate: the gate (see ``on_gate``) is shut.
        """
        self._ranks, self._asked, self._running, self._plainly = ranks, 0, True, False
        self._watch.begin(seq, gate=gate)

    def end(self) -> int:
        """The call is over; return by what it communicated (see ``wire.messages.Done.mpi``)."""
        self._watch.end()
        used = self._used() if self._watch.families or self._plainly else 0
        self._ranks, self._running = (), False
        return used

    def _used(self) -> int:
        own = self._kept.get((self._ranks, True))
        used = OWN_COMM if self._plainly else 0
        for family in self._watch.families:
            if own is not None and family is own.family:
                used |= OWN_COMM
            elif family is not self._agreement.family:
                used |= WORLD
        return used

    def on_gate(self, gate: Callable[[bool], bool]) -> None:
        """Have *gate* called before a call communicates while the gate is shut (see ``Watch.gate``)."""
        self._watch.gate = gate

    def set_gate(self, shut: bool) -> None:
        """Shut the gate, or open it; any thread."""
        self._watch.set_gate(shut)

    def ring(self) -> None:
        """Make the main thread look for signals, where it waits; any thread."""
        self._watch.ring()

    def pause(self, over: Callable[[], bool]) -> None:
        """Wait on the main thread until ``over()``, or until the running call is released."""
        self._watch.idle(over)

    # ------------------------------------------------------------ any thread

    def release(self, seq: int, reason: str = "") -> None:
        """Let the main thread out of blocking operations for the rest of call *seq*, begun or not."""
        self._watch.release(seq, reason)

    def interrupt(self, seq: int) -> bool:
        """Raise KeyboardInterrupt in the blocking operation of call *seq*.

        Returns:
            Whether the main thread is in one. If not, it is raised in the next one, unless
            ``interrupted()`` says that it came by a signal.
        """
        return self._watch.interrupt(seq)

    def interrupted(self) -> None:
        """A signal has raised KeyboardInterrupt: not twice."""
        self._watch.interrupted()

    def where(self) -> Waiting | None:
        """Return the blocking operation that the main thread is in."""
        return self._watch.where()

    def steps(self) -> dict[str, list[Step]]:
        """Return the last collectives of COMM_WORLD and of what comm() returned, by communicator."""
        return {
            comm.label: [Step(number, name, root) for _, name, number, root in tuple(comm.steps)]
            for comm in self._known
            if comm.steps
        }

    # ------------------------------------------------------------ comm()

    def comm(self, interruptible: bool = True) -> Any:
        """Return the communicator over the ranks of the running call, in view order.

        Raises:
            HPCRemoteError: no call runs, or there are too many communicators.
            Released: another rank of the call failed before it came here.
        """
        ranks = self._ranks
        if not ranks:
            raise HPCRemoteError(
                "hpcremote.comm() is over the engines of a call, and those of this one are of several MPI "
                "jobs: make the call on a view of one engine set (see Client.engine_sets)"
                if self._running
                else "hpcremote.comm() works inside a call: no call runs on this engine now"
            )
        found = self._kept.get((ranks, interruptible))
        if found == MPI.COMM_NULL:  # the user has freed it
            found = None
        self._plainly |= not interruptible
        return self._make((ranks, interruptible)) if found is None else found

    def _make(self, key: Key) -> Any:
        ranks, interruptible = key
        label = f"comm() of ranks {','.join(map(str, ranks))}"
        self._asked += 1
        self._agreement.enter("comm()")
        try:
            word = _LOST if self._dead() else _FULL if len(self._kept) >= LIMIT else 0
            number = self._watch.seq * 8 + self._asked % 8
            judge = lambda said: self._judge(ranks, said)  # noqa: E731
            word = agree(self._watch, self._agreement, self._internal, ranks, number, word=word, judge=judge)
            if word == _LOST:
                raise HPCRemoteError(_SOME_LEFT)
            if word == _FULL:
                raise HPCRemoteError(
                    f"{label} would be one more than {LIMIT} communicators on one of these ranks: MPI "
                    "libraries have room for few. Call on fewer different sets of ranks, or use "
                    "comm().Split(...) and Free()"
                )
            bare = self._of_survivors(ranks) if word == _SHRINK else self._bare(ranks)
            made = dress(bare, self._watch, bare.Dup(), label) if interruptible else self._warm(bare)
        finally:
            self._watch.now = None
        self._kept[key] = made
        self._list()
        return made

    def _bare(self, ranks: tuple[int, ...] | None) -> MPI.Intracomm:
        """Make a plain communicator; blocks until all *ranks* (None: everybody) do."""
        if ranks is None or ranks == self._everyone:
            made = self._internal.Dup()
        else:
            everybody = self._internal.Get_group()
            group = everybody.Incl(ranks)
            try:
                made = self._internal.Create_group(group)
            except MPI.Exception as error:
                if not _tells_of_death(error):
                    raise
                raise HPCRemoteError(_SOME_LEFT) from None
            group.Free()
            everybody.Free()
        return made

    def _dead(self) -> set[int]:
        """Return the ranks that MPI knows to have died while others live on (ULFM)."""
        if MPI.ERR_PROC_FAILED == MPI.ERR_UNKNOWN:  # this library knows of no such thing
            return set()
        try:
            dead = self._internal.Get_failed()
        except (MPI.Exception, NotImplementedError):
            return set()
        return {*MPI.Group.Translate_ranks(dead, list(range(dead.Get_size())), self._internal.Get_group())}

    def _judge(self, ranks: tuple[int, ...], said: int) -> int:
        """Decide for all *ranks* what the words mean: each for itself might not know of the same deaths."""
        if said != _LOST:
            return said
        deadline = monotonic() + ALSO
        while not (dead := self._dead()) and monotonic() < deadline:
            self._internal.Iprobe(tag=NOBODY)  # MPI looks around
        return _SHRINK if dead and {*ranks} == {*self._everyone} - dead else _LOST

    def _of_survivors(self, ranks: tuple[int, ...]) -> MPI.Intracomm:
        """Make one of what is left when a rank has died; all of that call this."""
        return MPI.Intracomm(self._internal.Shrink().Split(0, ranks.index(self._internal.Get_rank())))

    @staticmethod
    def _warm(made: MPI.Intracomm) -> MPI.Intracomm:
        made.allreduce(0)  # mpi4py makes a hidden duplicate at the first one, holding the GIL
        return made

    def _fresh(self, ranks: tuple[int, ...] | None, label: str) -> Comm:
        made = self._bare(ranks)
        return dress(made, self._watch, made.Dup(), label)

    def _list(self) -> None:
        known = [comm for comm in self._kept.values() if isinstance(comm, Comm)]
        self._known = (*known, *([self._stand_in] if self._stand_in else []))

    # ------------------------------------------------------------ after a failure

    def renew(self, seq: int, ranks: tuple[int, ...], *, world: bool = True) -> bool:
        """Put fresh communicators into the objects that users hold; every rank that is concerned calls this.

        That is what comm() returned on *ranks*; with *world* also COMM_WORLD's stand-in, and whatever else of
        comm() broke on any rank. What was made from one of them raises from now on. It may be called in the
        middle of a call, even of an operation.

        Args:
            seq: number of this work, in the same order as calls (it can be released as they can).
            ranks: the ranks of the call that failed.
            world: all ranks of the set call this, and not only *ranks*.

        Returns:
            Whether the running call had used one of them.

        Raises:
            Released: not everybody came; nothing was renewed.
        """
        members = self._everyone if world else ranks
        families = list(self._watch.families)
        with self._watch.aside(seq):
            self._agreement.enter("renew")
            try:
                word = _LOST if self._dead() else 0
                word = agree(self._watch, self._agreement, self._internal, members, seq * 8, word=word)
                self._lost = word == _LOST
                renewed = self._renew_all(ranks, world, f"before call {seq}")
            finally:
                self._watch.now = None
        return any(family is comm.family for family in families for comm in renewed)

    def _renew_all(self, ranks: tuple[int, ...], world: bool, why: str) -> list[Comm]:
        worn: set[Key] = {(ranks, True), (ranks, False)}
        renewed: list[Comm] = []
        if world:
            mine = {key for key, comm in self._kept.items() if getattr(comm, "trouble", "")}
            worn = worn.union(*self._internal.allgather(mine))
            if self._stand_in is not None:
                self._renew_one(self._stand_in, None, why)
                renewed.append(self._stand_in)
        for key in sorted(worn):
            if (comm := self._kept.get(key)) is not None:
                self._renew_one(comm, key[0], why)
                if isinstance(comm, Comm):
                    renewed.append(comm)
        return renewed

    def _renew_one(self, comm: Any, ranks: tuple[int, ...] | None, why: str) -> None:
        try:
            self._replace(comm, ranks, why)
        except MPI.Exception as error:  # on all ranks alike, as when MPI has no communicators left
            reason = str(error).strip().splitlines()[-1].strip()
            if isinstance(comm, Comm):
                comm.tear(f"MPI cannot make it anew {why} ({reason}); start its engine set again: restart()")
            else:
                self._kept = {key: one for key, one in self._kept.items() if one is not comm}

    def _replace(self, comm: Any, ranks: tuple[int, ...] | None, why: str) -> None:
        # Where a rank outside of it has died, it can still be shrunk to what it has itself.
        fresh = MPI.Intracomm(MPI.Intracomm(comm).Shrink()) if self._lost else self._bare(ranks)
        if isinstance(comm, Comm):
            comm.mend(fresh, fresh.Dup(), why)
        else:
            repoint(comm, self._warm(fresh))


def _tells_of_death(error: MPI.Exception) -> bool:
    """Say whether *error* is that a rank has died; some MPI libraries have no name for that."""
    return MPI.ERR_PROC_FAILED != MPI.ERR_UNKNOWN and error.Get_error_class() == MPI.ERR_PROC_FAILED
