"""Ranks behind a node agent: many peers over one connection.

::

    agent ──bundle──▶ take_in() ─▶ [Came, Got, Went] of its lanes, as if each had a connection of its own
    agent ◀──bundle── parcel_out(): what is the same for several lanes is in it once, and is packed once

    agent's connection ends ─▶ Severed: who is behind it may live ──Resume by another agent──▶ Rejoined
                                                                  └─ forget(): nobody waits any more

A rank keeps its :class:`Peer` over all of this: to those who talk to it nothing has happened. Only
connections whose key is for engine's work may speak for others. A client may have one lane, its own: that is
how it goes on when its connection breaks (``resuming.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hpcremote.ids import is_uid
from hpcremote.net.happenings import Came, Got, Happening, Peer, Rejoined, Severed, Went
from hpcremote.wire import session as s
from hpcremote.wire.frames import Frame, FrameError, Parcel, pack, unpack
from hpcremote.wire.lanes import bundle, unbundle

#: For how many one connection may speak, by its role: nobody has such nodes, and a client is itself.
MOST_LANES = {"engine": 65_536, "any": 65_536, "client": 1}
_WELCOME = [s.encode(s.Resumed(0, known=False))]


@dataclass(slots=True)
class Lane:
    """A rank, and the way to it: a connection and its number there; None while there is no way."""

    peer: Peer
    route: Peer | None
    uid: str = ""
    role: str = ""
    session: s.Session[Sequence[Parcel]] | None = None


class Bundle:
    """What goes to the lanes of one connection.

    Args:
        carrier: the connection.

    Attributes:
        entries: lanes and the batch that is for them, by which objects it is made of.
    """

    def __init__(self, carrier: Peer) -> None:
        self.carrier = carrier
        self.entries: dict[tuple[int, ...], tuple[list[int], list[Frame]]] = {}

    def lanes_of(self, parcels: Sequence[Parcel], packed: dict[tuple[int, ...], list[Frame]]) -> list[int]:
        """Return the lanes that these parcels are for, to be added to. *packed*: what others have packed."""
        if len(parcels) == 1:
            message, frames = parcels[0]
            key: tuple[int, ...] = (id(message), id(frames))
        else:
            key = tuple([id(one) for parcel in parcels for one in parcel])
        entry = self.entries.get(key)
        if entry is None:
            batch = packed.get(key)
            if batch is None:
                batch = packed[key] = pack(parcels)
            entry = self.entries[key] = ([], batch)
        return entry[0]


class Lanes:
    """The lanes of all connections.

    Attributes:
        answers: batches that have to be sent to these lanes before anything else.
    """

    def __init__(self) -> None:
        self._open: dict[Peer, dict[int, Lane | None]] = {}  # None: who was there is elsewhere now
        self._by_peer: dict[Peer, Lane] = {}
        self._by_uid: dict[str, Lane] = {}
        self.answers: list[tuple[Peer, Sequence[Frame]]] = []

    # ------------------------------------------------------------ in

    def take_in(
        self, carrier: Peer, role: str, head: bytes, frames: Sequence[Any], happened: list[Happening]
    ) -> None:
        """Add what a bundle tells to *happened*.

        Raises:
            FrameError: it is not allowed, or something in it cannot be read; the rest is in *happened*.
        """
        if role not in MOST_LANES:
            raise FrameError("the key of this connection is not for speaking for ranks")
        lanes = self._open.setdefault(carrier, {})
        wrong: FrameError | None = None
        for numbers, batch, share in unbundle(head, frames):
            try:
                if not batch:
                    happened += [Went(peer) for number in numbers if (peer := self._close(lanes, number))]
                elif s.is_control(batch):
                    word = s.decode(batch, share)
                    for number in numbers:
                        self._hear(Peer(carrier.local, carrier.name, number), role, word, happened)
                else:
                    self._hand_on(lanes, numbers, batch, share, happened)
            except FrameError as error:  # others are not to lose what is theirs
                wrong = wrong or error
        if wrong is not None:
            raise wrong

    def _hand_on(
        self,
        lanes: dict[int, Lane | None],
        numbers: Sequence[int],
        batch: bytes,
        share: Sequence[Any],
        happened: list[Happening],
    ) -> None:
        size = sum(map(len, share)) if share else 0
        senders = []
        unopened = False
        for number in numbers:
            lane = lanes.get(number)
            if lane is None:
                unopened = unopened or number not in lanes
                continue
            senders.append(lane.peer)
            if lane.session is not None and lane.session.take(size) and lane.route:
                self.answers.append((lane.route, [lane.session.ack()]))
        parcels = unpack(batch, share)
        append = happened.append
        for peer in senders:  # as a rule one message of one
            for message, payload in parcels:
                append(Got(peer, message, payload))
        if unopened:
            raise FrameError("a message of a lane that has not been opened")

    def _hear(self, route: Peer, role: str, word: s.Control, happened: list[Happening]) -> None:
        lanes = self._open[Peer(route.local, route.name)]
        lane = lanes.get(route.lane)
        if isinstance(word, s.Ack):
            if lane is not None and lane.session is not None:
                lane.session.acknowledged(word.taken)
        elif isinstance(word, s.Resume):
            if not route.lane or len(lanes) >= MOST_LANES[role]:
                raise FrameError(
                    f"no lane {route.lane}: they begin at 1, and {MOST_LANES[role]} are the most"
                )
            if route.lane in lanes or not (is_uid(word.session) or not word.session):
                raise FrameError("a lane is opened once, by a rank")
            if role == "client" and not word.session:
                raise FrameError("a client's lane is its own, with a session")
            self._enter(lanes, route, role, word, happened)

    def _enter(
        self,
        lanes: dict[int, Lane | None],
        route: Peer,
        role: str,
        word: s.Resume,
        happened: list[Happening],
    ) -> None:
        lane = self._by_uid.get(word.session)
        if lane is not None and lane.role != role:
            raise FrameError("a session of another role")
        if lane is not None and lane.session is not None:
            again = lane.session.lacking(word.taken)
            if lane.route is not None:  # its connection has ended, which we have not heard yet
                self._open[Peer(lane.route.local, lane.route.name)][lane.route.lane] = None
            else:
                happened.append(Rejoined(lane.peer))
            lane.route = route
            self.answers.append((route, [s.encode(s.Resumed(lane.session.taken, known=True))]))
            self.answers += [(route, pack(parcels)) for parcels in again]
        else:
            lane = self._by_peer[route] = Lane(route, route, word.session, role)
            if word.session:
                lane.session = s.Session()
                self._by_uid[word.session] = lane
                self.answers.append((route, _WELCOME))
            happened.append(Came(route, role, False))
        lanes[route.lane] = lane

    # ------------------------------------------------------------ out

    def parcel_out(
        self, outbox: Iterable[tuple[Peer, Sequence[Parcel]]]
    ) -> Iterator[tuple[Peer, list[Frame]]]:
        """Yield one message for every connection that something can be sent by: a batch, or a bundle.

        What is for a lane without a way waits, if its receiver may come. The same to several lanes (the same
        objects, that is: nothing is compared) is one entry of a bundle.
        """
        bundles: dict[bytes, Bundle] = {}
        packed: dict[tuple[int, ...], list[Frame]] = {}
        latest: Sequence[Parcel] = ()
        numbers: list[int] = []
        way = b""
        for peer, parcels in outbox:
            if not peer.lane:
                yield peer, pack(parcels)
                continue
            lane = self._by_peer.get(peer)
            if lane is None:
                continue
            if lane.session is not None:
                lane.session.add(parcels)
            if lane.route is None:
                continue
            local, name, number = lane.route
            # As a rule it is the same as before, for the next rank of a node.
            if parcels is not latest or name is not way:
                latest, way = parcels, name
                if (found := bundles.get(name)) is None:
                    found = bundles[name] = Bundle(Peer(local, name))
                numbers = found.lanes_of(parcels, packed)
            numbers.append(number)
        for one in bundles.values():
            yield one.carrier, bundle(one.entries.values())

    def take_answers(self) -> Iterator[tuple[Peer, list[Frame]]]:
        """Yield one bundle of answers for every connection that has some; they are given once."""
        answers, self.answers = self.answers, []
        by_carrier: dict[Peer, list[tuple[list[int], Sequence[Frame]]]] = {}
        for route, batch in answers:
            entries = by_carrier.setdefault(Peer(route.local, route.name), [])
            if entries and entries[-1][1] == batch:  # many ranks begin at once
                entries[-1][0].append(route.lane)
            else:
                entries.append(([route.lane], batch))
        for carrier, entries in by_carrier.items():
            yield carrier, bundle(entries)

    # ------------------------------------------------------------ the end

    def farewell(self) -> Iterator[tuple[Peer, list[Frame]]]:
        """Yield what tells clients that we end, so that they do not look for another way to us."""
        for lane in self._by_peer.values():
            if lane.role == "client" and lane.route is not None:
                yield Peer(lane.route.local, lane.route.name), bundle([([lane.route.lane], [])])

    def _close(self, lanes: dict[int, Lane | None], number: int) -> Peer | None:
        lane = lanes.pop(number, None)
        if lane is None:
            return None
        self.forget(lane.peer)
        return lane.peer

    def end(self, carrier: Peer) -> list[Happening]:
        """A connection has ended: return what becomes of those behind it."""
        happened: list[Happening] = []
        for lane in self._open.pop(carrier, {}).values():
            if lane is None:
                continue
            if lane.session is None:
                self.forget(lane.peer)
                happened.append(Went(lane.peer))
            else:
                lane.route = None
                happened.append(Severed(lane.peer))
        return happened

    def forget(self, peer: Peer) -> None:
        """Do not wait for this one any more."""
        if (lane := self._by_peer.pop(peer, None)) and self._by_uid.get(lane.uid) is lane:
            del self._by_uid[lane.uid]
