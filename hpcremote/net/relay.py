"""Ranks behind a node agent: many peers over one connection.

::

    agent ──bundle──▶ take_in() ─▶ [Came, Got, Went] of its lanes, as if each had a connection of its own
    agent ◀──bundle── parcel_out(): what is the same for several lanes is in it once, and is packed once

Only connections whose key is for engine's work may speak for others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hpcremote.net.happenings import Came, Got, Happening, Peer, Went
from hpcremote.wire.frames import Frame, FrameError, Parcel, pack, unpack
from hpcremote.wire.lanes import bundle, unbundle

#: Which roles may speak for ranks.
RELAYING = ("engine", "any")
#: For how many ranks one connection may speak: nobody has such nodes.
MOST_LANES = 65_536


class Lanes:
    """The lanes of all connections."""

    def __init__(self) -> None:
        self._open: dict[Peer, dict[int, Peer]] = {}

    def take_in(
        self, carrier: Peer, role: str, head: bytes, frames: Sequence[Any], happened: list[Happening]
    ) -> None:
        """Add what a bundle tells to *happened*.

        Raises:
            FrameError: it cannot be read, or is not allowed; what was understood before is in *happened*.
        """
        if role not in RELAYING:
            raise FrameError("the key of this connection is not for speaking for ranks")
        lanes = self._open.setdefault(carrier, {})
        for numbers, batch, share in unbundle(head, frames):
            if not batch:
                happened += [Went(peer) for number in numbers if (peer := lanes.pop(number, None))]
                continue
            parcels = unpack(batch, share)
            for number in numbers:
                peer = lanes.get(number)
                if peer is None:
                    peer = self._enter(carrier, lanes, number, role, happened)
                for message, payload in parcels:
                    happened.append(Got(peer, message, payload))

    def _enter(
        self, carrier: Peer, lanes: dict[int, Peer], number: int, role: str, happened: list[Happening]
    ) -> Peer:
        if not number or len(lanes) >= MOST_LANES:
            raise FrameError(f"no lane {number}: they begin at 1, and {MOST_LANES} are the most")
        peer = lanes[number] = Peer(carrier.local, carrier.name, number)
        happened.append(Came(peer, role, False))
        return peer

    def end(self, carrier: Peer) -> list[Happening]:
        """A connection has ended: return who went with it."""
        return [Went(peer) for peer in self._open.pop(carrier, {}).values()]


def parcel_out(
    outbox: Iterable[tuple[Peer, Sequence[Parcel]]],
) -> Iterator[tuple[Peer, list[Frame]]]:
    """Yield one ZeroMQ message for every connection that something is for: a batch, or a bundle.

    The same to several lanes (the same objects, that is: nothing is compared) is one entry.
    """
    entries: dict[Peer, dict[tuple[int, ...], tuple[list[int], list[Frame]]]] = {}
    packed: dict[tuple[int, ...], list[Frame]] = {}
    carriers: dict[tuple[bool, bytes], Peer] = {}
    for peer, parcels in outbox:
        if not peer.lane:
            yield peer, pack(parcels)
            continue
        if len(parcels) == 1:
            message, frames = parcels[0]
            key: tuple[int, ...] = (id(message), id(frames))
        else:
            key = tuple([id(one) for parcel in parcels for one in parcel])
        batch = packed.get(key)
        if batch is None:
            batch = packed[key] = pack(parcels)
        carrier = carriers.get(peer[:2])
        if carrier is None:
            carrier = carriers[peer[:2]] = Peer(peer.local, peer.name)
            entries[carrier] = {}
        entry = entries[carrier].get(key)
        if entry is None:
            entries[carrier][key] = ([peer.lane], batch)
        else:
            entry[0].append(peer.lane)
    for carrier, grouped in entries.items():
        yield carrier, bundle(grouped.values())
