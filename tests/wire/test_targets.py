"""Engine ids in the compact form: what goes in comes out, and what is too much is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.wire.targets import SHORT, compact, expand

ids = st.one_of(
    st.lists(st.integers(0, 40), max_size=60, unique=True),
    st.lists(st.integers(0, 40), max_size=60, unique=True).map(sorted),
    st.builds(lambda start, size: list(range(start, start + size)), st.integers(0, 9), st.integers(0, 99)),
)


@given(ids)
def test_what_goes_in_comes_out(some: list[int]) -> None:
    assert expand(compact(some)) == some


def test_a_whole_set_takes_two_numbers_and_a_short_list_stays_as_it_is() -> None:
    assert compact(range(3, 65_536)) == [3, -65_532]
    assert compact(range(SHORT)) == list(range(SHORT))
    assert expand([0, -3, 7]) == [0, 1, 2, 3, 7]


@pytest.mark.parametrize("odd", [[-1], [0, -100], [5, -(10**18)]])
def test_what_stands_for_too_much_or_nothing_is_refused(odd: list[int]) -> None:
    with pytest.raises(ValueError, match="behind"):
        expand(odd, 100)
