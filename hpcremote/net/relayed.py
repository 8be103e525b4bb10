"""A rank's connection by way of its node's agent, which may die: the rank goes on with the next one.

::

    Stream to the agent ── ends ──▶ a thread looks for an agent, and starts one if there is none
            ▲                            │ found: what either end lacks is sent again (``wire/session.py``)
            └────────────────────────────┤
    ZmqTransport to the controller ◀─────┘ there is none: as if the connection had been made anew

While there is no way, what is sent is kept. Nobody above notices, but for the delay.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from hpcremote.errors import ConfigError, NotConnected
from hpcremote.net.connect import connect
from hpcremote.net.nodes import Node
from hpcremote.net.stream import Closed, Stream
from hpcremote.net.transport import Batch, Transport
from hpcremote.wire.frames import FrameError
from hpcremote.wire.session import Ack, Resume, Resumed, Session, decode, encode, is_control

#: How long an agent may take to come up when a rank starts, and when another one has ended, in seconds.
FIRST, NEXT = 15.0, 8.0
#: How long one that is there may take to have the controller's answer.
ANSWER = 5.0
#: So many that end at once are started.
TRIES = 3
#: How long the controller is given when there is no agent.
DIRECT = 5.0


class Way(NamedTuple):
    """A stream to an agent, the controller's answer, and what came behind it."""

    stream: Stream
    resumed: Resumed
    rest: list[Batch]


def find_agent(
    node: Node, uid: str, taken: int, patience: float, unwanted: Callable[[], bool] = lambda: False
) -> Way | None:
    """Go to the node's agent, started if there is none, or return None if there is none in time.

    Raises:
        OSError, ConfigError: no agent can be started.
    """
    deadline = time.monotonic() + patience
    started = 0
    pause = 0.005
    while time.monotonic() < deadline and not unwanted():
        if way := _try(node, uid, taken, deadline):
            return way
        if started < TRIES:
            started += node.ensure()
        elif (lock := node.take_lock()) is not None:  # they have all ended
            os.close(lock)
            return None
        time.sleep(pause)
        pause = min(0.1, pause * 1.3)
    return None


def _try(node: Node, uid: str, taken: int, deadline: float) -> Way | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream: Stream | None = None
    way: Way | None = None
    try:
        sock.settimeout(ANSWER)
        sock.connect(str(node.link))
        stream = Stream(sock, keep=True)
        stream.send([encode(Resume(uid, taken))])
        way = _await_answer(stream, min(deadline, time.monotonic() + ANSWER))
    except (OSError, Closed, FrameError):  # it is not there yet, or any more
        pass
    finally:
        if way is None:
            sock.close()
    return way


