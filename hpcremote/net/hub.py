"""The controller's sockets as one thing: peers come, send messages, and go.

::

    local peers  ──ipc──────▶ ROUTER ┐
    remote peers ──tcp,CURVE▶ ROUTER ┼─▶ poll() ─▶ [Came, Got, Went] in the order in which they happened
                     ZAP ───▶ REP    ┤
    monitors ────────────────▶ PAIR  ┘

A ROUTER names its connections itself, so no peer can choose, guess or take over another's name. What
a connection's key allows (ZAP's user id) is read from the first message and bound to that name.

A peer's departure is seen by its connection: the monitor names the file descriptor, and the first
message of every peer told which one is its. What a peer sent before it went is delivered first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import zmq

from hpcremote.errors import ConfigError
from hpcremote.net.keys import ZAP_ENDPOINT, Admission, KeyPair, RateLimit
from hpcremote.net.sockets import local_router, readable, remote_router
from hpcremote.wire.frames import FrameError, Parcel, pack, unpack

_log = logging.getLogger("hpcremote.controller")

#: At most this many ZeroMQ messages are taken from one socket before the others have their turn.
TURN = 256
#: Payload frames from this size on are sent without a copy.
ZERO_COPY = 65_536
# Plain numbers: arithmetic on the enums costs more than the calls that take them.
_NOBLOCK = int(zmq.NOBLOCK)
_NOBLOCK_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


class Peer(NamedTuple):
    """A connection: which socket, and the name that the ROUTER gave it."""

    socket: int
    name: bytes


class Came(NamedTuple):
    """A connection's first message is about to follow."""

    peer: Peer
    role: str
    local: bool


class Got(NamedTuple):
    """A message."""

    peer: Peer
    parcel: Parcel


class Went(NamedTuple):
    """A connection ended."""

    peer: Peer


Happening = Came | Got | Went


