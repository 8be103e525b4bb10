"""Which calls a running program does at this step: the same ones, in the same order, on every rank. Pure.

Ranks of a program that polls between its steps get their calls at different moments, each over its own
connection. A call on several ranks may use collectives, so nobody may begin it one step before the others.
When there is something to agree on (rank 0 has told so), all ranks hold a *turn*, in rounds::

    offer:  each rank names the calls on several ranks that have arrived here, with their targets
    merge:  everybody takes in what everybody offered, and so knows the same
    wait:   each rank waits until all calls that were named and are for it have arrived here

It is over when every call that was named has been offered by all of its targets; usually after one round.
New calls do not prolong it: from the second round on only calls older than the newest of the first count.

Why the order is right: runs arrive in the order of their numbers. When the last call of the turn that is
for a rank has arrived there, all older ones have too, so that rank has offered them all. So no rank
passes over an older call, and each does those of the turn in the order in which it got them.

A call on one rank needs no agreement, and is done when it is the oldest there. A call that a client wants
dropped is dropped everywhere or nowhere: it stays until a turn, and is dropped if one of the offers says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from hpcremote.engine.machine import Engine, Job
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame


class Offer(NamedTuple):
    """A call on several ranks that has arrived at one of them."""

    seq: int
    ranks: Sequence[int]
    dropped: bool = False


class Turn:
    """What is known, on every rank alike, of the calls of one turn."""

    def __init__(self) -> None:
        self.calls: dict[int, Offer] = {}
        self._limit: int | None = None
        self._here: dict[int, set[int]] = {}

    @property
    def limit(self) -> int | None:
        """The number of the newest call that counts; None while any does."""
        return self._limit

    def merge(self, offers: Sequence[Sequence[Offer]]) -> bool:
        """Take in one round's offers, by rank; return whether there has to be another round."""
        for rank, offered in enumerate(offers):
            for offer in offered:
                known = self.calls.get(offer.seq)
                dropped = offer.dropped or (known is not None and known.dropped)
                self.calls[offer.seq] = Offer(offer.seq, offer.ranks, dropped)
                self._here.setdefault(offer.seq, set()).add(rank)
        if self._limit is None:
            self._limit = max(self.calls, default=0)
        return any(self._here[seq] < set(call.ranks) for seq, call in self.calls.items())

    def due(self, rank: int) -> set[int]:
        """Return the calls that *rank* does, or drops, in this turn."""
        return {seq for seq, call in self.calls.items() if rank in call.ranks}

    def dropped(self) -> set[int]:
        """Return the calls that are dropped."""
        return {seq for seq, call in self.calls.items() if call.dropped}


