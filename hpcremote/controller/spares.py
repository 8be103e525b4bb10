"""When engines make spare communicators: once all that have to come have nothing else to do. Pure.

::

    COMM_WORLD was used for the first time ──┐
    a renewal has used spares up ────────────┴─▶ a lack ──all of its engines are free──▶ Stock, to all of them

A spare is what a failure takes. It is there already, so each rank takes it for itself, and nobody has to wait
for one that is at work. What comm() returned gets its first one when it is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpcremote.controller.events import Actions
from hpcremote.controller.roster import Engine, Roster
from hpcremote.wire import messages as m


@dataclass(slots=True)
class Joint:
    """What engines were told to do together, with its number in the one order."""

    seq: int
    engines: list[Engine]


@dataclass(slots=True)
class Lack:
    """Engines that have no spare; ``place`` is that of one that had something to do when last seen."""

    engines: list[Engine]
    ranks: list[int]
    world: bool
    place: int = 0

    def is_free(self) -> bool:
        """Say whether all have nothing to do; looks no further than to the first that has."""
        count = len(self.engines)
        for place in range(self.place, self.place + count):
            if self.engines[place % count].runs:
                self.place = place % count
                return False
        return True


class Spares:
    """The communicators that lack a spare.

    Args:
        roster: the engines.
        actions: takes what has to be done.
        number: gives the next number of the one order.
    """

    def __init__(self, roster: Roster, actions: Actions, number: Callable[[], int]) -> None:
        self._roster = roster
        self._actions = actions
        self._number = number
        self._lacks: dict[tuple[str, tuple[int, ...]], Lack] = {}
        self._used: set[str] = set()  # sets whose COMM_WORLD has been used

    def world_used(self, engine: Engine) -> None:
        """The engine has communicated by COMM_WORLD."""
        set_id = engine.info.set_id
        if set_id not in self._used:
            self._used.add(set_id)
            self.taken(engine, self._roster.mates(set_id), [], world=True)

    def taken(self, engine: Engine, engines: list[Engine], ranks: list[int], *, world: bool) -> None:
        """Spares of these *engines* are used up; *engine*, one of them, has something to do.

        A set that has lost a rank makes none, since MPI may not be able to any more.
        """
        set_id = engine.info.set_id
        if len(self._roster.mates(set_id)) == engine.info.size > 1:
            place = next(place for place, one in enumerate(engines) if one is engine)
            self._lacks[set_id, () if world else tuple(ranks)] = Lack(engines, ranks, world, place)

    def free(self, engine: Engine) -> list[Joint]:
        """An engine has nothing to do any more: send what can be made now, and return it."""
        found = []
        for key, lack in list(self._lacks.items()):
            if lack.engines[lack.place] is engine and lack.is_free():
                del self._lacks[key]
                message = m.Stock(self._number(), lack.ranks, lack.world)
                for one in lack.engines:
                    self._actions.send(one.peer, message)
                found.append(Joint(message.seq, lack.engines))
                break  # they are not free any more; the next one's turn comes when they are
        return found

    def left(self, engine: Engine) -> None:
        """An engine is gone: its set makes no spares any more."""
        set_id = engine.info.set_id
        self._used.discard(set_id)
        self._lacks = {key: lack for key, lack in self._lacks.items() if key[0] != set_id}
