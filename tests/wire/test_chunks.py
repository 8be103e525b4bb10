"""Chunks: cut, let go one by one, and put together again as they were."""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from hpcremote.wire import payload
from hpcremote.wire.chunks import assembled, cut, received, room
from hpcremote.wire.crate import Crate, aligned, crate_of
from hpcremote.wire.pickler import Buffer

SIZES = [0, 1, 63, 65_535, 65_536, 65_537, 70_001, 131_072, 300_000]


def crates_of(*values: object) -> list[Crate]:
    return [crate_of(payload.dump(value)) for value in values]


def in_one_buffer(crates: list[Crate]) -> memoryview:
    """Lay the big pieces of crates as engines do, each crate's at a multiple of ALIGN."""
    whole = room(sum(aligned(crate.head.span) for crate in crates))
    low = 0
    for crate in crates:
        for place, big in zip(crate.head.cut(whole[low : low + crate.head.span]), crate.bigs, strict=True):
            memoryview(place)[:] = memoryview(big).cast("B")
        low += aligned(crate.head.span)
    return whole


def copies(buffers: list[Buffer], step: int) -> list[Buffer]:
    return [bytearray(chunk) for chunk in cut(buffers, step)]


@pytest.mark.parametrize("step", [1000, 65_536, 70_001, 1 << 20])
def test_pieces_that_were_cut_are_the_same_again(step: int) -> None:
    rng = np.random.default_rng(1)
    values = [rng.integers(0, 255, size, dtype="u1") for size in SIZES]
    crate = crate_of(payload.dump(values))
    came = payload.load(assembled(crate.head, copies(crate.bigs, step)).unpack())
    assert all(np.array_equal(one, other) for one, other in zip(came, values, strict=True))

    several = [values[3:5], values[-1], None, values[-2], values[::-1]]
    crates = crates_of(*several)
    chunks = copies([in_one_buffer(crates)], step)
    again = [payload.load(crate.unpack()) for crate in received([crate.head for crate in crates], chunks)]
    assert chunks == []
    assert repr(again) == repr(several)
    assert np.array_equal(again[1], several[1])


def test_parts_of_one_array_are_that_array_again() -> None:
    whole = np.arange(100_001, dtype="i4")
    crates = crates_of(*np.array_split(whole, 3))
    came = received([crate.head for crate in crates], copies([in_one_buffer(crates)], 70_001))
    places = [memoryview(crate.bigs[0]) for crate in came]
    assert all(place.obj is places[0].obj for place in places)
    assert bytes(memoryview(places[0].obj)[: whole.nbytes]) == whole.tobytes()


def test_a_chunk_is_let_go_when_it_has_been_copied() -> None:
    alive: list[int] = []
    held: list[weakref.ref[np.ndarray]] = []

    (crate,) = crates_of(np.arange(100_000))
    chunks: list[Buffer] = []
    for chunk in cut(crate.bigs, 100_000):
        array = np.frombuffer(bytearray(chunk), "u1")
        held.append(weakref.ref(array, lambda _: alive.append(sum(one() is not None for one in held))))
        chunks.append(memoryview(array))
        del array
    got = received([crate.head], chunks)
    assert alive == [7, 6, 5, 4, 3, 2, 1, 0]
    assert np.array_equal(payload.load(got[0].unpack()), np.arange(100_000))
