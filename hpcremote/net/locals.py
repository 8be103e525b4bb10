"""The controller's end of local connections: a listening Unix socket and a stream for every peer.

Who connects has to be the same user, by the kernel's word (``SO_PEERCRED``), besides being able to
enter the folder that the socket lies in.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

from hpcremote.errors import ConfigError
from hpcremote.net.stream import Batch, Closed, Stream
from hpcremote.wire.frames import FrameError

_CREDENTIALS = struct.Struct("3i")
#: A peer has stalled for which this many bytes wait, and which has read nothing for this many seconds.
MOST_WAITING = 1 << 30
STILL = 30.0
#: At most this many reads from one peer before the others have their turn.
TURN = 16


class Locals:
    """Local peers on an epoll object that belongs to the hub.

    Args:
        poll: where descriptors are registered.
        path: of the listening socket; nothing must be there.

    Attributes:
        stalled: peers that do not read, and for which very much waits.

    Raises:
        ConfigError: the socket cannot be made.
    """

    def __init__(self, poll: select.epoll, path: str) -> None:
        self._poll = poll
        self._names = itertools.count(1)
        self._peers: dict[int, tuple[bytes, Stream]] = {}
        self._streams: dict[bytes, Stream] = {}
        self._reading = select.EPOLLIN  # or 0
        self.stalled: set[bytes] = set()
        self._moved: dict[bytes, float] = {}  # when a peer for which something waits last read something
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(path)
            self._listener.listen(4096)
        except OSError as error:
            self._listener.close()
            raise ConfigError(f"cannot make the local socket {path}: {error.strerror}") from None
        self._listener_fd = self._listener.fileno()
        poll.register(self._listener_fd, select.EPOLLIN)

    @property
    def listener(self) -> int:
        """The listening socket's descriptor."""
        return self._listener_fd

    # ------------------------------------------------------------ in

    def accept(self) -> list[tuple[int, bytes]]:
        """Take in who waits; return their descriptors and names."""
        names: list[tuple[int, bytes]] = []
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:  # nobody waits any more; or we are out of descriptors, and they wait on
                return names
            _, uid, _ = _CREDENTIALS.unpack(
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            )
            if uid not in (os.geteuid(), 0):
                sock.close()
                continue
            stream = Stream(sock, keep=True)
            name = next(self._names).to_bytes(8, "big")
            self._peers[stream.fileno()] = (name, stream)
            self._streams[name] = stream
            self._poll.register(stream.fileno(), self._reading)
            names.append((stream.fileno(), name))

    def read(self, fd: int, events: int) -> tuple[list[Batch], str | None]:
        """Return what a peer sent, and None, or why its connection ended ("": the ordinary way)."""
        name, stream = self._peers[fd]
        if events & select.EPOLLOUT:
            self._flush(name, stream)
            if events == select.EPOLLOUT:
                return [], None
        batches: list[Batch] = []
        try:
            for _ in range(TURN):
                more = stream.receive()
                batches += more
                if len(more) < 2:  # the kernel had no more, most likely
                    break
        except (Closed, FrameError) as error:
            self._forget(fd, name, stream)
            return batches, "" if isinstance(error, Closed) else str(error)
        return batches, None

    def pause(self, paused: bool) -> None:
        """Read nothing from anybody who lives, or go on reading."""
        self._reading = 0 if paused else select.EPOLLIN
        for fd, (_, stream) in self._peers.items():
            self._poll.modify(fd, self._reading | (select.EPOLLOUT if stream.pending else 0))

    # ------------------------------------------------------------ out

    def send(self, name: bytes, frames: Sequence[Any]) -> None:
        """Send a batch to a peer; one that is gone gets nothing."""
        stream = self._streams.get(name)
        if stream is None:
            return
        waited = bool(stream.backlog)
        try:
            stream.send(frames)
        except Closed:  # its end is met when it is read
            return
        if stream.backlog and not waited:
            self._moved[name] = time.monotonic()
            self._poll.modify(stream.fileno(), self._reading | select.EPOLLOUT)
        elif waited and stream.waiting > MOST_WAITING and time.monotonic() - self._moved[name] > STILL:
            self.stalled.add(name)

    def cut(self, name: bytes) -> None:
        """End a peer's connection, whether it reads or not; that it ended is met when it is read."""
        if stream := self._streams.get(name):
            stream.cut()
            self.stalled.discard(name)

    def _flush(self, name: bytes, stream: Stream) -> None:
        self._moved[name] = time.monotonic()
        with contextlib.suppress(Closed):
            stream.flush()
        if not stream.pending:
            self._poll.modify(stream.fileno(), self._reading)

    # ------------------------------------------------------------ the end

    def _forget(self, fd: int, name: bytes, stream: Stream) -> None:
        self._poll.unregister(fd)
        del self._peers[fd]
        del self._streams[name]
        self.stalled.discard(name)
        self._moved.pop(name, None)
        stream.close()

    def close(self, linger: float) -> None:
        """Send what waits, for at most *linger* seconds, and close everything."""
        deadline = time.monotonic() + linger
        for _, stream in self._peers.values():
            self._finish(stream, deadline)
            stream.close()
        self._peers.clear()
        self._streams.clear()
        self._listener.close()

    def _finish(self, stream: Stream, deadline: float) -> None:
        writable = select.poll()
        writable.register(stream.fileno(), select.POLLOUT)
        with contextlib.suppress(Closed):
            while stream.pending and (left := deadline - time.monotonic()) > 0:
                writable.poll(left * 1000)
                stream.flush()
