"""The head of a file in which a namespace is saved."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.errors import SaveError
from hpcremote.wire import saved
from hpcremote.wire.saved import Head


def head(sizes: list[int]) -> Head:
    return Head(3, [0, -3], "a-1", 12.5, ["x", "y"], sizes)


@given(st.lists(st.integers(0, 1 << 40), max_size=5))
def test_a_head_comes_back_and_says_where_its_pieces_are(sizes: list[int]) -> None:
    start = saved.lead(head(sizes))
    length = saved.head_length(start[: saved.START])
    found = saved.head_of(start[saved.START : saved.START + length])
    assert found == head(sizes)
    places = list(saved.places(found, length))
    assert [size for _, size in places] == sizes
    assert all(at % 64 == 0 and at >= len(start) for at, _ in places)
    assert all(at + size <= later for (at, size), (later, _) in itertools.pairwise(places))
    assert saved.whole_size(found, length) >= sum(sizes)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_one_error(data: bytes) -> None:
    for start in (data, saved.MAGIC + data):
        try:
            length = saved.head_length(start[: saved.START])
            saved.head_of(start[saved.START : saved.START + length])
        except SaveError:
            continue
        pytest.fail("these bytes are no head")
