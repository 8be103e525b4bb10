"""Sessions: whatever is lost on the way, every batch is taken once and in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.wire.frames import FrameError, pack
from hpcremote.wire.lanes import bundle, is_bundle
from hpcremote.wire.messages import Stop
from hpcremote.wire.session import (
    BATCHES,
    BYTES,
    MAGIC,
    Ack,
    Resume,
    Resumed,
    Session,
    decode,
    encode,
    is_control,
)

UID = "0" * 32


@pytest.mark.parametrize("word", [Resume(UID, 7), Resume(""), Resumed(3, True), Ack(1 << 40)], ids=str)
def test_what_is_said_comes_out(word: Resume | Resumed | Ack) -> None:
    frame = encode(word)
    assert is_control(frame) and not is_bundle(frame)
    assert decode(frame) == word
    with pytest.raises(FrameError, match="1 frames with a word"):
        decode(frame, [b"more"])


def test_batches_and_bundles_are_something_else() -> None:
    assert not is_control(pack([(Stop("enough"), ())])[0])
    assert not is_control(bundle([([1], [b"x"])])[0])
    assert not is_control(b"")


@given(st.binary(max_size=60))
def test_any_bytes_give_a_word_or_one_error(data: bytes) -> None:
    try:
        assert isinstance(decode(MAGIC + data), (Resume, Resumed, Ack))
    except FrameError:
        return


def test_an_ack_is_due_after_so_many_batches_or_bytes() -> None:
    session: Session[int] = Session()
    assert [session.take(0) for _ in range(BATCHES)] == [False] * (BATCHES - 1) + [True]
    assert decode(session.ack()) == Ack(BATCHES)
    assert not session.take(BYTES - 1)
    assert session.take(1)


def test_acknowledged_batches_are_not_kept() -> None:
    session: Session[int] = Session()
    for number in range(5):
        session.add(number)
    session.acknowledged(3)
    session.acknowledged(2)  # an old one
    assert session.kept == 2
    assert session.lacking(4) == [4]
    for taken in (6, 1):
        with pytest.raises(FrameError):
            session.lacking(taken)


class End:
    """A rank or the controller, with what it took."""

    def __init__(self) -> None:
        self.session: Session[tuple[str, int]] = Session()
        self.got: list[int] = []
        self.sent = 0

    def send(self, wire: list[tuple[str, int]]) -> None:
        self.session.add(("batch", self.sent))
        wire.append(("batch", self.sent))
        self.sent += 1

    def take(self, what: tuple[str, int], wire: list[tuple[str, int]]) -> None:
        kind, value = what
        if kind == "ack":
            self.session.acknowledged(value)
            return
        self.got.append(value)
        if self.session.take(BYTES // 3):
            self.session.ack()
            wire.append(("ack", self.session.taken))


class Pair:
    """Both ends, and what an agent has in its hands for either."""

    def __init__(self) -> None:
        self.rank, self.controller = End(), End()
        self.up: list[tuple[str, int]] = []
        self.down: list[tuple[str, int]] = []

    def send(self, _: int) -> None:
        self.rank.send(self.up)

    def send_back(self, _: int) -> None:
        self.controller.send(self.down)

    def arrive(self, _: int = 0) -> None:
        if self.up:
            self.controller.take(self.up.pop(0), self.down)

    def arrive_back(self, _: int = 0) -> None:
        if self.down:
            self.rank.take(self.down.pop(0), self.up)

    def agent_dies(self, written: int) -> None:
        """All that it held is gone; of what it had written to the rank, that reads a part."""
        while written and self.down:
            written -= 1
            self.rank.take(self.down.pop(0), [])
        up = self.rank.session.lacking(self.controller.session.taken)
        self.down[:] = self.controller.session.lacking(self.rank.session.taken)
        self.up[:] = up


steps = st.sampled_from([Pair.send, Pair.send_back, Pair.arrive, Pair.arrive_back, Pair.agent_dies])


@given(st.lists(st.tuples(steps, st.integers(0, 5)), max_size=60))
def test_every_batch_arrives_once_and_in_order(steps: list[tuple[Callable[[Pair, int], None], int]]) -> None:
    pair = Pair()
    for step, number in steps:
        step(pair, number)
    pair.agent_dies(0)
    while pair.up or pair.down:
        pair.arrive()
        pair.arrive_back()
    assert pair.controller.got == list(range(pair.rank.sent))
    assert pair.rank.got == list(range(pair.controller.sent))
    assert pair.rank.session.kept <= BATCHES and pair.controller.session.kept <= BATCHES
