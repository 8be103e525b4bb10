"""What clients ask the controller about itself and its engines. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from hpcremote.controller import sets
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
        clients: the connected clients.
        actions: takes the answers.
    """

    def __init__(
        self,
        identity: Mapping[str, object],
        roster: Roster,
        clients: Mapping[Peer, Client],
        actions: Actions,
    ) -> None:
        self._identity = identity
        self._roster = roster
        self._clients = clients
        self._actions = actions
        self._answers: dict[str, Callable[[], object]] = {
            "queue_status": roster.queue_status,
            "info": self._info,
            "ended sets": lambda: sets.ended(roster.sets, roster.engines),
            "jobs": lambda: sets.jobs(roster.sets),
            "marks": lambda: sets.marks(roster.sets),
        }

    def query(self, peer: Peer, query: m.Query, _frames: Sequence[Frame]) -> None:
        """Answer a client."""
        ask = self._answers.get(query.what)
        if ask is None:
            problem = f"this controller cannot tell {query.what!r}"
            self._actions.send(peer, m.Answer(query.request, "", problem))
        else:
            self._actions.send(peer, m.Answer(query.request, json.dumps(ask())))

    def _info(self) -> dict[str, object]:
        return {
            **self._identity,
            "clients": len(self._clients),
            "calls": sum(len(client.works) for client in self._clients.values()),
            **self._roster.progress(),
        }
