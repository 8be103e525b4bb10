"""Both kinds of connection, over real sockets: what goes out, what comes in, and how they end."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from hpcremote.net.stream import Stream
from hpcremote.net.transport import Batch, StreamTransport, Transport, ZmqTransport
from hpcremote.wire.frames import FrameError

BIG = 5 << 20  # more than the kernel takes at once
PATIENCE = 30.0


def wait_for(transport: Transport) -> None:
    """Wait until a descriptor fires."""
    poll = select.poll()
    for fd in transport.fds:
        poll.register(fd, select.POLLIN)
    assert poll.poll(PATIENCE * 1000), "nothing came"


def next_batch(transport: Transport) -> list[bytes]:
    """Wait for one batch."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for head, frames in transport.receive(certain=False):
            return [head, *map(bytes, frames)]
        wait_for(transport)
        for head, frames in transport.receive(certain=True):
            return [head, *map(bytes, frames)]
    raise AssertionError("nothing came")


def next_change(transport: Transport) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        wait_for(transport)
        assert transport.receive(certain=True) == []
        if changes := transport.changes():
            (change,) = changes
            return change
    raise AssertionError("nothing changed")


# ------------------------------------------------------------ a Unix stream


@pytest.fixture
def streams() -> Iterator[tuple[StreamTransport, Stream]]:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    transport, peer = StreamTransport(Stream(here, keep=False)), Stream(there, keep=True)
    yield transport, peer
    transport.close(0)
    peer.close()


def test_a_stream_carries_batches_both_ways(streams: tuple[StreamTransport, Stream]) -> None:
    transport, peer = streams
    assert transport.send([b"head", b"frame"])
    ((head, frames),) = peer.receive()
    assert (head, list(map(bytes, frames))) == (b"head", [b"frame"])
    peer.send([b"answer", b"", b"x"])
    assert next_batch(transport) == [b"answer", b"", b"x"]
    assert transport.changes() == []


def test_a_stream_is_read_only_when_its_descriptor_fired(streams: tuple[StreamTransport, Stream]) -> None:
    transport, peer = streams
    assert transport.receive(certain=True) == []
    peer.send([b"head"])
    assert transport.receive(certain=False) == []
    assert not transport.stolen()  # no need to look: poll() goes on saying so
    assert transport.receive(certain=True) == [(b"head", [])]


def test_what_the_kernel_does_not_take_is_pending(streams: tuple[StreamTransport, Stream]) -> None:
    transport, peer = streams
    data = bytearray(b"a" * BIG)
    assert not transport.pending
    assert transport.send([b"head", data])
    assert transport.pending
    data[:] = b"b" * BIG  # the sender may go on at once
    batches: list[Batch] = []
    while not batches:
        transport.flush()
        batches = peer.receive()
    ((_, (frame,)),) = batches
    assert bytes(frame) == b"a" * BIG
    assert not transport.pending


def test_the_end_of_a_stream_is_told_once_and_is_final(streams: tuple[StreamTransport, Stream]) -> None:
    transport, peer = streams
    peer.send([b"last words"])
    peer.close()
    assert next_batch(transport) == [b"last words"]
    assert next_change(transport) is False
    assert transport.changes() == []
    assert transport.receive(certain=True) == []
    assert not transport.send([b"more"])
    assert not transport.pending


def test_a_send_that_fails_does_not_hide_what_came_before(
    streams: tuple[StreamTransport, Stream],
) -> None:
    transport, peer = streams
    peer.send([b"last words"])
    peer.close()
    assert not transport.send([b"anybody there?"])
    assert next_batch(transport) == [b"last words"]
    assert next_change(transport) is False


def test_what_waits_is_dropped_with_its_reader(streams: tuple[StreamTransport, Stream]) -> None:
    transport, peer = streams
    assert transport.send([b"head", b"x" * BIG])
    peer.close()
    transport.flush()
    assert next_change(transport) is False
    assert not transport.pending


