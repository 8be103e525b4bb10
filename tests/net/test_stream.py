"""Batches of frames over real Unix sockets: any cut of the bytes, full buffers, garbage, the end."""

from __future__ import annotations

import contextlib
import errno
import itertools
import select
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.net import stream as module
from hpcremote.net.stream import CHUNK, MAX_FRAME, MAX_FRAMES, Closed, Stream
from hpcremote.wire.frames import FrameError

Frames = list[bytes]
BIG = 5 << 20  # more than the kernel takes at once


@contextlib.contextmanager
def pair(*, keep: bool = True) -> Iterator[tuple[Stream, Stream]]:
    """Two ends of one connection; the first keeps, or copies, what has to wait."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    one, other = Stream(here, keep=keep), Stream(there, keep=True)
    with contextlib.closing(one), contextlib.closing(other):
        yield one, other


@contextlib.contextmanager
def wire() -> Iterator[tuple[socket.socket, Stream]]:
    """A bare socket, and the Stream at its other end."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    here.settimeout(10)
    stream = Stream(there, keep=True)
    with here, contextlib.closing(stream):
        yield here, stream


def on_the_wire(frames: Sequence[bytes]) -> bytes:
    """The form that the module's docstring draws."""
    sizes = b"".join(struct.pack("<Q", len(frame)) for frame in frames)
    return b"hpc1" + struct.pack("<I", len(frames)) + sizes + b"".join(frames)


def readable(stream: Stream) -> bool:
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    return bool(poll.poll(0))  # a Unix socket has what was sent as soon as send() returned


def drain(stream: Stream) -> list[Frames]:
    """Receive until nothing is there, as a loop around poll() does."""
    batches = []
    while readable(stream):
        batches += [[bytes(head), *map(bytes, frames)] for head, frames in stream.receive()]
    return batches


def through(one: Stream, other: Stream) -> list[Frames]:
    """Let everything that waits go out and come in."""
    batches = drain(other)
    while one.pending:
        one.flush()
        batches += drain(other)
    return batches


SIZES = (0, 1, 7, 8, 16, 17, CHUNK - 17, CHUNK - 16, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 5)
frames_of_any_size = st.one_of(
    st.binary(max_size=40),
    st.tuples(st.sampled_from(SIZES), st.binary(min_size=1, max_size=3)).map(
        lambda drawn: (drawn[1] * drawn[0])[: drawn[0]]
    ),
)
batches_of_frames = st.lists(st.lists(frames_of_any_size, min_size=1, max_size=5), max_size=6)


@given(batches_of_frames, st.lists(st.integers(1, CHUNK + 100), min_size=1, max_size=8))
def test_however_the_bytes_are_cut_the_batches_are_the_same(batches: list[Frames], cuts: list[int]) -> None:
    text = b"".join(map(on_the_wire, batches))
    lengths = itertools.cycle(cuts if sum(cuts) * 500 > len(text) else [*cuts, CHUNK])
    got = []
    with wire() as (sock, stream):
        at = 0
        while at < len(text):
            length = next(lengths)
            sock.sendall(text[at : at + length])
            got += drain(stream)
            at += length
    assert got == batches


@given(st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=4), min_size=1, max_size=4))
def test_byte_by_byte(batches: list[Frames]) -> None:
    got = []
    with wire() as (sock, stream):
        for byte in b"".join(map(on_the_wire, batches)):
            sock.send(bytes([byte]))
            got += drain(stream)
    assert got == batches


@given(batches_of_frames)
def test_what_one_end_sends_the_other_receives(batches: list[Frames]) -> None:
    with pair() as (one, other):
        for batch in batches:
            one.send(batch)
        assert through(one, other) == batches


def test_what_is_sent_has_the_form_of_the_docstring() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.closing(Stream(here, keep=True)) as stream, there:
        for batch in ([b"one small frame"], [b"", b"a", b"", b"bc"]):
            stream.send(batch)
            assert there.recv(1000) == on_the_wire(batch)


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, BIG])
def test_payload_frames_arrive_writable(size: int) -> None:
    with pair() as (one, other):
        one.send([b"head", b"x" * size])
        one_batch = []
        while not one_batch:
            one.flush()
            one_batch = other.receive()
        ((head, (frame,)),) = one_batch
        assert head == b"head"
        frame[0] = 33
        assert bytes(frame) == b"!" + b"x" * (size - 1)


def test_frames_may_be_any_buffer() -> None:
    with pair() as (one, other):
        one.send([b"head", bytearray(b"abc"), memoryview(b"defg").cast("H"), memoryview(b"").cast("d")])
        assert drain(other) == [[b"head", b"abc", b"defg", b""]]


def test_more_frames_than_one_system_call_takes() -> None:
    batch = [b"%d" % number for number in range(5 * module._PIECES)]
    with pair() as (one, other):
        one.send(batch)
        assert through(one, other) == [batch]


# ------------------------------------------------------------ a full kernel buffer


def test_what_the_kernel_does_not_take_waits_and_keeps_its_order() -> None:
    batches = [[b"big", bytes([index]) * BIG] for index in range(3)]
    batches[1:1] = [[b"small"], [b"", b""]]
    with pair() as (one, other):
        for batch in batches:
            one.send(batch)
            assert one.pending
        assert through(one, other) == batches
        assert not one.pending
        one.send([b"after it"])
        assert drain(other) == [[b"after it"]]


