"""Lanes whose agent is gone: who comes back by another one has lost nothing; without sockets."""

from __future__ import annotations

import pytest

from hpcremote.net.happenings import Came, Got, Happening, Peer, Rejoined, Severed, Went
from hpcremote.net.relay import Lanes
from hpcremote.wire import messages as m
from hpcremote.wire.frames import FrameError, pack, unpack
from hpcremote.wire.lanes import bundle, unbundle
from hpcremote.wire.session import BATCHES, Ack, Resume, Resumed, decode, encode, is_control

OLD, NEW = Peer(False, b"old"), Peer(False, b"new")
UIDS = [f"{number:032x}" for number in range(3)]
Said = tuple[Peer, list[int], object]


class Bench:
    """Lanes, what happened, and what was sent to agents: words about sessions, and causes of Stop."""

    def __init__(self) -> None:
        self.lanes = Lanes()
        self.sent: list[Said] = []

    def say(self, carrier: Peer, *entries: tuple[list[int], object]) -> list[Happening]:
        happened: list[Happening] = []
        packed = [(lanes, self._frames(what)) for lanes, what in entries]
        head, *frames = bundle(packed)
        try:
            self.lanes.take_in(carrier, "engine", head, frames, happened)
        finally:
            self._note(self.lanes.take_answers())
        return happened

    @staticmethod
    def _frames(what: object) -> list[bytes]:
        if what is None:
            return []
        if isinstance(what, str):
            return pack([(m.Leaving(what), ())])
        return [what if isinstance(what, bytes) else encode(what)]  # type: ignore[arg-type]

    def send(self, *peers: Peer, what: str) -> None:
        stop = m.Stop(what)
        self._note(self.lanes.parcel_out([(peer, [(stop, ())]) for peer in peers]))

    def _note(self, out: object) -> None:
        for carrier, (head, *frames) in out:  # type: ignore[attr-defined]
            for lanes, batch, share in unbundle(head, frames):
                said = decode(batch) if is_control(batch) else unpack(batch, share)[0][0].reason  # type: ignore[union-attr]
                self.sent.append((carrier, lanes, said))

    def taken(self) -> list[Said]:
        sent, self.sent = self.sent, []
        return sent


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_rank_that_comes_by_another_agent_is_who_it_was(bench: Bench) -> None:
    assert bench.say(OLD, ([1], Resume(UIDS[0])), ([2], Resume(UIDS[1])), ([1], "a")) == [
        Came(Peer(*OLD[:2], 1), "engine", False),
        Came(Peer(*OLD[:2], 2), "engine", False),
        Got(Peer(*OLD[:2], 1), m.Leaving("a"), ()),
    ]
    first, second = Peer(*OLD[:2], 1), Peer(*OLD[:2], 2)
    assert bench.taken() == [(OLD, [1, 2], Resumed(0, False))]
    bench.send(first, second, what="arrives")
    bench.send(first, what="is lost")
    assert bench.lanes.end(OLD) == [Severed(first), Severed(second)]
    bench.send(first, what="waits")
    assert bench.taken() == [(OLD, [1, 2], "arrives"), (OLD, [1], "is lost")]
    assert bench.say(NEW, ([7], Resume(UIDS[0], 1)), ([7], "b")) == [
        Rejoined(first), Got(first, m.Leaving("b"), ())
    ]  # fmt: skip
    assert bench.taken() == [(NEW, [7], Resumed(1, True)), (NEW, [7], "is lost"), (NEW, [7], "waits")]
    bench.send(first, second, what="goes on")
    assert bench.taken() == [(NEW, [7], "goes on")]
    assert bench.say(NEW, ([7], None)) == [Went(first)]
    bench.send(first, what="nobody is there")
    assert bench.taken() == []


def test_a_rank_may_be_back_before_its_old_agent_is_known_to_be_gone(bench: Bench) -> None:
    bench.say(OLD, ([1], Resume(UIDS[0])))
    peer = Peer(*OLD[:2], 1)
    assert bench.say(NEW, ([1], Resume(UIDS[0]))) == []
    assert bench.say(OLD, ([1], "late: it will be sent again"), ([1], None)) == []
    assert bench.lanes.end(OLD) == []
    assert bench.say(NEW, ([1], "now")) == [Got(peer, m.Leaving("now"), ())]
    assert bench.lanes.end(NEW) == [Severed(peer)]


