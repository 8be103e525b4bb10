"""A client's connection that goes on when it breaks: as a tunnel's does that is made again.

::

    ZmqTransport connects again by itself ──Resume──▶ controller: what either end lacks is sent again
                                                                  (``wire/session.py``)

It is one lane of its own connection (``relay.py``). While there is no connection, what is sent is kept, and
nobody above notices but for the delay; after ``patience`` seconds it counts as broken.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from hpcremote.net.transport import Batch, Transport
from hpcremote.wire.frames import Frame
from hpcremote.wire.lanes import bundle, is_bundle, unbundle
from hpcremote.wire.session import Ack, Resume, Resumed, Session, decode, encode, is_control

#: Our only lane.
_LANE = 1
#: When a tunnel is there and nobody at its other end so many times running, for so long, nobody will be.
REFUSALS, REFUSED_FOR = 8, 5.0


class ResumingTransport:
    """The connection of one client; see the module's docstring.

    Args:
        inner: an open connection that comes back by itself.
        uid: names the session.
        patience: seconds that it may stay away.
    """

    edges = True
    final = False

    def __init__(self, inner: Transport, uid: str, patience: float) -> None:
        self._inner = inner
        self._uid = uid
        self._patience = patience
        self._session: Session[list[bytes]] = Session()
        self._flowing = False  # the controller has said where we are
        self._begun = False  # ... at least once
        self._away: float | None = None  # since when the connection is
        self._refusals = 0  # how often it has ended in a row, without having been there
        self._over = False
        self._changes: list[bool] = []
        self._early: list[Batch] = []  # what has been read, and not been returned
        self.fds = inner.fds
        self._resume()

    def _resume(self) -> None:
        self._flowing = False
        self._pass([encode(Resume(self._uid, self._session.taken))])

    def _pass(self, batch: Sequence[Frame]) -> bool:
        return self._inner.send(bundle([([_LANE], batch)]))

    # ------------------------------------------------------------ out

    def send(self, frames: Sequence[Any]) -> bool:
        """Send a batch, now or when the connection is back; return False if it will not be sent."""
        if self._over:
            return False
        # It is kept until it has been taken, and who sent it may change it before.
        batch = [frame if type(frame) is bytes else bytes(frame) for frame in frames]
        self._session.add(batch)
        if self._flowing:
            self._pass(batch)
        return True

    def pass_on(self, frames: Sequence[Any]) -> bool:
        """Send a batch."""
        return self.send(frames)

    @property
    def pending(self) -> bool:
        """Return False: ZeroMQ sends by itself."""
        return False

    @property
    def waiting(self) -> int:
        """How many bytes wait to go out."""
        return self._inner.waiting

    def flush(self) -> None:
        """Do nothing: ZeroMQ sends by itself."""

    # ------------------------------------------------------------ in

    def receive(self, *, certain: bool) -> list[Batch]:
        """Return the next batches, or none."""
        if self._early:
            early, self._early = self._early, []
            return early
        return self._next(certain)

    def _next(self, certain: bool) -> list[Batch]:
        while batches := self._inner.receive(certain=certain):
            certain = False  # a bundle may hold nothing for those above, and hide what is behind it
            found = [one for head, frames in batches for one in self._open(head, frames)]
            if found:
                return found
        return []

    def _open(self, head: bytes, frames: Sequence[Any]) -> list[Batch]:
        if not is_bundle(head):  # what the controller refuses, it says without one
            return [(head, list(frames))]
        found: list[Batch] = []
        due = False
        for _, batch, share in unbundle(head, frames):
            if not batch:  # the controller ends
                self._end()
            elif is_control(batch):
                self._hear(decode(batch, share))
            else:
                due = self._session.take(sum(map(len, share))) or due
                found.append((batch, list(share)))
        if due and self._flowing:
            self._pass([self._session.ack()])
        return found

    def _hear(self, word: Resume | Resumed | Ack) -> None:
        if isinstance(word, Ack):
            self._session.acknowledged(word.taken)
        elif isinstance(word, Resumed):
            if not word.known and self._begun:  # it has given us up
                self._end()
                return
            self._begun = self._flowing = True
            for batch in self._session.lacking(word.taken):
                self._pass(batch)

    # ------------------------------------------------------------ coming and going

    def changes(self) -> list[bool]:
        """Return ``[False]`` once, when the connection has been away for too long, or we were given up."""
        for connected in self._inner.changes():
            if connected:
                self._away, self._refusals = None, 0
                # What still came by the old connection has to be counted first. (The answer wakes us.)
                while more := self._next(certain=False):
                    self._early += more
                self._resume()
            else:
                self._flowing = False
                self._refusals += 1
                self._away = self._away or time.monotonic()
        # ZeroMQ tells of every attempt, so this is asked every few seconds.
        if self._away is not None:
            seconds = time.monotonic() - self._away
            if seconds > self._patience or (self._refusals > REFUSALS and seconds > REFUSED_FOR):
                self._end()
        changes, self._changes = self._changes, []
        return changes

    def _end(self) -> None:
        self._flowing = False
        if not self._over:
            self._over = True
            self._changes.append(False)

    def stolen(self) -> bool:
        """Say whether there is something to read that no descriptor will tell of."""
        return self._inner.stolen()

    def close(self, linger: float) -> None:
        """Say that we do not come back, and close."""
        if not self._over:
            self._inner.send(bundle([([_LANE], [])]))
        self._inner.close(linger)