def _await_answer(stream: Stream, deadline: float) -> Way | None:
    readable = select.poll()
    readable.register(stream.fileno(), select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        readable.poll(left * 1000)
        if batches := stream.receive():
            (head, frames), *rest = batches
            word = decode(head, frames) if is_control(head) else None
            return Way(stream, word, rest) if isinstance(word, Resumed) else None
    return None


class RelayedTransport:
    """The connection of one rank; see the module's docstring.

    Args:
        node: where the agent is.
        uid: the rank's.
        way: an agent that has been found.

    Attributes:
        fds: what to poll for reading now.
    """

    final = False

    def __init__(self, node: Node, uid: str, way: Way) -> None:
        self._node = node
        self._uid = uid
        self._session: Session[list[bytes]] = Session()
        self._stream: Stream | None = None
        self._direct: Transport | None = None
        self._news: deque[Way | Transport | None] = deque()  # None: there is no way for now
        self._changes: list[bool] = []
        self._connected = True  # as far as has been told
        self._closed = False
        self._bell, self._button = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        weakref.finalize(self, _close_all, self._bell, self._button)  # the thread may be about to ring
        self.fds: tuple[int, ...] = ()
        self._early = self._go(way)
        self._changes.clear()

    @property
    def edges(self) -> bool:
        """Whether using the connection for anything may hide that something can be read."""
        return self._direct is not None and self._direct.edges

    # ------------------------------------------------------------ out

    def send(self, frames: Sequence[Any]) -> bool:
        """Send a batch, now or when there is a way again; return False if it will not be sent."""
        if self._direct is not None:
            return self._direct.send(frames)
        # It is kept until it has been taken, and who sent it may change it before.
        batch = [frame if type(frame) is bytes else bytes(frame) for frame in frames]
        self._session.add(batch)
        self._push(batch)
        return True

    def pass_on(self, frames: Sequence[Any]) -> bool:
        """Send a batch."""
        return self.send(frames)

    def _push(self, batch: Sequence[bytes]) -> None:
        if self._stream is not None:
            with contextlib.suppress(Closed):  # receive() meets the end
                self._stream.send(batch)

    @property
    def pending(self) -> bool:
        """Whether something waits until the descriptor is writable."""
        return self._stream is not None and self._stream.pending

    @property
    def waiting(self) -> int:
        """How many bytes wait."""
        return self._stream.waiting if self._stream is not None else 0

    def flush(self) -> None:
        """Send what waits."""
        if self._stream is not None:
            with contextlib.suppress(Closed):
                self._stream.flush()

    # ------------------------------------------------------------ in

    def receive(self, *, certain: bool) -> list[Batch]:
        """Return batches that are here; if the way ended, have another one looked for."""
        if self._early:
            early, self._early = self._early, []
            return early
        if self._news:
            return self._take_news()
        if self._direct is not None:
            return self._direct.receive(certain=certain)
        if not certain or self._stream is None:
            return []
        try:
            return self._taken(self._stream.receive())
        except Closed:
            self._stream.close()
            self._stream = None
            self.fds = (self._bell,)
            threading.Thread(target=self._look_for_a_way, name="hpcremote-relay", daemon=True).start()
            return []

    def _taken(self, batches: list[Batch]) -> list[Batch]:
        """Count what has come; return what is not about the session itself."""
        found = []
        due = False
        for batch in batches:
            head, frames = batch
            if is_control(head):
                word = decode(head, frames)
                if isinstance(word, Ack):
                    self._session.acknowledged(word.taken)
            else:
                due = self._session.take(sum(map(len, frames)) if frames else 0)
                found.append(batch)
        if due:
            self._push([self._session.ack()])
        return found

    def changes(self) -> list[bool]:
        """Return what became of the connection since the last time: False for broken, True for back."""
        changes, self._changes = self._changes, []
        return changes + self._direct.changes() if self._direct is not None else changes

    def stolen(self) -> bool:
        """Say whether there is something to read that no descriptor will tell of."""
        return self._direct is not None and self._direct.stolen()

    # ------------------------------------------------------------ from one way to the next

    def _look_for_a_way(self) -> None:
        """Find an agent, or the controller, however long it takes; the reader is told."""
        while not self._closed:
            found: Way | Transport | None = None
            with contextlib.suppress(OSError, ConfigError):  # then there is no agent
                found = find_agent(self._node, self._uid, self._session.taken, NEXT, lambda: self._closed)
            if found is None and not self._closed:
                with contextlib.suppress(NotConnected):
                    found = connect(self._node.connection, DIRECT).transport
            self._news.append(found)
            os.write(self._button, b"\1")
            if found is not None:
                return

    def _take_news(self) -> list[Batch]:
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell, 4096)
        news = self._news.popleft()
        if news is None:
            self._tell(connected=False)
            return []
        if isinstance(news, Way):
            return self._go(news)
        self._direct = news
        self.fds = news.fds
        self._tell(connected=False)
        self._tell(connected=True)
        return []

    def _go(self, way: Way) -> list[Batch]:
        """Go on by this way; return what has come by it."""
        self._stream = way.stream
        self.fds = (way.stream.fileno(),)
        if not way.resumed.known:  # we have been given up
            self._session = Session()
            self._tell(connected=False)
        again = self._session.lacking(way.resumed.taken)
        self._tell(connected=True)
        for batch in again:
            self._push(batch)
        return self._taken(way.rest)

    def _tell(self, *, connected: bool) -> None:
        if connected != self._connected:
            self._connected = connected
            self._changes.append(connected)

    def close(self, linger: float) -> None:
        """Close; what the kernel has will be delivered."""
        self._closed = True
        if self._stream is not None:
            self._stream.close()
        if self._direct is not None:
            self._direct.close(linger)
        for news in self._news:
            if isinstance(news, Way):
                news.stream.close()
            elif news is not None:
                news.close(0)


def _close_all(*fds: int) -> None:
    for fd in fds:
        os.close(fd)
