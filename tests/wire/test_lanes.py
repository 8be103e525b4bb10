"""Bundles: many ranks' batches in one message, and any bytes give a bundle or one defined error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.wire.frames import FrameError, pack
from hpcremote.wire.lanes import MAGIC, bundle, is_bundle, unbundle
from hpcremote.wire.messages import Stop

batches = st.lists(
    st.tuples(
        st.lists(st.integers(0, 1 << 40), max_size=5),
        st.lists(st.binary(min_size=1, max_size=20), max_size=4),
    ),
    max_size=6,
)


@given(batches)
def test_what_goes_in_comes_out(entries: list[tuple[list[int], list[bytes]]]) -> None:
    head, *frames = bundle(entries)
    assert is_bundle(head)
    expected = [(lanes, batch[0] if batch else b"", batch[1:]) for lanes, batch in entries]
    assert unbundle(head, frames) == expected


def test_a_batch_is_no_bundle() -> None:
    (head,) = pack([(Stop("enough"), ())])
    assert not is_bundle(head)
    with pytest.raises(FrameError, match="not a bundle"):
        unbundle(head)


@given(st.binary(max_size=60), st.lists(st.binary(max_size=3), max_size=3))
def test_any_bytes_give_a_bundle_or_one_error(data: bytes, frames: list[bytes]) -> None:
    try:
        found = unbundle(MAGIC + data, frames)
    except FrameError:
        return
    assert sum(len(rest) for _, _, rest in found) == len(frames)


def test_frames_have_to_be_those_that_are_announced() -> None:
    head, *frames = bundle([([1, 2], [b"head", b"a", b"b"])])
    for wrong in (frames[:1], [*frames, b"c"]):
        with pytest.raises(FrameError, match="frames where the entries announce"):
            unbundle(head, wrong)