def test_a_stream_that_speaks_something_else(streams: tuple[StreamTransport, Stream]) -> None:
    transport, peer = streams
    with socket.fromfd(peer.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as bare:
        bare.send(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(FrameError, match="not a batch"):
        transport.receive(certain=True)


# ------------------------------------------------------------ ZeroMQ


class Dealer:
    """A ROUTER that can go away and come back, and a ZmqTransport that knows it."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._context = context
        self.router = self._bind("tcp://127.0.0.1:*")
        self.address = self.router.getsockopt_string(zmq.LAST_ENDPOINT)
        dealer = context.socket(zmq.DEALER)
        options = ((zmq.IMMEDIATE, 1), (zmq.LINGER, 0), (zmq.RECONNECT_IVL, 10), (zmq.SNDHWM, 0))
        for option, value in options:
            dealer.setsockopt(option, value)
        dealer.setsockopt(zmq.ROUTING_ID, b"peer")
        monitor = dealer.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self.transport = ZmqTransport(dealer, monitor)
        dealer.connect(self.address)

    def _bind(self, address: str) -> zmq.Socket[bytes]:
        router = self._context.socket(zmq.ROUTER)
        router.setsockopt(zmq.LINGER, 0)
        router.setsockopt(zmq.RCVTIMEO, int(PATIENCE * 1000))
        router.bind(address)
        return router

    def go_away(self) -> None:
        self.router.close(0)

    def come_back(self) -> None:
        until(self._is_back)  # the port is free when ZeroMQ's thread has closed it

    def _is_back(self) -> bool:
        try:
            self.router = self._bind(self.address)
        except zmq.ZMQError as error:
            assert error.errno == zmq.EADDRINUSE
            return False
        return True

    def close(self) -> None:
        self.transport.close(0)
        self.router.close(0)


@pytest.fixture
def dealer() -> Iterator[Dealer]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    made = Dealer(context)
    try:
        assert next_change(made.transport) is True  # the handshake
        yield made
    finally:
        made.close()
        context.term()


def test_zeromq_carries_batches_both_ways(dealer: Dealer) -> None:
    data = bytearray(b"a" * 100_000)
    assert dealer.transport.send([b"head", data, b""])
    data[:] = b"b" * 100_000  # the sender may go on at once
    assert dealer.router.recv_multipart() == [b"peer", b"head", b"a" * 100_000, b""]
    dealer.router.send_multipart([b"peer", b"answer", b"", b"x"])
    assert next_batch(dealer.transport) == [b"answer", b"", b"x"]
    assert not dealer.transport.pending
    dealer.transport.flush()


def test_what_is_passed_on_is_counted_until_it_has_gone_out(dealer: Dealer) -> None:
    """Who passes on has to see that the other end does not read, and that it goes on."""
    for _ in range(1_200):  # more messages than the router and the kernel take
        assert dealer.transport.pass_on([b"head", bytes(100_000)])
    assert dealer.transport.waiting > 0
    for _ in range(1_200):
        assert dealer.router.recv_multipart()[2] == bytes(100_000)
    until(lambda: dealer.transport.waiting == 0)


def test_zeromqs_payload_frames_are_writable(dealer: Dealer) -> None:
    dealer.router.send_multipart([b"peer", b"answer", b"abc"])
    wait_for(dealer.transport)
    batches: list[Batch] = []
    while not batches:
        batches = dealer.transport.receive(certain=False)
    ((_, (frame,)),) = batches
    frame[0] = ord("X")
    assert bytes(frame) == b"Xbc"


def test_a_use_may_hide_what_came_and_stolen_tells(dealer: Dealer) -> None:
    transport = dealer.transport
    assert not transport.stolen()
    assert transport.receive(certain=False) == []
    dealer.router.send_multipart([b"peer", b"answer"])
    wait_for(transport)
    until(transport.stolen)
    assert transport.stolen()
    assert next_batch(transport) == [b"answer"]
    assert not transport.stolen()


def test_zeromq_tells_of_the_end_and_of_the_return(dealer: Dealer) -> None:
    transport = dealer.transport
    dealer.go_away()
    assert next_change(transport) is False
    until(lambda: not transport.send([b"nobody hears"]))  # ZeroMQ tells of the end before it takes it in
    dealer.come_back()
    assert next_change(transport) is True
    assert transport.send([b"hello again"])
    assert dealer.router.recv_multipart() == [b"peer", b"hello again"]


def until(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline


def test_closing_leaves_nothing_open() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with contextlib.closing(Dealer(context)) as made:
        fds = made.transport.fds
        assert len(set(fds)) == 2
    context.term()  # returns only when every socket of the context is closed
