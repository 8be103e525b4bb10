from __future__ import annotations

import array
from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.client.maps import as_sequence, map_of

DISTS = ["b", "r"]


def deal(dist: str, items: Any, parts: int) -> list[Any]:
    return [map_of(dist).part(items, index, parts, len(items)) for index in range(parts)]


@pytest.mark.parametrize("dist", DISTS)
@given(items=st.lists(st.integers()), parts=st.integers(1, 9))
def test_lists_come_back(dist: str, items: list[int], parts: int) -> None:
    assert map_of(dist).join(deal(dist, items, parts)) == items


@pytest.mark.parametrize("dist", DISTS)
@given(
    length=st.integers(0, 40),
    parts=st.integers(1, 9),
    dtype=st.sampled_from(["f8", ">f8", "i2", ">i2", "c16", "?", "S3", "M8[s]", "f4,i8"]),
    inner=st.sampled_from([(), (2,), (0, 3)]),
)
def test_arrays_come_back_with_their_dtype(
    dist: str, length: int, parts: int, dtype: str, inner: Any
) -> None:
    shape = (length, *inner)
    items = np.arange(np.prod(shape, dtype=int)).astype("i8").view("i8").reshape(shape).astype(dtype)
    joined = map_of(dist).join(deal(dist, items, parts))
    assert joined.dtype == items.dtype
    assert joined.shape == items.shape
    assert np.array_equal(joined, items)


@given(lengths=st.lists(st.integers(0, 6), min_size=1, max_size=6))
def test_round_robin_of_any_lengths_takes_turns(lengths: list[int]) -> None:
    lists = [[(turn, part) for turn in range(length)] for part, length in enumerate(lengths)]
    joined = map_of("r").join(lists)
    assert joined == sorted(item for part in lists for item in part)
    arrays = [
        np.array([turn * 10 + part for turn in range(length)], "i4") for part, length in enumerate(lengths)
    ]
    assert map_of("r").join(arrays).tolist() == [turn * 10 + part for turn, part in joined]


def test_blocks_put_longer_parts_first() -> None:
    assert deal("b", range(7), 3) == [range(3), range(3, 5), range(5, 7)]
    assert deal("r", list(range(7)), 3) == [[0, 3, 6], [1, 4], [2, 5]]


def test_only_the_first_items_are_dealt_when_told_so() -> None:
    assert [map_of("b").part([1, 2, 3, 4, 5], i, 2, 3) for i in range(2)] == [[1, 2], [3]]
    assert [map_of("r").part([1, 2, 3, 4, 5], i, 2, 3) for i in range(2)] == [[1, 3], [2]]


@pytest.mark.parametrize("dist", DISTS)
def test_what_cannot_be_sliced_is_dealt_too(dist: str) -> None:
    items = deque(range(5))
    assert map_of(dist).join(deal(dist, items, 2)) == [0, 1, 2, 3, 4]
    assert as_sequence(x for x in "ab") == ["a", "b"]
    assert as_sequence({"a": 1}) == ["a"]


@pytest.mark.parametrize("dist", DISTS)
def test_what_is_no_sequence_comes_back_as_a_list(dist: str) -> None:
    mapping = map_of(dist)
    assert mapping.join([1, 2]) == [1, 2]
    assert mapping.join(["node1", "node2"]) == ["node1", "node2"]
    assert mapping.join([[1], None]) == [[1], None]
    assert mapping.join([]) == []
    assert mapping.join([np.float64(1), np.float64(2)]) == [1.0, 2.0]
    zero_dimensional = mapping.join([np.array(1), np.array(2)])
    assert isinstance(zero_dimensional, list) and len(zero_dimensional) == 2


@pytest.mark.parametrize("dist", DISTS)
def test_array_module_and_masks_are_kept(dist: str) -> None:
    numbers = array.array("d", range(5))
    assert map_of(dist).join(deal(dist, numbers, 2)) == numbers
    masked = np.ma.array(range(5), mask=[0, 1, 0, 0, 1])
    joined = map_of(dist).join(deal(dist, masked, 2))
    assert joined.mask.tolist() == masked.mask.tolist()


@pytest.mark.parametrize("dist", ["x", None, []])
def test_an_unknown_dist_is_named(dist: Any) -> None:
    with pytest.raises(ValueError, match=r"'b' .blocks. or 'r'"):
        map_of(dist)
