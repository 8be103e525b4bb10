"""Calls that take longer than they should: found now and then, told with their engines' stacks. Pure.

::

    every quarter of the limit: the oldest run of each engine is the one that it does
          │ the same one for longer than the limit
          ▼
    Look ──▶ node agents ──stacks──▶ Hanging to the client of the call, a line in the log; once a call
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcremote.controller.events import Actions, Peer
from hpcremote.controller.roster import Roster
from hpcremote.wire import messages as m
from hpcremote.wire import stacks

if TYPE_CHECKING:
    from hpcremote.controller.calls import Client, Work

#: Between looks are at most so many seconds.
_PERIOD = 10.0

Rows = Mapping[str, Mapping[str, Any]]


class Watchdog:
    """Which calls run for too long.

    Args:
        limit: seconds that a call may run; 0: any.
        roster: the engines.
        clients: who is to be told.
        look: has agents look at engines and hands on what they saw (see ``Agents.look``).
        actions: takes what has to be done.

    Attributes:
        limit: see there; without one there are no turns.
    """

    def __init__(
        self,
        limit: float,
        roster: Roster,
        clients: Mapping[Peer, Client],
        look: Callable[[Sequence[int], Callable[[Rows], None]], None],
        actions: Actions,
    ) -> None:
        self.limit = limit
        self._roster = roster
        self._clients = clients
        self._look = look
        self._actions = actions
        self._next = 0.0
        self._since: dict[int, tuple[int, float]] = {}  # engine → the run that it does, seen since when
        self._told: set[int] = set()

    def due(self) -> float | None:
        """Return when to look next, or None while nobody has called anything."""
        if not self.limit:
            return None
        return self._next if any(client.works for client in self._clients.values()) else None

    def turn(self) -> None:
        """Look, if it is time."""
        now = self._actions.now
        if now < self._next:
            return
        self._next = now + min(self.limit / 4, _PERIOD)
        overdue: dict[int, Work] = {}
        since: dict[int, tuple[int, float]] = {}
        for engine in self._roster.engines.values():
            if (work := next(iter(engine.runs.values()), None)) is None:
                continue
            seq, begun = self._since.get(engine.info.id, (0, now))
            since[engine.info.id] = (work.seq, begun if seq == work.seq else now)
            if seq == work.seq and now - begun >= self.limit:
                overdue[work.seq] = work
        self._since = since
        self._told &= overdue.keys()
        for work in overdue.values():
            if work.seq not in self._told and work.client in self._clients:
                self._told.add(work.seq)
                self._tell_of(work)

    def _tell_of(self, work: Work) -> None:
        begun = min(since for seq, since in self._since.values() if seq == work.seq)
        seconds = self._actions.now - begun

        def tell(rows: Rows) -> None:
            client = self._clients.get(work.client)
            if client is None or not work.waiting:
                return
            seen = {int(engine): stacks.user_stack(str(row["text"])) for engine, row in rows.items()}
            where = stacks.headline(stacks.merge(seen), "engine")
            self._actions.log(f"call {work.call} of {client.name} has run for {seconds:.1f} s: {where}")
            self._actions.send(client.peer, m.Hanging(work.call, seconds, json.dumps(rows)))

        self._look(work.targets, tell)
