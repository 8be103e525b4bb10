"""Clients whose connection broke and who may come back: what they asked for goes on meanwhile. Pure.

Only clients with a session can (``net/resuming.py``); what is for them is kept by ``net/relay.py``.
"""

from __future__ import annotations

from hpcremote.controller.events import Actions, Peer

#: How long they may stay away, in seconds. A client gives up sooner.
PATIENCE = 90.0


class Absent:
    """The clients that are away."""

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._until: dict[Peer, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def due(self) -> float | None:
        """Return when the next one has been away for too long, or None."""
        return min(self._until.values()) if self._until else None

    def left(self, peer: Peer, name: str) -> None:
        """A client's connection broke."""
        self._until[peer] = self._actions.now + PATIENCE
        self._actions.log(f"{name} is away: its connection broke, and it may come back")

    def back(self, peer: Peer, name: str) -> None:
        """It is back, or has said that it ends."""
        if self._until.pop(peer, None) is not None:
            self._actions.log(f"{name} is back")

    def forget(self, peer: Peer) -> None:
        """It has ended."""
        self._until.pop(peer, None)

    def overdue(self) -> list[Peer]:
        """Return those that have been away for too long, and forget them."""
        gone = [peer for peer, until in self._until.items() if self._actions.now >= until]
        for peer in gone:
            del self._until[peer]
        return gone
