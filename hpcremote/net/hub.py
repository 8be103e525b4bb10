"""The controller's sockets as one thing: peers come, send messages, and go.

::

    remote peers ──tcp, CURVE──▶ ROUTER, its monitor, ZAP ┐
                                                          ├─▶ poll() ─▶ [Came, Got, Went], in order
    local peers  ──Unix streams─▶ one descriptor each ────┘

A ROUTER names its connections itself, by numbers that go up, so no peer can guess or take over another's
name; a peer that chose its own may do nothing. What a connection's key allows (ZAP's user id) is read
from the first message and bound to that name.

A remote peer's departure is seen by its connection: the monitor names the file descriptor, and the
first message of every peer told which one is its. What a peer sent before it went is delivered first,
as a rule. A descriptor is used again at once, and a peer may have gone before its first message was
read: of two peers with one descriptor, the one with the higher number has it.

Local peers are in ``locals.py``: processes of the same user, as the kernel says. A peer may speak for many
ranks (a node's agent does); each of them is a peer as well, see ``relay.py``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import time
from collections.abc import Iterable, Sequence
from typing import Any

import zmq

from hpcremote.errors import ConfigError
from hpcremote.net.connect import LOCAL
from hpcremote.net.happenings import Came, Got, Happening, Peer, Went
from hpcremote.net.keys import ZAP_ENDPOINT, Admission, KeyPair, RateLimit
from hpcremote.net.locals import Locals
from hpcremote.net.relay import Lanes
from hpcremote.net.sockets import NOBLOCK, NOBLOCK_MORE, ZERO_COPY, more, readable, remote_router, send
from hpcremote.wire.frames import Frame, FrameError, Parcel, unpack
from hpcremote.wire.lanes import is_bundle

_log = logging.getLogger("hpcremote.controller")

#: At most this many ZeroMQ messages are taken from one socket before the others have their turn.
TURN = 256
#: No more are taken once so much has happened: a message may speak for many ranks.
MOST_AT_ONCE = 4096
#: A departure waits at most this many seconds for what the peer may have sent before.
PATIENCE = 0.5


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
        self._known: dict[bytes, int] = {}  # remote peers that were introduced, and their descriptors
        self._peers: dict[bytes, Peer] = {}  # the same peers
        self._roles: dict[Peer, str] = {}  # of remote peers
        self._lanes = Lanes()
        self._open: set[int] = set()  # descriptors of remote connections
        self._by_fd: dict[int, bytes] = {}
        self._went: dict[bytes, float] = {}  # since when
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind(ZAP_ENDPOINT)
        self._router = remote_router(self._context, keys)
        self._monitor = self._router.get_monitor_socket(zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED)
        self._local_peers: dict[int, Peer] = {}  # by descriptor
        self._touched = True  # the router was used since it was last looked at
        self._fired = False  # its descriptor fired since then
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.epoll()
        self._router_fd, self._zap_fd, self._monitor_fd = map(_fd, (self._router, self._zap, self._monitor))
        for fd in (self._wake_read, self._zap_fd, self._router_fd, self._monitor_fd):
            self._poll.register(fd, select.EPOLLIN)
        self._read_monitor()  # a descriptor announces nothing before its socket was asked once
        self._locals: Locals | None = None
        if local:
            try:
                self._locals = Locals(self._poll, local.removeprefix(LOCAL))
            except ConfigError:
                self.close(0)
                raise

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
        return int(self._router.get_string(zmq.LAST_ENDPOINT).rstrip("\0").rpartition(":")[2])

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
            if peer := self._local_peers.get(fd):
                self._read_local(peer, fd, events, happened)
            else:
                self._on_own(fd, happened)
        if self._touched:
            self._touched = False
            # If its descriptor has just fired, there is something, as a rule: asking first would be a waste.
            if self._fired or readable(self._router):
                self._fired = False
                self._read(happened)
            if self._went:
                self._report_departures(happened)
        if self._lanes.answers:
            for carrier, frames in self._lanes.take_answers():
                self._send(carrier, frames)
        return happened

    def _on_own(self, fd: int, happened: list[Happening]) -> None:
        if self._locals is not None and fd == self._locals.listener:
            for new, name in self._locals.accept():
                self._local_peers[new] = peer = Peer(True, name)
                happened.append(Came(peer, "any", True))
        elif fd == self._wake_read:
            with contextlib.suppress(BlockingIOError):
                os.read(fd, 4096)
        elif fd == self._zap_fd:
            self._answer_zap()
        else:
            self._touched = True
            if fd == self._monitor_fd:
                self._read_monitor()
            else:
                self._fired = True

    # ------------------------------------------------------------ local peers

    def _read_local(self, peer: Peer, fd: int, events: int, happened: list[Happening]) -> None:
        assert self._locals is not None  # noqa: S101 - for the type checker
        batches, ended = self._locals.read(fd, events)
        for head, frames in batches:
            self._unpack(peer, head, frames, happened)
        if ended is not None:
            del self._local_peers[fd]
            if ended:
                self._complain(f"a local connection was closed: {ended}")
            self._end(peer, happened)

    def _end(self, peer: Peer, happened: list[Happening]) -> None:
        happened.append(Went(peer))
        happened += self._lanes.end(peer)

    def _unpack(self, peer: Peer, head: bytes, frames: Sequence[Any], happened: list[Happening]) -> None:
        try:
            if is_bundle(head):
                self._lanes.take_in(peer, self._roles.get(peer, "any"), head, frames, happened)
                return
            for message, payload in unpack(head, frames):
                happened.append(Got(peer, message, payload))
        except (FrameError, MemoryError) as error:
            self._complain(f"unreadable message ignored: {error}")

    def _complain(self, text: str) -> None:
        if words := self._garbage.admit(time.monotonic(), text):
            _log.warning(words)

    # ------------------------------------------------------------ remote peers

    def _read(self, happened: list[Happening]) -> None:
        """Take what is there from the router, which most likely has something."""
        router = self._router
        self._touched = True
        for _ in range(TURN):
            try:
                name = router.recv(NOBLOCK)
            except zmq.Again:
                return
            peer = self._peers.get(name)
            if peer is not None:
                head = router.recv(NOBLOCK)
            else:
                first = router.recv(NOBLOCK, copy=False)
                happened.append(self._introduce(name, first))
                peer = self._peers[name]
                head = first.bytes
            frames = []
            while more(router):
                frames.append(router.recv(NOBLOCK, copy=False))
            self._unpack(peer, head, frames, happened)
            if not readable(router) or len(happened) >= MOST_AT_ONCE:
                return

    def _introduce(self, name: bytes, head: zmq.Frame) -> Came:
        # Departures that were noticed before this message must not be taken for this connection's,
        # which may have been given the same descriptor.
        self._read_monitor()
        fd = self._known[name] = int(head.get(zmq.SRCFD))
        peer = self._peers[name] = Peer(False, name)
        other = self._by_fd.get(fd)
        if fd in self._open and (other is None or _came_after(name, other)):
            self._by_fd[fd] = name
            self._note_departure(other)
        else:
            self._note_departure(name)
        role = self._roles[peer] = str(head.get("User-Id")) if _is_ours(name) else ""
        return Came(peer, role, False)

    def _note_departure(self, name: bytes | None) -> None:
        if name in self._known and name not in self._went:
            self._went[name] = time.monotonic()
            self._nudge()

    def _report_departures(self, happened: list[Happening]) -> None:
        self._touched = True
        now = time.monotonic()
        for name, since in list(self._went.items()):
            if now - since < PATIENCE and readable(self._router):  # what it sent before it went comes first
                self._nudge()
                return
            del self._went[name]
            fd = self._known.pop(name)
            peer = self._peers.pop(name)
            del self._roles[peer]
            if self._by_fd.get(fd) == name:
                del self._by_fd[fd]
            self._end(peer, happened)

    def _nudge(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\1")

    def _read_monitor(self) -> None:
        while readable(self._monitor):
            event, endpoint = self._monitor.recv_multipart(NOBLOCK)
            kind = int.from_bytes(event[:2], "little")
            fd = int.from_bytes(event[2:6], "little")
            if kind == zmq.EVENT_ACCEPTED:
                self._open.add(fd)
            elif kind == zmq.EVENT_DISCONNECTED:
                self._open.discard(fd)
                name = self._by_fd.pop(fd, None)
                self._note_departure(name)
                if name is None:  # no keys, a port scan, another protocol
                    self._complain(
                        f"a connection to {endpoint.decode()} ended before it had introduced itself"
                    )

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
        self.send_all([(peer, parcels)])

    def send_all(self, outbox: Iterable[tuple[Peer, Sequence[Parcel]]]) -> None:
        """Send a batch to each of these peers, to those of one connection together."""
        for peer, frames in self._lanes.parcel_out(outbox):
            self._send(peer, frames)

    def _send(self, peer: Peer, frames: Sequence[Frame]) -> None:
        if peer.local:
            if self._locals is not None:
                self._locals.send(peer.name, frames)
            return
        self._touched = True
        last = len(frames) - 1
        try:
            send(self._router, peer.name, NOBLOCK_MORE)
            for index, frame in enumerate(frames):
                big = index > 0 and len(frame) >= ZERO_COPY
                send(self._router, frame, NOBLOCK if index == last else NOBLOCK_MORE, copy=not big)
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._note_departure(peer.name)

    @property
    def stalled(self) -> list[Peer]:
        """Local peers that do not read, and for which very much waits (remote ones lose their heartbeat)."""
        if self._locals is None or not self._locals.stalled:
            return []
        return [Peer(True, name) for name in self._locals.stalled]

    def forget(self, peer: Peer) -> None:
        """Do not wait for a severed peer any more."""
        self._lanes.forget(peer)

    def cut(self, peer: Peer) -> None:
        """End a local peer's connection without sending what waits; poll() reports that it went."""
        if peer.local and self._locals is not None:
            self._locals.cut(peer.name)

    def close(self, linger: float) -> None:
        """Send what is on its way, for at most *linger* seconds, and close everything."""
        for carrier, frames in self._lanes.farewell():
            self._send(carrier, frames)
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


def _is_ours(name: bytes) -> bool:
    return len(name) == 5 and name[0] == 0  # a zero and a number, see zmq_socket(3), ROUTER


def _came_after(name: bytes, other: bytes) -> bool:
    """Say whether *name* connected later; the numbers in the names go round."""
    return (int.from_bytes(name, "big") - int.from_bytes(other, "big")) & 0xFFFFFFFF < 1 << 31


def _fd(socket: zmq.Socket[Any]) -> int:
    return int(socket.getsockopt(zmq.FD))
