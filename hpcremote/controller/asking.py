"""What clients ask the controller about itself and its engines. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from hpcremote.controller import sets
from hpcremote.controller.agents import STATES, Agents
from hpcremote.controller.calls import Client
from hpcremote.controller.events import Actions, Peer
from hpcremote.controller.roster import Roster
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame


class Asking:
    """Answers a client's :class:`Query`.

    Args:
        identity: what the controller is: its cluster's id, version, host and pid.
        roster: the engines.
        agents: the node agents, who see engines from outside.
        clients: the connected clients.
        actions: takes the answers.
    """

    def __init__(
        self,
        identity: Mapping[str, object],
        roster: Roster,
        agents: Agents,
        clients: Mapping[Peer, Client],
        actions: Actions,
    ) -> None:
        self._identity = identity
        self._roster = roster
        self._agents = agents
        self._clients = clients
        self._actions = actions
        self._answers: dict[str, Callable[[], object]] = {
            "queue_status": self._queue_status,
            "info": self._info,
            "ended sets": lambda: sets.ended(roster.sets, roster.engines),
            "jobs": lambda: sets.jobs(roster.sets),
            "marks": lambda: sets.marks(roster.sets),
        }

    def query(self, peer: Peer, query: m.Query, _frames: Sequence[Frame]) -> None:
        """Answer a client."""
        ask = self._answers.get(query.what)
        if query.what == "processes":
            self._ask_agents(peer, query.request)
        elif ask is None:
            problem = f"this controller cannot tell {query.what!r}"
            self._actions.send(peer, m.Answer(query.request, "", problem))
        else:
            self._actions.send(peer, m.Answer(query.request, json.dumps(ask())))

    def _ask_agents(self, peer: Peer, request: int) -> None:
        """Answer with what the kernel says now of those engines whose agents answer in time."""

        def answer(rows: Mapping[str, Mapping[str, object]]) -> None:
            known = {
                engine: {"memory": row["memory"], "state": STATES.get(str(row["state"]), "")}
                for engine, row in rows.items()
                if "memory" in row
            }
            self._actions.send(peer, m.Answer(request, json.dumps(known)))

        self._agents.look(list(self._roster.engines), answer, brief=True)

    def _queue_status(self) -> dict[str, object]:
        """Count what each engine has to do, and has done, and say what has been noticed of it."""
        rows: dict[str, dict[str, object]] = {}
        for key, engine in sorted(self._roster.engines.items()):
            row = rows[str(key)] = {"queue": len(engine.runs), "completed": engine.completed, "tasks": 0}
            if state := self._agents.noticed.get(engine.info.uid):
                row["state"] = state
        return {"engines": rows, "unassigned": 0}

    def _info(self) -> dict[str, object]:
        return {
            **self._identity,
            "clients": len(self._clients),
            "calls": sum(len(client.works) for client in self._clients.values()),
            **self._roster.progress(),
        }
