"""Calls that went wrong on one engine while others are still at it. Pure.

::

    a target fails ──grace──▶ Release to those that have not answered
          │                   (it ends their waiting in MPI, and nothing else: who computes goes on)
          ▼
    the call has ended everywhere
          ├── nobody had communicated ──▶ Settled to where it failed
          └── somebody had ─────────────▶ Renew to all whose communicators may hold stray messages

An engine on which a call failed does not communicate again before one of the last two has come: what
it sent in its next call could meet what its peers still wait for in this one, and the sum would be wrong
without an error. For the same reason a later call that has communicated already, on engines that were
ahead, is released as well: its messages went by communicators that are about to be replaced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpcremote.controller.events import Actions
from hpcremote.controller.roster import Engine, Roster
from hpcremote.wire import messages as m

if TYPE_CHECKING:
    from hpcremote.controller.calls import Work


@dataclass(slots=True)
class Trouble:
    """What is wrong with a call: since when the others' time runs, and the engines that wait for its end."""

    due: float
    released: bool = False
    held: dict[int, Engine] = field(default_factory=dict)


class Failing:
    """The calls that have failed on some engine and not ended on all.

    Args:
        roster: the engines.
        actions: takes what has to be done.
        grace: seconds from the first failure until the others are released, where a call does not say.
        number: gives the next number of the one order.
    """

    def __init__(self, roster: Roster, actions: Actions, grace: float, number: Callable[[], int]) -> None:
        self._roster = roster
        self._actions = actions
        self._grace = grace
        self._number = number
        self._troubled: dict[int, Work] = {}
        self._communicated: dict[int, Work] = {}

    def due(self) -> float | None:
        """Return when the next engines have to be released, or None."""
        if not self._troubled:
            return None
        troubles = [work.trouble for work in self._troubled.values()]
        due = min((one.due for one in troubles if one and not one.released), default=math.inf)
        return None if due == math.inf else due

    def communicated(self, work: Work, mpi: int) -> None:
        """A target has answered, and had communicated by MPI."""
        work.mpi |= mpi
        if work.waiting:
            self._communicated[work.seq] = work

    def went_wrong(self, work: Work, engine: Engine | None) -> None:
        """A target has failed; it may be gone, or have been gone when the call came (None)."""
        if len(work.targets) < 2 or (engine is not None and engine.info.size < 2):
            return  # nobody can wait for it in MPI
        if work.trouble is None:
            grace = self._grace if work.grace < 0 else work.grace
            work.trouble = Trouble(self._actions.now + grace)
        if engine is not None:
            work.trouble.held[engine.info.id] = engine
        if work.waiting:
            self._troubled[work.seq] = work

    def release_due(self) -> None:
        """Release those whose time has come."""
        if not self._troubled:
            return
        for work in list(self._troubled.values()):
            if work.trouble and not work.trouble.released and self._actions.now >= work.trouble.due:
                self._release(work, f"the call failed on {_engines(work.trouble.held)}")

    def _release(self, work: Work, why: str) -> None:
        if work.trouble is None:
            work.trouble = Trouble(self._actions.now)
        work.trouble.released = True
        for target in work.waiting:
            if engine := self._roster.engines.get(target):
                self._actions.send(engine.peer, m.Release(work.seq, why))

    def settled(self, work: Work) -> list[Renewal]:
        """The call has ended everywhere; return the renewals that this makes necessary."""
        self._troubled.pop(work.seq, None)
        self._communicated.pop(work.seq, None)
        trouble = work.trouble
        if trouble is None:
            return []
        renewals = [found for name in self._set_ids(work) if (found := self._renewal(work, name))]
        renewed = {engine.info.id for renewal in renewals for engine in renewal.engines}
        for engine in trouble.held.values():
            if engine.info.id not in renewed and self._roster.engines.get(engine.info.id) is engine:
                self._actions.send(engine.peer, m.Settled(work.seq))
        return renewals

    def _set_ids(self, work: Work) -> list[str]:
        engines = (self._roster.engines.get(target) for target in work.targets)
        return list(dict.fromkeys(engine.info.set_id for engine in engines if engine is not None))

    def _renewal(self, work: Work, set_id: str) -> Renewal | None:
        """Return what has to be made anew in one set, or None if nothing has."""
        if not work.mpi:
            return None
        mates = self._roster.mates(set_id)
        rank_of = {mate.info.id: mate.info.rank for mate in mates}
        whole = bool(mates) and len(mates) == mates[0].info.size
        if not whole and not (work.mpi & m.OWN_COMM and rank_of.keys() >= set(work.targets)):
            return None  # it lost a rank, and what was used cannot be made anew without it
        world = bool(work.mpi & m.WORLD) and whole
        chosen = set(work.targets)
        engines = mates if world else [mate for mate in mates if mate.info.id in chosen]
        ranks = [rank_of[target] for target in work.targets if target in rank_of]
        self._release_overtakers(work, {mate.info.id for mate in engines}, world=world)
        message = m.Renew(self._number(), work.seq, ranks, world)
        for engine in engines:
            self._actions.send(engine.peer, message)
        return Renewal(message.seq, engines)

    def _release_overtakers(self, work: Work, engines: set[int], *, world: bool) -> None:
        for later in list(self._communicated.values()):
            by_world = world and later.mpi & m.WORLD
            by_own = later.mpi & m.OWN_COMM and later.targets == work.targets
            if later.seq > work.seq and (by_world or by_own) and engines & set(later.targets):
                self._release(later, "an earlier call failed, and its communicators had to be made anew")


@dataclass(slots=True)
class Renewal:
    """Engines that were told to make communicators anew together."""

    seq: int
    engines: list[Engine]


def _engines(engines: dict[int, Engine]) -> str:
    ids = sorted(engines)
    shown = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
    return f"engine{'s' if len(ids) > 1 else ''} {shown}"
