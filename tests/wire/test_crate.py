"""Crates: what is packed comes out again, also when all big pieces lie in one buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.errors import PayloadError
from hpcremote.wire import payload
from hpcremote.wire.crate import ALIGN, Crate, Head, crate_of

SIZES = st.sampled_from([0, 1, 63, 64, 65_535, 65_536, 65_537, 100_001])


@given(st.lists(SIZES, max_size=5))
def test_out_comes_what_went_in(sizes: list[int]) -> None:
    sent = [np.arange(size, dtype="u1") for size in sizes]
    crate = crate_of(payload.dump(sent))
    area = bytearray(crate.head.span)
    for place, big in zip(crate.head.cut(area), crate.bigs, strict=True):
        memoryview(place)[:] = big
    for one in (crate, Crate(Head(*tuple(crate.head)), crate.head.cut(area))):
        came = payload.load(one.unpack())
        assert [array.tobytes() for array in came] == [array.tobytes() for array in sent]


def test_many_small_pieces_are_one_big_one() -> None:
    sent = [np.full(1000, number) for number in range(30)]
    crate = crate_of(payload.dump(sent))
    assert crate.head.data == b""
    assert crate.head.bigs == [crate.head.apart]
    assert np.array_equal(payload.load(crate.unpack()), sent)


def test_big_pieces_are_aligned_and_not_copied() -> None:
    one, other = np.zeros(70_001, "u1"), np.zeros(80_000, "u1")
    crate = crate_of(payload.dump([one, other]))
    assert crate.head.span == -(-70_001 // ALIGN) * ALIGN + 80_000
    memoryview(crate.bigs[0])[0] = 5
    assert one[0] == 5


def test_a_crate_with_too_little_in_it() -> None:
    head, bigs = crate_of(payload.dump(np.zeros(70_000, "u1")))
    with pytest.raises(PayloadError, match="announces"):
        Crate(head, bigs[:-1]).unpack()
