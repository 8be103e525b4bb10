"""What a channel runs on: a ZeroMQ DEALER between machines, a Unix stream on one.

Both look the same to :class:`hpcremote.net.channel.Channel`, which calls them with its lock held.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import zmq

from hpcremote.net.sockets import NOBLOCK, NOBLOCK_MORE, ZERO_COPY, more, readable, send
from hpcremote.net.stream import Closed, Stream

Batch = tuple[bytes, list[memoryview]]


class Transport(Protocol):
    """A connection to the controller."""

    @property
    def edges(self) -> bool:
        """Whether using the connection for anything may hide that something can be read (see stolen())."""

    @property
    def final(self) -> bool:
        """Whether its end is final."""

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors to poll for reading. The same tuple as long as they are the same."""

    def send(self, frames: Sequence[Any]) -> bool:
        """Send a batch; return False if there is no connection. Never blocks."""

    def pass_on(self, frames: Sequence[Any]) -> bool:
        """The same for frames that nobody will change: big ones are not copied, if that can be avoided."""

    @property
    def waiting(self) -> int:
        """How many bytes of big frames that were passed on have not gone out."""

    def receive(self, *, certain: bool) -> list[Batch]:
        """Return batches that are here, or none; *certain*: a descriptor has just fired."""

    def changes(self) -> list[bool]:
        """Return what became of the connection since the last time: False for broken, True for back."""

    @property
    def pending(self) -> bool:
        """Whether something waits until the descriptor is writable."""

    def flush(self) -> None:
        """Send what waits."""

    def stolen(self) -> bool:
        """Say whether there is something to read that no descriptor will tell of."""

    def close(self, linger: float) -> None:
        """Close, after at most *linger* seconds of sending what is on its way."""


class StreamTransport:
    """A Unix stream. Its end is final: the controller's process is gone."""

    edges = False
    final = True

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._alive = True
        self._changes: list[bool] = []
        self.fds: tuple[int, ...] = (stream.fileno(),)

    @property
    def pending(self) -> bool:
        """Whether something waits until the descriptor is writable."""
        return self._alive and bool(self._stream.backlog)

    def send(self, frames: Sequence[Any]) -> bool:
        """Send a batch; return False if the connection is gone."""
        if not self._alive:
            return False
        try:
            self._stream.send(frames)
        except Closed:
            # What the controller sent before it went is still there to be read; receive() meets the end.
            return False
        return True

    def pass_on(self, frames: Sequence[Any]) -> bool:
        """Send a batch that nobody will change."""
        return self.send(frames)

    @property
    def waiting(self) -> int:
        """How many bytes wait."""
        return self._stream.waiting

    def flush(self) -> None:
        """Send what waits."""
        with contextlib.suppress(Closed):
            self._stream.flush()

    def receive(self, *, certain: bool) -> list[Batch]:
        """Return batches that are here."""
        if not (certain and self._alive):
            return []
        try:
            return self._stream.receive()
        except Closed:
            self._end()
            return []

    def _end(self) -> None:
        self._alive = False
        self._changes.append(False)

    def changes(self) -> list[bool]:
        """Return ``[False]`` once, when the connection ended."""
        changes, self._changes = self._changes, []
        return changes

    def stolen(self) -> bool:
        """Return False: the descriptor tells as long as there is something."""
        return False

    def close(self, linger: float) -> None:
        """Close; what the kernel has will be delivered."""
        self._stream.close()


class ZmqTransport:
    """A DEALER and its monitor. ZeroMQ connects again by itself."""

    edges = True
    final = False

    def __init__(self, socket: zmq.Socket[bytes], monitor: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._monitor = monitor
        self._passing: deque[tuple[zmq.MessageTracker, int]] = deque()
        self.fds: tuple[int, ...] = (int(socket.getsockopt(zmq.FD)), int(monitor.getsockopt(zmq.FD)))

    @property
    def pending(self) -> bool:
        """Return False: ZeroMQ sends by itself."""
        return False

    def send(self, frames: Sequence[Any]) -> bool:
        """Send a batch; return False if there is no connection.

        Frames are copied: who sent them may change them as soon as this returns.
        """
        last = len(frames) - 1
        try:
            for index, frame in enumerate(frames):
                send(self._socket, frame, NOBLOCK if index == last else NOBLOCK_MORE)
        except zmq.Again:
            return False
        return True

    def pass_on(self, frames: Sequence[Any]) -> bool:
        """Send a batch that nobody will change; big frames are not copied."""
        last = len(frames) - 1
        try:
            for index, frame in enumerate(frames):
                flags = NOBLOCK if index == last else NOBLOCK_MORE
                if len(frame) < ZERO_COPY:
                    send(self._socket, frame, flags)
                else:
                    tracker = send(self._socket, frame, flags, copy=False, track=True)
                    self._passing.append((tracker, len(frame)))
        except zmq.Again:
            return False
        return True

    @property
    def waiting(self) -> int:
        """How many bytes of big frames that were passed on have not gone out."""
        passing = self._passing
        while passing and passing[0][0].done:
            passing.popleft()
        return sum(size for _, size in passing)

    def flush(self) -> None:
        """Do nothing: ZeroMQ sends by itself."""

    def receive(self, *, certain: bool) -> list[Batch]:
        """Return the next batch, or none."""
        if not (certain or readable(self._socket)):
            return []
        try:
            head = self._socket.recv(NOBLOCK)
        except zmq.Again:
            return []
        frames = []
        while more(self._socket):
            frames.append(self._socket.recv(NOBLOCK, copy=False).buffer)
        return [(head, frames)]

    def changes(self) -> list[bool]:
        """Return what the monitor saw."""
        changes = []
        while readable(self._monitor):
            event = int.from_bytes(self._monitor.recv_multipart(NOBLOCK)[0][:2], "little")
            if event == zmq.EVENT_DISCONNECTED:
                changes.append(False)
            elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                changes.append(True)
        return changes

    def stolen(self) -> bool:
        """Say whether there is something to read: the descriptor fires once for it, whoever looked."""
        return readable(self._socket)

    def close(self, linger: float) -> None:
        """Close both sockets."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))
