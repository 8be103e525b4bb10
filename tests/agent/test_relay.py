"""The agent's part in the middle: streams of ranks on one side, bundles on the other."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcremote.agent.relay import Relay
from hpcremote.net.stream import Closed, Stream
from hpcremote.wire import messages as m
from hpcremote.wire.frames import pack
from hpcremote.wire.lanes import bundle, unbundle
from hpcremote.wire.session import Resume, encode
from tests.integration.support import eventually

UIDS = [f"{number:032x}" for number in range(4)]
Entry = tuple[list[int], bytes, list[bytes]]


class Bench:
    """A relay and its ranks."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "link"
        self.poll = select.epoll()
        self.relay = Relay(self.poll, self.path)
        self.relay.open()
        self.ranks: list[Stream] = []
        self.entries: list[Entry] = []

    def rank(self) -> Stream:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(self.path))
        made = Stream(sock, keep=True)
        made.send([encode(Resume(UIDS[len(self.ranks)]))])
        self.ranks.append(made)
        return made

    def turn(self) -> None:
        for fd, events in self.poll.poll(0.01):
            self.relay.on(fd, events)
        if frames := self.relay.take():
            for lanes, head, share in unbundle(frames[0], frames[1:]):
                self.entries.append((lanes, head, [bytes(one) for one in share]))

    def until(self, count: int) -> list[Entry]:
        def there() -> bool:
            self.turn()
            return len(self.entries) >= count

        eventually(there, why=f"{count} entries did not come")
        entries, self.entries = self.entries, []
        return entries

    def hear(self, rank: int, count: int) -> list[tuple[bytes, list[bytes]]]:
        heard: list[tuple[bytes, list[bytes]]] = []

        def there() -> bool:
            self.turn()
            heard.extend(
                (bytes(head), [bytes(one) for one in share]) for head, share in self.ranks[rank].receive()
            )
            return len(heard) >= count

        eventually(there)
        return heard


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.relay.shut()
    for rank in made.ranks:
        rank.close()
    made.poll.close()


def say(text: str) -> bytes:
    (head,) = pack([(m.Leaving(text), ())])
    return head


def test_every_rank_has_a_lane_and_its_batches_stay_whole(bench: Bench) -> None:
    for _ in range(2):
        bench.rank()
    assert [lanes for lanes, _, _ in bench.until(2)] == [[1], [2]]
    big = os.urandom(3_000_000)
    bench.ranks[1].send([say("big"), big, b""])
    bench.ranks[0].send([say("small")])
    while bench.ranks[1].pending:
        bench.ranks[1].flush()
        bench.turn()
    assert sorted(bench.until(2)) == [([1], say("small"), []), ([2], say("big"), [big, b""])]


def test_what_is_for_several_is_handed_to_each(bench: Bench) -> None:
    for _ in range(3):
        bench.rank()
    bench.until(3)
    big = os.urandom(2_000_000)
    head, *frames = bundle([([1, 3, 99], [say("for two"), big]), ([2], [say("for one")])])
    bench.relay.deliver(head, frames)
    assert bench.hear(0, 1) == bench.hear(2, 1) == [(say("for two"), [big])]
    assert bench.hear(1, 1) == [(say("for one"), [])]


def test_a_rank_that_goes_is_told_after_all_that_it_said(bench: Bench) -> None:
    rank = bench.rank()
    for _ in range(100):
        rank.send([say("x")])
    rank.close()
    entries = bench.until(102)
    assert [head for _, head, _ in entries[1:]] == [say("x")] * 100 + [b""]


def test_a_rank_that_has_ended_is_gone_even_if_a_child_holds_its_stream(bench: Bench) -> None:
    rank, other = bench.rank(), bench.rank()
    bench.until(2)
    rank.send([say("last"), bytes(300_000)])  # the kernel has it; nobody has looked
    bench.relay.ended(UIDS[0])
    bench.relay.ended(UIDS[3])  # never came
    assert [(lanes, head) for lanes, head, _ in bench.until(2)] == [([1], say("last")), ([1], b"")]
    other.send([say("still here")])
    assert bench.until(1) == [([2], say("still here"), [])]


def test_without_a_way_to_the_controller_ranks_are_let_go_and_come_again(bench: Bench) -> None:
    rank = bench.rank()
    bench.until(1)
    bench.relay.shut()
    assert not bench.path.exists()
    with pytest.raises(Closed):
        while True:
            rank.receive()
    bench.relay.open()
    bench.rank()
    assert [lanes for lanes, _, _ in bench.until(1)] == [[2]]


def test_ranks_wait_while_the_way_is_full(bench: Bench) -> None:
    rank = bench.rank()
    bench.until(1)
    bench.relay.pause(True)
    rank.send([say("waits")])
    for _ in range(5):
        bench.turn()
    assert bench.entries == []
    head, *frames = bundle([([1], [say("what is for it does not"), bytes(5_000_000)])])
    bench.relay.deliver(head, frames)
    assert len(bench.hear(0, 1)) == 1
    assert bench.entries == []
    bench.relay.pause(False)
    assert bench.until(1) == [([1], say("waits"), [])]
