"""Calls that went wrong on one engine while others are still at it. Pure.

::

    a target fails ──grace──▶ Release to those that have not answered
          │                   (it ends their waiting in MPI, and nothing else: who computes goes on)
          ▼
    the call has ended everywhere
          ├── nobody had communicated ──▶ Settled to where it failed
          └── somebody had ─────────────▶ Renew to all whose communicators may hold stray messages
                                                └─▶ and when all have nothing to do: Stock (see ``spares.py``)

An engine on which a call failed does not communicate again before one of the last two has come: what
it sent in its next call could meet what its peers still wait for in this one, and the sum would be wrong
without an error. For the same reason a later call that has communicated already, on engines that were
ahead, is released as well: its messages went by communicators that are about to be replaced. So is one that
has ended on an engine before the Renew came there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpcremote.controller.events import Actions
from hpcremote.controller.roster import Engine, Roster
from hpcremote.controller.spares import Joint, Spares
from hpcremote.wire import messages as m

if TYPE_CHECKING:
    from hpcremote.controller.calls import Work


#: Why a call is released that communicated by what a renewal replaces.
OVERTAKEN = "an earlier call failed, and its communicators had to be made anew"
#: Engines that all had nothing to do are together within so many seconds, or go on without a spare.
PATIENCE = 2.0


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
        self._renewals: dict[
            int, tuple[m.Renew, list[int]]
        ] = {}  # not done everywhere; and the call's targets
        self.spares = Spares(roster, actions, number)

    def due(self) -> float | None:
        """Return when the next engines have to be released, or None."""
        if not self._troubled:
            return None
        troubles = [work.trouble for work in self._troubled.values()]
        due = min((one.due for one in troubles if one and not one.released), default=math.inf)
        return None if due == math.inf else due

    def communicated(self, work: Work, engine: Engine, mpi: int) -> None:
        """A target has answered, and had communicated by MPI."""
        work.mpi |= mpi
        if mpi & m.WORLD:
            self.spares.world_used(engine)
        if not work.waiting:
            return
        self._communicated[work.seq] = work
        for seq, (renewal, targets) in self._renewals.items():
            if seq in engine.runs and _overtakes(work, mpi, renewal, targets):
                self._release(work, OVERTAKEN)
                break

    def went_wrong(self, work: Work, engine: Engine | None) -> None:
        """A target has failed; it may be gone, or have been gone when the call came (None)."""
        if len(work.targets) == 1 or (engine is not None and engine.info.size < 2):
            return  # nobody can wait for it in MPI; without targets it is what engines do together
        if work.trouble is None:
            grace = self._grace if work.grace < 0 else work.grace
            work.trouble = Trouble(self._actions.now + grace)
        if engine is not None and work.targets:
            work.trouble.held[engine.info.id] = engine
        if work.waiting:
            self._troubled[work.seq] = work

    def renews(self, seq: int) -> bool:
        """Say whether this is the number of a renewal that is not done everywhere."""
        return seq in self._renewals

    def release_due(self) -> None:
        """Release those whose time has come."""
        if not self._troubled:
            return
        for work in list(self._troubled.values()):
            if work.trouble and not work.trouble.released and self._actions.now >= work.trouble.due:
                held = work.trouble.held
                self._release(work, f"the call failed on {_engines(held)}" if held else "not all have come")

    def _release(self, work: Work, why: str) -> None:
        if work.trouble is None:
            work.trouble = Trouble(self._actions.now)
        work.trouble.released = True
        for target in work.waiting:
            if engine := self._roster.engines.get(target):
                self._actions.send(engine.peer, m.Release(work.seq, why))

    def settled(self, work: Work) -> list[Joint]:
        """The call has ended everywhere; return the renewals that this makes necessary."""
        self._troubled.pop(work.seq, None)
        self._communicated.pop(work.seq, None)
        self._renewals.pop(work.seq, None)
        trouble = work.trouble
        if trouble is None:
            return []
        renewals = [found for name in self._set_ids(work) if (found := self._renewal(work, name))]
        renewed = {engine.info.id for renewal in renewals for engine in renewal.engines}
        for engine in trouble.held.values():
            if engine.info.id not in renewed and self._roster.engines.get(engine.info.id) is engine:
                self._actions.send(engine.peer, m.Settled(work.seq))
        return renewals

    def watch(self, work: Work) -> None:
        """Engines make spares: nobody waits for long, should one of them not come."""
        work.trouble = Trouble(self._actions.now + PATIENCE)
        self._troubled[work.seq] = work

    def _set_ids(self, work: Work) -> list[str]:
        engines = (self._roster.engines.get(target) for target in work.targets)
        return list(dict.fromkeys(engine.info.set_id for engine in engines if engine is not None))

    def _renewal(self, work: Work, set_id: str) -> Joint | None:
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
        message = m.Renew(self._number(), work.seq, ranks, world, world and bool(work.mpi & m.OTHERS))
        self._release_overtakers(work, {mate.info.id for mate in engines}, message)
        for engine in engines:
            self._actions.send(engine.peer, message)
        self._renewals[message.seq] = message, work.targets
        self.spares.taken(engines[0], engines, ranks, world=world)
        return Joint(message.seq, engines)

    def _release_overtakers(self, work: Work, engines: set[int], renewal: m.Renew) -> None:
        for later in list(self._communicated.values()):
            if _overtakes(later, later.mpi, renewal, work.targets) and engines & set(later.targets):
                self._release(later, OVERTAKEN)


def _overtakes(later: Work, mpi: int, renewal: m.Renew, targets: list[int]) -> bool:
    """Say whether a call has communicated by what a *renewal*, after a call on *targets*, replaces."""
    by_world = renewal.world and mpi & m.WORLD
    by_own = mpi & m.OWN_COMM and later.targets == targets
    return later.seq > renewal.after and bool(by_world or by_own)


def _engines(engines: dict[int, Engine]) -> str:
    ids = sorted(engines)
    shown = ", ".join(map(str, ids[:8])) + (", ..." if len(ids) > 8 else "")
    return f"engine{'s' if len(ids) > 1 else ''} {shown}"
