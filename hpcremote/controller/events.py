"""What the controller's machine is told, and what it answers. Pure.

::

    events                                          actions
    Opened   a peer's first message, and what       Send     a message to a peer
             the transport knows of it              Unlink   a shared-memory blob nobody will read
    Arrived  a message                              Log      a line for the log
    Lost     a peer's connection ended              Relaunch a set that is to be started again
    Tick     the deadline passed                    Back     it is there
    Prepared that can begin                         Forget   a severed peer that is not waited for any more
    Relaunched  it has come to its end              End      everything is done, the process may end
    Severed  nobody speaks for a peer any more      Inquire  a job whose scheduler is to be asked
    Rejoined somebody does again
    Inquired what that scheduler says
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import msgspec

from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame

Peer = Hashable


class Opened(NamedTuple):
    """A peer that was not here before. ``role``: what its keys allow ("client", "engine" or "any")."""

    peer: Peer
    role: str
    local: bool


class Arrived(NamedTuple):
    """A message from a peer."""

    peer: Peer
    message: m.AnyMessage
    frames: Sequence[Frame]


class Lost(NamedTuple):
    """A peer's connection ended; for an engine on this machine, how it died and its last output."""

    peer: Peer
    cause: str = ""
    output: str = ""


class Tick(NamedTuple):
    """Time passed."""


class Prepared(NamedTuple):
    """All is ready for the restart of a set: its engines may end."""

    set_id: str


class Relaunched(NamedTuple):
    """The restart of a set has come to its end; ``error`` says why it is not there, or is empty."""

    set_id: str
    error: str = ""


class Severed(NamedTuple):
    """The connection of the node agent that speaks for a peer ended."""

    peer: Peer


class Rejoined(NamedTuple):
    """There is a way to a severed peer again, and nothing was lost."""

    peer: Peer


class Inquired(NamedTuple):
    """What the scheduler says of a job whose engines went: how it ended, or nothing if it goes on.

    ``first`` is which rank ended first, by what started them: its number, or ``PID@HOST``, or nothing.
    """

    job: str
    words: str
    first: str = ""


class Send(msgspec.Struct, frozen=True, gc=False):  # a NamedTuple takes a Python call to make
    """Send this message, with these frames, to that peer."""

    peer: Peer
    message: m.AnyMessage
    frames: Sequence[Frame] = ()


class Unlink(NamedTuple):
    """Remove a blob that nobody will read any more."""

    blob: str


class Log(NamedTuple):
    """Say this in the log. ``complaint``: a peer did what it may not, and may do so often."""

    text: str
    complaint: bool = False


class Relaunch(NamedTuple):
    """End what is left of a set, and start it again in its place, within ``timeout`` seconds.

    ``mark``: what its processes carry in their environment; ``members``: host and pid of each rank; ``job``:
    which of the cluster's jobs they belong to, if any.
    """

    set_id: str
    mark: str
    size: int
    members: tuple[tuple[str, int], ...]
    timeout: float
    job: str = ""


class Inquire(NamedTuple):
    """Ask the scheduler what became of a job (named as its engines name it).

    ``over``: its time is, as far as we know, so that it ends even if the scheduler has not noticed yet.
    """

    job: str
    over: bool = False


class Back(NamedTuple):
    """A set that was started in the place of this one has registered."""

    set_id: str


class Forget(NamedTuple):
    """Keep nothing for a severed peer any more."""

    peer: Peer


class End(NamedTuple):
    """All that had to end has ended."""

    reason: str


Event = Opened | Arrived | Lost | Tick | Prepared | Relaunched | Severed | Rejoined | Inquired
Action = Send | Unlink | Log | Relaunch | Back | Forget | Inquire | End


class Actions:
    """What has to be done, in order, while an event is handled.

    Attributes:
        now: the time of that event.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._list: list[Action] = []

    def send(self, peer: Peer, message: m.AnyMessage, frames: Sequence[Frame] = ()) -> None:
        """Have *message* sent to *peer*."""
        self._list.append(Send(peer, message, frames))

    def unlink(self, blob: str) -> None:
        """Have a blob removed, if there is one."""
        if blob:
            self._list.append(Unlink(blob))

    def log(self, text: str, *, complaint: bool = False) -> None:
        """Have *text* logged."""
        self._list.append(Log(text, complaint))

    def relaunch(self, order: Relaunch) -> None:
        """Have a set started again."""
        self._list.append(order)

    def inquire(self, order: Inquire) -> None:
        """Have a scheduler asked."""
        self._list.append(order)

    def back(self, news: Back) -> None:
        """Tell who starts a set again that it is there."""
        self._list.append(news)

    def forget(self, peer: Peer) -> None:
        """Have nothing kept for a severed peer any more."""
        self._list.append(Forget(peer))

    def end(self, reason: str) -> None:
        """Have the process end."""
        self._list.append(End(reason))

    def take(self) -> list[Action]:
        """Return what was asked for since the last time."""
        taken, self._list = self._list, []
        return taken
