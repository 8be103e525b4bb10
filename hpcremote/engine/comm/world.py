"""The communicators of an engine, from MPI_Init to the end.

::

    internal        a duplicate of COMM_WORLD that only this package uses: agreements, making others
    COMM_WORLD      the name is bound to an interruptible duplicate (unless told not to), and with it Request
    comm()          one for each tuple of ranks that calls were made on, kept for ever

Freeing a communicator needs all of its ranks at once, so none is freed: those that broke are left behind,
and there is a limit to how many different tuples of ranks may call comm().
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mpi4py import MPI

from hpcremote.engine.comm.agree import agree
from hpcremote.engine.comm.base import repoint
from hpcremote.engine.comm.communicator import Comm, dress
from hpcremote.engine.comm.maker import FULL, LOST, SHRINK, SOME_LEFT, Maker, warm
from hpcremote.engine.comm.record import Waiting
from hpcremote.engine.comm.requests import Prequest, Request
from hpcremote.engine.comm.watch import Watch
from hpcremote.errors import HPCRemoteError
from hpcremote.wire.messages import OTHERS, OWN_COMM, WORLD
from hpcremote.wire.notes import Step

#: comm() makes at most so many communicators (MPI libraries have room for about 2,000; each of ours is two).
LIMIT = 256

#: (ranks, whether interruptible)
Key = tuple[tuple[int, ...], bool]


class World:
    """All of an engine's communicators. Made by all ranks together, on the main thread."""

    def __init__(self, internal: MPI.Intracomm, *, replace: bool, crowded: bool = False) -> None:
        """Set up.

        Args:
            internal: a duplicate of COMM_WORLD that nobody else uses from now on.
            replace: bind the name MPI.COMM_WORLD to an interruptible duplicate.
            crowded: there are more ranks than cores on this host.
        """
        self._internal = internal
        self._watch = Watch(internal, crowded=crowded)
        self._maker = Maker(internal)
        self._ranks: tuple[int, ...] = ()
        self._running = False
        self._plainly = False  # the call has asked for a plain communicator, whose use nobody sees
        self._asked = 0  # how often comm() had to make one in this call
        self._lost = False  # a rank has died, all know that met last
        self._kept: dict[Key, Any] = {}
        # What a renewal takes, each with its hidden duplicate; None is for COMM_WORLD's stand-in.
        self._spares: dict[Key | None, tuple[MPI.Intracomm, MPI.Intracomm]] = {}
        self._known: tuple[Comm, ...] = ()  # for other threads
        self._doubtful: set[Key] = set()  # used by calls that failed, and not made anew since
        # On whose behalf we wait in agreements. Every communicator costs memory (MPICH has room for a few,
        # then takes 2 MB more), and most sessions never ask for comm(): so there are no more than two here.
        self._agreement = dress(internal, self._watch, internal, "an agreement")
        bare = self._bare(None) if replace else None
        self._stand_in = dress(bare, self._watch, bare.Dup(), "COMM_WORLD") if bare is not None else None
        if self._stand_in is not None:
            self._stand_in.Set_name(MPI.COMM_WORLD.Get_name())
            setattr(MPI, "COMM_WORLD", self._stand_in)  # noqa: B010 - it is Final for everybody else
            setattr(MPI, "Request", Request)  # noqa: B010 - Waitall and its like are called on the class
            setattr(MPI, "Prequest", Prequest)  # noqa: B010 - and Startall
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

    def end(self, *, failed: bool = False) -> int:
        """The call is over; return by what it communicated (see ``wire.messages.Done.mpi``)."""
        self._watch.end()
        if failed and (families := self._watch.families):
            self._doubtful.update(key for key, comm in self._kept.items() if _is_of(comm, families))
        used = self._used() if self._watch.families or self._plainly else 0
        self._ranks, self._running = (), False
        return used

    def _used(self) -> int:
        own = self._kept.get((self._ranks, True))
        used = OWN_COMM if self._plainly else 0
        for family in self._watch.families:
            if own is not None and family is own.family:
                used |= OWN_COMM
            elif self._stand_in is not None and family is self._stand_in.family:
                used |= WORLD
            elif family is not self._agreement.family:
                used |= WORLD | OTHERS
        return used

    def on_gate(self, gate: Callable[[bool], bool]) -> None:
        """Have *gate* called before a call communicates while the gate is shut (see ``Watch.gate``)."""
        self._watch.gate = gate

    def on_abort(self, abort: Callable[[int], None]) -> None:
        """Have *abort* called before one of our communicators calls MPI_Abort, with the error code."""
        self._watch.abort = abort

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
            others = sum(comm != MPI.COMM_NULL for one, comm in self._kept.items() if one != key)
            word = LOST if self._maker.dead() else FULL if others >= LIMIT else 0
            number = self._watch.seq * 8 + self._asked % 8
            judge = lambda said: self._maker.judge(ranks, said)  # noqa: E731
            word = agree(self._watch, self._agreement, self._internal, ranks, number, word=word, judge=judge)
            if word == LOST:
                raise HPCRemoteError(SOME_LEFT)
            if word == FULL:
                raise HPCRemoteError(
                    f"{label} would be one more than {LIMIT} communicators on one of these ranks: MPI "
                    "libraries have room for few. Call on fewer different sets of ranks, or use "
                    "comm().Split(...) and Free()"
                )
            bare = self._maker.of_survivors(ranks) if word == SHRINK else self._bare(key)
            made = dress(bare, self._watch, bare.Dup(), label) if interruptible else warm(bare)
            self._lay_in(key, lambda _: bare.Dup())
        finally:
            self._watch.now = None
        self._kept[key] = made
        self._list()
        return made

    def _list(self) -> None:
        known = [comm for comm in self._kept.values() if isinstance(comm, Comm)]
        self._known = (*known, *([self._stand_in] if self._stand_in else []))

    # ------------------------------------------------------------ after a failure

    def renew(self, seq: int, ranks: tuple[int, ...], *, world: bool = True, others: bool = False) -> bool:
        """Put fresh communicators into the objects that users hold; every rank that is concerned calls this.

        That is what comm() returned on *ranks*; with *world* also COMM_WORLD's stand-in. A spare is taken if
        there is one, and nobody is waited for. What was made from one of them raises from now on. This may be
        called in the middle of a call, even of an operation.

        Args:
            seq: number of this work, in the same order as calls (it can be released as they can).
            ranks: the ranks of the call that failed.
            world: all ranks of the set call this, and not only *ranks*.
            others: with *world*: also whatever else of comm() broke on any rank, or was used there by a call
                that failed; all wait for each other.

        Returns:
            Whether the running call had used one of them.

        Raises:
            Released: not everybody came; what has no spare was not renewed.
        """
        families = list(self._watch.families)
        renewed: list[Comm] = []
        try:
            with self._together(seq, "renew"):
                self._renew_all(seq, ranks, world, others, renewed)
        except HPCRemoteError as error:
            self._give_up({(ranks, True), (ranks, False), *self._doubtful}, world, renewed, str(error))
            raise
        return any(family is comm.family for family in families for comm in renewed)

    @contextmanager
    def _together(self, seq: int, operation: str) -> Iterator[None]:
        """Do with other ranks what is no call; that one of them has died is an error of ours, too."""
        with self._watch.aside(seq):
            self._agreement.enter(operation)
            try:
                yield
            except MPI.Exception as error:
                raise HPCRemoteError(f"{operation}: {error}") from error
            finally:
                self._watch.now = None

    def _give_up(self, worn: set[Key], world: bool, renewed: list[Comm], why: str) -> None:
        """What should have been made anew cannot be used as it is: there may be messages under way by it."""
        whole = [self._stand_in] if world and self._stand_in is not None else []
        for comm in [*whole, *(self._kept[key] for key in worn & self._kept.keys())]:
            if not isinstance(comm, Comm):
                self._kept = {key: one for key, one in self._kept.items() if one is not comm}
            elif all(comm is not one for one in renewed):
                comm.tear(f"it could not be made anew after a failure ({why})")

    def _renew_all(
        self, seq: int, ranks: tuple[int, ...], world: bool, others: bool, renewed: list[Comm]
    ) -> None:
        why = f"before call {seq}"
        worn: set[Key] = {(ranks, True), (ranks, False)}
        if others:
            self._meet(self._maker.everyone, seq * 8)
            mine = {key for key, comm in self._kept.items() if getattr(comm, "trouble", "")}
            mine |= self._doubtful & self._kept.keys()
            worn = worn.union(*self._internal.allgather(mine))
        if world and self._stand_in is not None:
            if not others and None not in self._spares:
                self._meet(self._maker.everyone, seq * 8)
            renewed.append(self._renew_one(None, self._stand_in, why))
        own = sorted(worn & self._kept.keys())
        if not others and any(key not in self._spares for key in own):
            self._meet(ranks, seq * 8 + 1)
        for key in own:
            one = self._renew_one(key, self._kept[key], why)
            renewed += [one] if isinstance(one, Comm) else []

    def _meet(self, members: tuple[int, ...], number: int) -> None:
        """Wait until all *members* have come here."""
        word = LOST if self._maker.dead() else 0
        self._lost = agree(self._watch, self._agreement, self._internal, members, number, word=word) == LOST

    def _renew_one(self, key: Key | None, comm: Any, why: str) -> Any:
        if key is not None:
            self._doubtful.discard(key)
        try:
            self._replace(key, comm, why)
        except MPI.Exception as error:  # on all ranks alike, as when MPI has no communicators left
            reason = str(error).strip().splitlines()[-1].strip()
            if isinstance(comm, Comm):
                comm.tear(f"MPI cannot make it anew {why} ({reason}); start its engine set again: restart()")
            else:
                self._kept = {key: one for key, one in self._kept.items() if one is not comm}
        return comm

    def _replace(self, key: Key | None, comm: Any, why: str) -> None:
        fresh = self._spares.pop(key, None)
        if fresh is None:
            # Where a rank outside of it has died, it can still be shrunk to what it has itself.
            lost = self._lost
            fresh = pair(MPI.Intracomm(MPI.Intracomm(comm).Shrink()) if lost else self._bare(key), key)
        if isinstance(comm, Comm):
            comm.mend(*fresh, why)
        else:
            repoint(comm, fresh[0])

    def _bare(self, key: Key | None) -> MPI.Intracomm:
        return self._maker.bare(None if key is None else key[0])

    # ------------------------------------------------------------ spares

    def stock(self, seq: int, ranks: tuple[int, ...], *, world: bool) -> None:
        """Make spares; every rank that is concerned calls this, and has nothing else to do.

        Args:
            seq: number of this work, as for ``renew()``.
            ranks: for what comm() returned on these; without *world* they call this.
            world: all ranks call this: for COMM_WORLD's stand-in, and whatever has none.

        Raises:
            Released: not everybody came; there are no spares.
        """
        with self._together(seq, "spares"):
            self._meet(self._maker.everyone if world else ranks, seq * 8)
            if self._lost:
                return
            lacking: set[Key] = {(ranks, True), (ranks, False)} - self._spares.keys()
            if world:
                lacking = lacking.union(*self._internal.allgather(self._kept.keys() - self._spares.keys()))
                if self._stand_in is not None and None not in self._spares:
                    self._lay_in(None, self._bare)
            for key in sorted(lacking & self._kept.keys()):
                self._lay_in(key, self._bare)

    def _lay_in(self, key: Key | None, make: Callable[[Key | None], MPI.Intracomm]) -> None:
        with suppress(MPI.Exception):  # on all ranks alike, as above: then a renewal has to wait for all
            self._spares[key] = pair(make(key), key)


def _is_of(comm: Any, families: list[object]) -> bool:
    return isinstance(comm, Comm) and any(comm.family is family for family in families)


def pair(made: MPI.Intracomm, key: Key | None) -> tuple[MPI.Intracomm, MPI.Intracomm]:
    """Return a communicator with what belongs to it: a hidden duplicate, if it is to be interruptible."""
    return (made, made.Dup()) if key is None or key[1] else (warm(made), made)