class Hub:
    """All sockets of the controller.

    Args:
        keys: the controller's own CURVE keys.
        admission: decides which keys may come and what they are for.
        local: address of the local endpoint ("ipc://..."), or "".
    """

    def __init__(self, keys: KeyPair, admission: Admission, local: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, 4096)
        self._admission = admission
        self._garbage = RateLimit()
        self._known: dict[Peer, int] = {}
        self._by_fd: dict[tuple[int, int], Peer] = {}
        self._went: list[Peer] = []
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind(ZAP_ENDPOINT)
        self._routers = [remote_router(self._context, keys)]
        if local:
            self._routers.append(local_router(self._context, local))
        self._monitors = [
            router.get_monitor_socket(zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
            for router in self._routers
        ]
        self._touched = set(range(len(self._routers)))
        self._zap_fd = _fd(self._zap)
        self._router_fds = [_fd(router) for router in self._routers]
        self._monitor_fds = [_fd(monitor) for monitor in self._monitors]
        self._poll = select.epoll()
        for fd in (self._wake_read, self._zap_fd, *self._router_fds, *self._monitor_fds):
            self._poll.register(fd, select.EPOLLIN)

    @property
    def wake_fd(self) -> int:
        """A descriptor; a byte written to it makes :meth:`poll` return."""
        return self._wake_write

    def bind(self, host: str, port: int) -> int:
        """Listen for remote peers on *host*; return the port (chosen by the system if *port* is 0).

        Raises:
            ConfigError: the port is taken, or the address is not of this machine.
        """
        place = f"[{host}]" if ":" in host else host
        try:
            self._routers[0].bind(f"tcp://{place}:{port or '*'}")
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot listen on {host} port {port or 'any'}: {error.strerror}") from None
        return int(self._routers[0].getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").rpartition(b":")[2])

    # ------------------------------------------------------------ what happens

    def poll(self, timeout: float | None) -> list[Happening]:
        """Wait for at most *timeout* seconds for something to happen, and return it (or nothing)."""
        happened: list[Happening] = []
        # Whatever used a socket since may have consumed the edge of its descriptor.
        for index in self._touched:
            if readable(self._routers[index]):
                self._read(index, happened)
        if happened:
            return happened
        self._touched.clear()
        fired = {fd for fd, _ in self._poll.poll(timeout)}
        if self._wake_read in fired:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        if self._zap_fd in fired:
            self._answer_zap()
        if not fired.isdisjoint(self._monitor_fds):
            self._read_monitors()
            self._touched.update(range(len(self._routers)))
            fired.update(self._router_fds)
        for index, fd in enumerate(self._router_fds):
            if fd in fired:
                self._touched.add(index)
                if readable(self._routers[index]):
                    self._read(index, happened)
        self._report_departures(happened)
        return happened

    def _report_departures(self, happened: list[Happening]) -> None:
        went, self._went = self._went, []
        for peer in went:
            if readable(self._routers[peer.socket]):
                self._went.append(peer)  # what it sent before it went comes first
                self._nudge()
            elif self._known.pop(peer, None) is not None:
                happened.append(Went(peer))

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\1")

    def _read(self, index: int, happened: list[Happening]) -> None:
        """Take what is there from a router that has something."""
        router = self._routers[index]
        for _ in range(TURN):
            peer = Peer(index, router.recv(_NOBLOCK))
            head = router.recv(_NOBLOCK, copy=False)
            frames = []
            more = head.more
            while more:
                frame = router.recv(_NOBLOCK, copy=False)
                frames.append(frame)
                more = frame.more
            if peer not in self._known:
                happened.append(self._introduce(peer, head))
            try:
                happened += [Got(peer, parcel) for parcel in unpack(head.bytes, frames)]
            except FrameError as error:
                if words := self._garbage.admit(time.monotonic(), f"unreadable message ignored: {error}"):
                    _log.warning(words)
            if not readable(router):
                return

    def _introduce(self, peer: Peer, head: zmq.Frame) -> Came:
        # Departures that were noticed before this message must not be taken for this connection's,
        # which may have been given the same descriptor.
        self._read_monitors()
        fd = int(head.get(zmq.SRCFD))
        self._known[peer] = fd
        self._by_fd[peer.socket, fd] = peer
        local = peer.socket == 1
        role = "any" if local else str(head.get("User-Id"))
        return Came(peer, role, local)

    def _answer_zap(self) -> None:
        while readable(self._zap):
            request = self._zap.recv_multipart(zmq.NOBLOCK)
            verdict = self._admission.answer(request, time.monotonic())
            if verdict.log:
                _log.warning(verdict.log)
            self._zap.send_multipart(verdict.frames)

    def _read_monitors(self) -> None:
        for index, monitor in enumerate(self._monitors):
            while readable(monitor):
                event = monitor.recv_multipart(zmq.NOBLOCK)[0]
                if int.from_bytes(event[:2], "little") != zmq.EVENT_DISCONNECTED:
                    continue
                if peer := self._by_fd.pop((index, int.from_bytes(event[2:6], "little")), None):
                    self._went.append(peer)

    # ------------------------------------------------------------ sending

    def send(self, peer: Peer, parcels: Sequence[Parcel]) -> None:
        """Send a batch to *peer*; one that has gone gets nothing (its departure is reported by poll)."""
        router = self._routers[peer.socket]
        self._touched.add(peer.socket)
        frames = pack(parcels)
        last = len(frames) - 1
        try:
            router.send(peer.name, _NOBLOCK_MORE)
            for index, frame in enumerate(frames):
                big = index > 0 and (isinstance(frame, zmq.Frame) or len(frame) >= ZERO_COPY)
                router.send(frame, _NOBLOCK if index == last else _NOBLOCK_MORE, copy=not big)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def close(self, linger: float) -> None:
        """Send what is on its way, for at most *linger* seconds, and close everything."""
        for router in self._routers:
            router.disable_monitor()
        for monitor in self._monitors:
            monitor.close(0)
        self._zap.close(0)
        for router in self._routers:
            router.close(int(linger * 1000))
        self._poll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._context.term()


def _fd(socket: zmq.Socket[Any]) -> int:
    return int(socket.getsockopt(zmq.FD))