def test_who_was_given_up_begins_anew(bench: Bench) -> None:
    bench.say(OLD, ([1], Resume(UIDS[0])))
    bench.lanes.end(OLD)
    bench.lanes.forget(Peer(*OLD[:2], 1))
    bench.taken()
    assert bench.say(NEW, ([1], Resume(UIDS[0], 5))) == [Came(Peer(*NEW[:2], 1), "engine", False)]
    assert bench.taken() == [(NEW, [1], Resumed(0, False))]


def test_what_is_the_same_for_many_is_there_once(bench: Bench) -> None:
    bench.say(OLD, ([1], Resume(UIDS[0])), ([2], Resume(UIDS[1])))
    bench.say(NEW, ([1], Resume(UIDS[2])))
    bench.taken()
    first, second, other = Peer(*OLD[:2], 1), Peer(*OLD[:2], 2), Peer(*NEW[:2], 1)
    alone, for_all = m.Stop("for one"), m.Stop("for all")
    shared = ((for_all, ()),)
    bench._note(
        bench.lanes.parcel_out([(first, shared), (other, shared), (second, shared), (first, [(alone, ())])])
    )
    assert bench.taken() == [(OLD, [1, 2], "for all"), (OLD, [1], "for one"), (NEW, [1], "for all")]
    bench.lanes.end(OLD)
    bench.say(NEW, ([2], Resume(UIDS[0], 1)), ([3], Resume(UIDS[1])))
    assert bench.taken()[1::2] == [(NEW, [2], "for one"), (NEW, [3], "for all")]


def test_acks_go_both_ways(bench: Bench) -> None:
    bench.say(OLD, ([1], Resume(UIDS[0])))
    peer = Peer(*OLD[:2], 1)
    for number in range(BATCHES):
        bench.send(peer, what=str(number))
    bench.say(OLD, ([1], Ack(BATCHES - 1)))
    bench.lanes.end(OLD)
    bench.taken()
    bench.say(NEW, ([1], Resume(UIDS[0], BATCHES - 1)))
    assert bench.taken()[1:] == [(NEW, [1], str(BATCHES - 1))]
    for _ in range(BATCHES):
        bench.say(NEW, ([1], "x"))
    assert bench.taken() == [(NEW, [1], Ack(BATCHES))]


def test_garbage_of_one_rank_is_counted_and_takes_nothing_from_others(bench: Bench) -> None:
    bench.say(OLD, ([1], Resume(UIDS[0])), ([2], Resume(UIDS[1])))
    with pytest.raises(FrameError):
        bench.say(OLD, ([1], b"garbage"), ([2], "fine"))
    bench.lanes.end(OLD)
    bench.taken()
    bench.say(NEW, ([1], Resume(UIDS[0])), ([2], Resume(UIDS[1])))
    assert bench.taken() == [(NEW, [1, 2], Resumed(1, True))]


def test_what_nobody_can_have_taken_changes_nothing(bench: Bench) -> None:
    bench.say(OLD, ([1], Resume(UIDS[0])))
    with pytest.raises(FrameError, match="are said to have been taken"):
        bench.say(NEW, ([1], Resume(UIDS[0], 9)))
    bench.send(Peer(*OLD[:2], 1), what="still here")
    assert bench.taken()[-1] == (OLD, [1], "still here")


def test_a_client_has_one_lane_and_its_own_sessions(bench: Bench) -> None:
    bench.say(OLD, ([1], Resume(UIDS[0])))
    client = Peer(False, b"client")

    def say(*entries: tuple[list[int], object]) -> list[Happening]:
        happened: list[Happening] = []
        head, *frames = bundle([(lanes, encode_one(what)) for lanes, what in entries])
        bench.lanes.take_in(client, "client", head, frames, happened)
        return happened

    def encode_one(what: object) -> list[bytes]:
        return Bench._frames(what)

    with pytest.raises(FrameError, match="a session of another role"):
        say(([1], Resume(UIDS[0])))
    assert say(([1], Resume(UIDS[1]))) == [Came(Peer(False, b"client", 1), "client", False)]
    with pytest.raises(FrameError, match="and 1 are the most"):
        say(([2], Resume(UIDS[2])))
    farewell = [(carrier, unbundle(head, frames)) for carrier, (head, *frames) in bench.lanes.farewell()]
    assert farewell == [(client, [([1], b"", [])])]
