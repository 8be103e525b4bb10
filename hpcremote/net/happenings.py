"""What the controller's sockets tell: who came, what they said, who went (see ``hub.py``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from hpcremote.wire.frames import Frame
from hpcremote.wire.messages import AnyMessage


class Peer(NamedTuple):
    """Somebody to talk to.

    ``local``: over a Unix stream; ``name``: ours for the connection, never used again; ``lane``: 0 is who
    made the connection, other numbers are ranks that it speaks for.
    """

    local: bool
    name: bytes
    lane: int = 0


class Came(NamedTuple):
    """A peer's first message is about to follow."""

    peer: Peer
    role: str
    local: bool


class Got(msgspec.Struct, frozen=True, gc=False):  # a NamedTuple takes a Python call to make
    """A message."""

    peer: Peer
    message: AnyMessage
    frames: Sequence[Frame]


class Went(NamedTuple):
    """A peer's connection ended."""

    peer: Peer


class Severed(NamedTuple):
    """The connection of who speaks for a peer ended; the peer itself may come back, and waits for nothing."""

    peer: Peer


class Rejoined(NamedTuple):
    """A severed peer is back, and has lost nothing."""

    peer: Peer


Happening = Came | Got | Went | Severed | Rejoined