def test_small_messages_beyond_the_buffer_wait_too() -> None:
    batches = []
    with pair() as (one, other):
        while not one.pending:
            batches.append([b"%d" % len(batches) * 50])
            one.send(batches[-1])
        for _ in range(100):
            batches.append([b"%d" % len(batches) * 50])
            one.send(batches[-1])
        assert through(one, other) == batches


def test_nothing_to_flush_is_fine() -> None:
    with pair() as (one, other):
        one.flush()
        assert not one.pending
        assert not readable(other)


def test_the_caller_may_change_its_buffers_at_once_when_what_waits_is_copied() -> None:
    data = bytearray(b"a" * BIG)
    with pair(keep=False) as (one, other):
        one.send([b"head", data])
        assert one.pending
        data[:] = b"b" * BIG
        assert through(one, other) == [[b"head", b"a" * BIG]]


def test_behind_what_waits_buffers_are_copied_too() -> None:
    data = bytearray(b"a" * 10)
    with pair(keep=False) as (one, other):
        one.send([b"head", b"-" * BIG])
        one.send([b"next", data])
        data[:] = b"b" * 10
        assert through(one, other)[1] == [b"next", b"a" * 10]


def test_with_keep_nothing_is_copied() -> None:
    data = bytearray(b"a" * BIG)
    with pair(keep=True) as (one, other):
        one.send([b"head", data])
        data[-1:] = b"z"  # the promise not to do this is what saves the copy
        assert through(one, other)[0][1].endswith(b"az")


# ------------------------------------------------------------ garbage


GARBAGE = {
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "zeros": bytes(8),
    "a batch without frames": b"hpc1" + struct.pack("<I", 0),
    "too many frames": b"hpc1" + struct.pack("<I", MAX_FRAMES + 1),
    "a frame that is too large": b"hpc1" + struct.pack("<IQ", 1, MAX_FRAME + 1),
    "a frame of 16 exabytes": b"hpc1" + struct.pack("<IQQ", 2, 1, 2**64 - 1),
}


@pytest.mark.parametrize("text", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("before", [b"", on_the_wire([b"good"]), on_the_wire([b"good", b"frames"])])
def test_garbage_is_an_error_that_says_so(text: bytes, before: bytes) -> None:
    with wire() as (sock, stream):
        sock.sendall(before + text)
        with pytest.raises(FrameError, match=r"not a batch|is announced"):
            drain(stream)


@given(st.binary(min_size=8, max_size=200).filter(lambda text: not text.startswith(b"hpc1")))
def test_anything_that_does_not_begin_as_a_batch_is_garbage(text: bytes) -> None:
    with wire() as (sock, stream):
        sock.sendall(text)
        with pytest.raises(FrameError, match="not a batch of frames"):
            drain(stream)


@pytest.mark.parametrize("size", [CHUNK, 3 * CHUNK + 5])
def test_a_frame_that_no_memory_can_hold_is_read_past(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object, **_options: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    batch = [b"head", b"one", b"x" * size, b"other"]
    with wire() as (sock, stream):
        monkeypatch.setattr(module.mmap, "mmap", full)
        sock.sendall(on_the_wire(batch))
        assert drain(stream) == [[b"head", b"one", b"", b"other"]]
        monkeypatch.undo()
        sock.sendall(on_the_wire(batch))
        assert drain(stream) == [batch]


def test_a_head_that_no_memory_can_hold() -> None:
    with wire() as (sock, stream):
        sock.sendall(b"hpc1" + struct.pack("<IQ", 1, MAX_FRAME))
        with pytest.raises(FrameError, match=r"no memory for a frame of \d+ bytes"):
            drain(stream)


# ------------------------------------------------------------ the end


@pytest.mark.parametrize("batch", [[b"one"], [b"two", b"frames"], [b"large", b"x" * (3 * CHUNK)]])
def test_what_was_sent_before_the_end_is_received_before_the_end(batch: Frames) -> None:
    with pair() as (one, other):
        one.send(batch)
        one.close()
        got: list[Frames] = []
        with pytest.raises(Closed, match="end of stream"):
            while True:
                got += [[bytes(head), *map(bytes, frames)] for head, frames in other.receive()]
        assert got == [batch]


def test_an_end_that_left_our_words_unread_comes_behind_its_words_too() -> None:
    with pair() as (one, other):
        other.send([b"never read"])
        one.send([b"good bye"])
        one.close()
        assert other.receive() == [(b"good bye", [])]
        with pytest.raises(Closed):
            other.receive()


@pytest.mark.parametrize("length", [1, 8, 11, 16, 24, 30, 2 * CHUNK])
def test_an_end_in_the_middle_is_an_end(length: int) -> None:
    with wire() as (sock, stream):
        sock.sendall(on_the_wire([b"head", b"x" * (3 * CHUNK)])[:length])
        sock.close()
        with pytest.raises(Closed):
            drain(stream)


@pytest.mark.parametrize("frames", [[b"small"], [b"two", b"frames"]])
def test_sending_to_nobody_says_so(frames: Frames) -> None:
    with pair() as (one, other):
        other.close()
        with pytest.raises(Closed, match="Broken pipe"):
            one.send(frames)


def test_flushing_to_nobody_says_so() -> None:
    with pair() as (one, other):
        one.send([b"head", b"x" * BIG])
        other.close()
        with pytest.raises(Closed):
            one.flush()


def test_nothing_there_is_no_end() -> None:
    with pair() as (one, other):
        assert one.receive() == []
        assert other.receive() == []
