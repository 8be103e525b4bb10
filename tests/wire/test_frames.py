"""The codec: batches to frames and back, and any bytes to messages or FrameError."""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from hpcremote.wire import messages as m
from hpcremote.wire.frames import FrameError, Parcel, pack, unpack

texts = st.text(max_size=20)
numbers = st.integers(0, 2**63 - 1)
ids = st.lists(st.integers(-5, 2**63 - 1), max_size=5)
parts = st.builds(
    m.Part,
    st.binary(max_size=50),
    st.lists(numbers, max_size=4),
    st.integers(0, 3),
    st.sampled_from(["", "ab" * 16]),
)
times = st.floats(allow_nan=False)
messages = st.one_of(
    st.builds(m.Hello, texts, numbers, texts, texts, numbers, texts),
    st.builds(m.Define, ids, st.binary(max_size=16), st.binary(max_size=50)),
    st.builds(m.Call, numbers, ids, texts, st.binary(max_size=16), st.lists(parts, max_size=3), texts),
    st.builds(m.Run, numbers, texts, st.binary(max_size=16), parts, st.booleans(), ids),
    st.builds(m.Done, numbers, texts, parts, times, times, texts, texts),
    st.builds(m.Result, numbers, st.integers(), texts, parts).filter(lambda r: abs(r.engine) < 2**63),
    st.builds(m.Print, numbers, st.integers(0, 2), texts),
    st.builds(m.Drop, ids),
)


@st.composite
def batches(draw: Callable[..., object]) -> list[Parcel]:
    chosen: list[m.AnyMessage] = draw(st.lists(messages, min_size=1, max_size=5))  # type: ignore[assignment]
    names = itertools.count()
    return [(message, [b"frame %d" % next(names) for _ in range(message.nframes)]) for message in chosen]


def plain(parcels: list[Parcel]) -> list[tuple[object, list[bytes]]]:
    return [(message, [bytes(frame) for frame in frames]) for message, frames in parcels]


def messages_or_frame_error(head: bytes, frames: list[bytes]) -> bool:
    """Decode; whatever is neither a list of messages with all their frames nor a FrameError is a failure."""
    try:
        parcels = unpack(head, frames)
    except FrameError as error:
        assert str(error)
        return False
    assert parcels
    assert all(isinstance(message, m.Message) for message, _ in parcels)
    assert [len(f) for _, f in parcels] == [message.nframes for message, _ in parcels]
    assert [frame for _, f in parcels for frame in f] == frames
    return True


@given(batches())
def test_what_was_packed_is_unpacked(batch: list[Parcel]) -> None:
    head, *frames = pack(batch)
    assert plain(unpack(head, frames)) == plain(batch)
    assert plain(unpack(memoryview(head), frames)) == plain(batch)  # type: ignore[arg-type]


def test_a_batch_is_one_head_and_the_payload_as_it_is() -> None:
    payload = [bytearray(100_000), memoryview(b"x" * 70_000)]
    run = m.Run(1, "apply", b"", m.Part(b"", [100_000, 70_000], 2), False, [0])
    head, *frames = pack([(m.Stop("a"), ()), (run, payload), (m.Stop("b"), ())])
    assert head[0] == m.PROTOCOL
    assert [frame is sent for frame, sent in zip(frames, payload, strict=True)] == [True, True]


# ---------------------------------------------------------------- anything else


@given(st.binary(max_size=300), st.lists(st.binary(max_size=5), max_size=3))
@example(b"", [])
@example(b"\x01", [])
@example(b"\x01\x90", [])
@example(b"\x01\x91\x90", [])
@example(b"\x01\xdd\xff\xff\xff\xff", [])
@example(b"\x01\x91\x92\xa4stop\xa1\xff", [])
@example(b"\x01" + b"\x91" * 100_000, [])
def test_random_bytes(head: bytes, frames: list[bytes]) -> None:
    messages_or_frame_error(head, frames)
    messages_or_frame_error(bytes([m.PROTOCOL]) + head, frames)


@given(batches(), st.data())
def test_a_batch_with_some_bytes_changed(batch: list[Parcel], data: st.DataObject) -> None:
    head, *frames = pack(batch)
    changed = bytearray(head)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    messages_or_frame_error(bytes(changed), frames)


@given(batches(), st.data())
def test_a_batch_that_is_cut_or_goes_on(batch: list[Parcel], data: st.DataObject) -> None:
    head, *frames = pack(batch)
    cut = data.draw(st.integers(0, len(head) - 1))
    assert not messages_or_frame_error(head[:cut], frames)
    assert not messages_or_frame_error(head + data.draw(st.binary(min_size=1, max_size=9)), frames)


@given(batches(), st.integers(-3, 3))
def test_a_wrong_number_of_frames_is_refused(batch: list[Parcel], off: int) -> None:
    head, *frames = pack(batch)
    wrong = frames[:off] if off < 0 else [*frames, *[b"more"] * off]
    assume(len(wrong) != len(frames))
    assert not messages_or_frame_error(head, wrong)


@given(batches())
def test_frames_in_another_order_keep_to_the_headers(batch: list[Parcel]) -> None:
    head, *frames = pack(batch)
    assert messages_or_frame_error(head, frames[::-1])
    if frames:
        messages_or_frame_error(frames[0], [head, *frames[1:]])


@pytest.mark.parametrize("protocol", [0, 2, 255])
def test_another_protocol_is_named(protocol: int) -> None:
    head = bytes([protocol]) + pack([(m.Stop("x"), ())])[0][1:]
    with pytest.raises(FrameError, match="not a message of protocol 1"):
        unpack(head)


@pytest.mark.parametrize(
    "head",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of four thousand million headers
        b"\x91\xdd\xff\xff\xff\xff",
        b"\x91\x92\xa4drop\xdd\x7f\xff\xff\xff\x01",  # as many numbers
        b"\x91\x92\xa4stop\xdb\xff\xff\xff\xffabc",  # a text of 4 GB
        b"\x91\x94\xa6define\x90\xc6\xff\xff\xff\xff\xc4\x00",  # bytes
        b"\xdf\xff\xff\xff\xff",
        b"\x91\xc9\xff\xff\xff\xff\x01",
    ],
)
def test_claims_of_length_cost_neither_time_nor_memory(head: bytes) -> None:
    tracemalloc.start()
    began = time.monotonic()
    try:
        with pytest.raises(FrameError):
            unpack(b"\x01" + head)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        assert time.monotonic() - began < 1.0
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1 << 31, 2**64 - 1])
def test_a_part_that_announces_endless_frames(count: int) -> None:
    head = pack([(m.Done(1, "ok", m.Part(b"", [], count)), ())])[0]
    with pytest.raises(FrameError, match="announce"):
        unpack(head, [b"one"])
    doubled = pack([(m.Call(1, [0, 1], "apply", b"", [m.Part(b"", [], count)] * 2), ())])[0]
    with pytest.raises(FrameError, match="announce"):
        unpack(doubled, [])


def test_a_batch_says_something() -> None:
    with pytest.raises(FrameError, match="without messages"):
        unpack(pack([])[0])