class Steered(Engine):
    """The queue of a rank in a program that polls: calls on several ranks wait for their turn."""

    def __init__(self, has: Callable[[bytes], bool], define: Callable[[bytes, bytes], None]) -> None:
        super().__init__(has, define)
        self._base = 0
        self._size = 1
        self._rank = 0
        self._polls = True
        self._asked_for = 0  # the newest run for which this rank has asked for a turn
        self._newest = 0  # the newest run that has arrived
        self._offered: set[int] = set()
        self._unwanted: set[int] = set()  # dropped by a client, and waiting for a turn
        self._cut: set[int] = set()  # of these, those that are interrupted where they have begun
        self._agreed: frozenset[int] = frozenset()
        self._dropped: frozenset[int] = frozenset()

    def place(self, base: int, rank: int, size: int, *, polls: bool = True) -> None:
        """This is *rank* of *size*; engine ids begin at *base*. One that only waits does not *poll*."""
        self._base, self._rank, self._size, self._polls = base, rank, size, polls

    def left_out(self, run: m.Run) -> list[int]:
        """Return the engines of this program that a run is not for."""
        return sorted(set(range(self._base, self._base + self._size)) - set(run.targets))

    # ------------------------------------------------------------ what the turns are made of

    def ranks(self, run: m.Run) -> Sequence[int]:
        """Return the ranks of this program that a run is for."""
        own = range(self._base, self._base + self._size)
        ranks = [target - self._base for target in run.targets if target in own]
        step = ranks[1] - ranks[0] if len(ranks) > 1 else 1
        span = range(ranks[0], ranks[-1] + (1 if step > 0 else -1), step or 1)
        return span if list(span) == ranks else tuple(ranks)  # a range is a few bytes, however long

    def is_shared(self, run: m.Run) -> bool:
        """Say whether a run needs an agreement."""
        return len(run.targets) > 1 and self._polls and len(self.ranks(run)) > 1

    def wants_turn(self) -> bool:
        """Say whether this rank has to ask for a turn; once for each run.

        That is the business of the first of a run's ranks. Rank 0 asks only itself, until it is done.
        """
        wanted = False
        for run, _ in [*self._queue]:
            if run.seq > self._asked_for and self.is_shared(run) and self._rank == min(self.ranks(run)):
                wanted = True
                if self._rank:
                    self._asked_for = run.seq
        return wanted

    def offers(self, turn: Turn) -> list[Offer]:
        """Return what is here for this round of *turn*, and was not offered in an earlier one."""
        made = []
        for run, _ in [*self._queue]:
            if turn.limit is not None and run.seq > turn.limit:
                break
            if run.seq not in self._offered and self.is_shared(run):
                self._offered.add(run.seq)
                made.append(Offer(run.seq, self.ranks(run), run.seq in self._unwanted))
        return made

    def arrived(self, seqs: set[int]) -> bool:
        """Say whether all these runs have come."""
        return not seqs or self._newest >= max(seqs)

    def begin_turn(self, turn: Turn) -> None:
        """It is agreed: :meth:`next` gives these runs now."""
        self._agreed = frozenset(turn.due(self._rank))
        self._dropped = frozenset(turn.dropped())

    def end_turn(self) -> None:
        """All of them have been done."""
        self._unwanted -= self._agreed
        self._cut -= self._agreed
        self._agreed = self._dropped = frozenset()
        self._offered.clear()

    # ------------------------------------------------------------ the engine's rules, with turns

    def handle(self, message: m.AnyMessage, frames: Sequence[Frame]) -> list[m.AnyMessage]:
        """Take in a message and return the answers to it."""
        if type(message) is m.Run:
            self._newest = message.seq
        return super().handle(message, frames)

    def may_begin(self) -> bool:
        """Say whether the oldest run may be done now."""
        if not self._queue:
            return False
        run = self._queue[0][0]
        return run.seq in self._agreed or not self.is_shared(run)

    def can_go_on(self) -> bool:
        """Say whether the definition that the oldest run waits for has come, or cannot come any more."""
        if not self._queue:
            return True
        digest = self._queue[0][0].digest
        return not digest or self._has(digest) or digest in self._undefined

    def give_up_definition(self) -> None:
        """Nobody will send what the oldest run waits for."""
        if self._queue:
            self._undefined.add(self._queue[0][0].digest)

    def next(self) -> Job | m.Lacking | m.Done | None:  # type: ignore[override]
        """Return the next job or what it lacks, the answer for a dropped one, or None if none may begin."""
        if not self.may_begin():
            return None
        run = self._queue[0][0]
        if run.seq in self._dropped or run.seq in self._cut:
            self._queue.popleft()
            self._asked = b""
            return m.Done(run.seq, "aborted", m.Part())
        return super().next()

    def _drop(self, seqs: set[int], *, interrupt: bool) -> list[m.AnyMessage]:
        waiting = {run.seq for run, _ in self._queue if run.seq in seqs and self.is_shared(run)}
        self._unwanted |= waiting
        if interrupt:
            self._cut |= waiting
        return super()._drop(seqs - waiting, interrupt=interrupt)
