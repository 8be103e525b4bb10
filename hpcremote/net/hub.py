"""The controller's sockets as one thing: peers come, send messages, and go.

::

    remote peers ──tcp, CURVE──▶ ROUTER, its monitor, ZAP ┐
                                                          ├─▶ poll() ─▶ [Came, Got, Went], in order
    local peers  ──Unix streams─▶ one descriptor each ────┘

A ROUTER names its connections itself, so no peer can choose, guess or take over another's name. What
a connection's key allows (ZAP's user id) is read from the first message and bound to that name.

A remote peer's departure is seen by its connection: the monitor names the file descriptor, and the
first message of every peer told which one is its. What a peer sent before it went is delivered first.

Local peers are in ``locals.py``: processes of the same user, as the kernel says.
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
from hpcremote.net.connect import LOCAL
from hpcremote.net.keys import ZAP_ENDPOINT, Admission, KeyPair, RateLimit
from hpcremote.net.locals import Locals
from hpcremote.net.sockets import NOBLOCK, NOBLOCK_MORE, readable, remote_router
from hpcremote.wire.frames import FrameError, Parcel, pack, unpack

_log = logging.getLogger("hpcremote.controller")

#: At most this many ZeroMQ messages are taken from one socket before the others have their turn.
TURN = 256
#: Payload frames from this size on are sent without a copy.
ZERO_COPY = 65_536
class Peer(NamedTuple):
    """A connection. ``local``: a Unix stream; ``name``: ours for it, never used again."""

    local: bool
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
        self._admission = admission
        self._garbage = RateLimit()
        self._known: set[bytes] = set()  # remote peers that were introduced
        self._by_fd: dict[int, bytes] = {}
        self._went: list[bytes] = []
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind(ZAP_ENDPOINT)
        self._router = remote_router(self._context, keys)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._touched = True  # the router was used since it was last looked at
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.epoll()
        self._router_fd, self._zap_fd, self._monitor_fd = map(_fd, (self._router, self._zap, self._monitor))
        for fd in (self._wake_read, self._zap_fd, self._router_fd, self._monitor_fd):
            self._poll.register(fd, select.EPOLLIN)
        self._locals = Locals(self._poll, local.removeprefix(LOCAL)) if local else None

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
            self._router.bind(f"tcp://{place}:{port or '*'}")
        except zmq.ZMQError as error:
            raise ConfigError(f"cannot listen on {host} port {port or 'any'}: {error.strerror}") from None
        return int(self._router.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").rpartition(b":")[2])

    # ------------------------------------------------------------ what happens

    def poll(self, timeout: float | None) -> list[Happening]:
        """Wait for at most *timeout* seconds for something to happen, and return it (or nothing)."""
        happened: list[Happening] = []
        # Whatever used the router since may have consumed the edge of its descriptor.
        if self._touched:
            self._touched = False
            if readable(self._router):
                self._read(happened)
                timeout = 0
        for fd, events in self._poll.poll(timeout):
            if self._locals is not None and self._locals.has(fd):
                self._read_local(fd, events, happened)
            else:
                self._on_own(fd)
        if self._touched:
            self._touched = False
            if readable(self._router):
                self._read(happened)
            self._report_departures(happened)
        return happened

    def _on_own(self, fd: int) -> None:
        if fd == self._wake_read:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 4096)
        elif fd == self._zap_fd:
            self._answer_zap()
        else:
            self._touched = True
            if fd == self._monitor_fd:
                self._read_monitor()

    # ------------------------------------------------------------ local peers

    def _read_local(self, fd: int, events: int, happened: list[Happening]) -> None:
        assert self._locals is not None  # noqa: S101 - for the type checker
        for name, batches, ended in self._locals.ready(fd, events):
            peer = Peer(True, name)
            if batches is None:
                happened.append(Came(peer, "any", True))
                continue
            for head, frames in batches:
                self._unpack(peer, head, frames, happened)
            if ended is not None:
                if ended:
                    self._complain(f"a local connection was closed: {ended}")
                happened.append(Went(peer))

    def _unpack(self, peer: Peer, head: bytes, frames: Sequence[Any], happened: list[Happening]) -> None:
        try:
            parcels = unpack(head, frames)
        except FrameError as error:
            self._complain(f"unreadable message ignored: {error}")
            return
        for parcel in parcels:
            happened.append(Got(peer, parcel))

    def _complain(self, text: str) -> None:
        if words := self._garbage.admit(time.monotonic(), text):
            _log.warning(words)

    # ------------------------------------------------------------ remote peers

    def _read(self, happened: list[Happening]) -> None:
        """Take what is there from the router, which has something."""
        router = self._router
        self._touched = True
        for _ in range(TURN):
            name = router.recv(NOBLOCK)
            head = router.recv(NOBLOCK, copy=False)
            frames = []
            more = head.more
            while more:
                frame = router.recv(NOBLOCK, copy=False)
                frames.append(frame)
                more = frame.more
            if name not in self._known:
                happened.append(self._introduce(name, head))
            self._unpack(Peer(False, name), head.bytes, frames, happened)
            if not readable(router):
                return

    def _introduce(self, name: bytes, head: zmq.Frame) -> Came:
        # Departures that were noticed before this message must not be taken for this connection's,
        # which may have been given the same descriptor.
        self._read_monitor()
        self._known.add(name)
        self._by_fd[int(head.get(zmq.SRCFD))] = name
        return Came(Peer(False, name), str(head.get("User-Id")), False)

    def _report_departures(self, happened: list[Happening]) -> None:
        if not self._went:
            return
        self._touched = True
        if readable(self._router):  # what they sent before they went comes first
            self._nudge()
            return
        went, self._went = self._went, []
        for name in went:
            self._known.discard(name)
            happened.append(Went(Peer(False, name)))

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\1")

    def _read_monitor(self) -> None:
        while readable(self._monitor):
            event = self._monitor.recv_multipart(NOBLOCK)[0]
            if int.from_bytes(event[:2], "little") == zmq.EVENT_DISCONNECTED:
                name = self._by_fd.pop(int.from_bytes(event[2:6], "little"), None)
                if name is not None:
                    self._went.append(name)

    def _answer_zap(self) -> None:
        while readable(self._zap):
            request = self._zap.recv_multipart(zmq.NOBLOCK)
            verdict = self._admission.answer(request, time.monotonic())
            if verdict.log:
                _log.warning(verdict.log)
            self._zap.send_multipart(verdict.frames)

    # ------------------------------------------------------------ sending

    def send(self, peer: Peer, parcels: Sequence[Parcel]) -> None:
        """Send a batch to *peer*; one that has gone gets nothing (its departure is reported by poll)."""
        frames = pack(parcels)
        if peer.local:
            if self._locals is not None:
                self._locals.send(peer.name, frames)
            return
        self._touched = True
        last = len(frames) - 1
        try:
            self._router.send(peer.name, NOBLOCK_MORE)
            for index, frame in enumerate(frames):
                big = index > 0 and len(frame) >= ZERO_COPY
                self._router.send(frame, NOBLOCK if index == last else NOBLOCK_MORE, copy=not big)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise

    def close(self, linger: float) -> None:
        """Send what is on its way, for at most *linger* seconds, and close everything."""
        if self._locals is not None:
            self._locals.close(linger)
        self._router.disable_monitor()
        self._monitor.close(0)
        self._zap.close(0)
        self._router.close(int(linger * 1000))
        self._poll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._context.term()


def _fd(socket: zmq.Socket[Any]) -> int:
    return int(socket.getsockopt(zmq.FD))
