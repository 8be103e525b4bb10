"""Calls that run for too long are told, once, with the stacks of their engines."""

from __future__ import annotations

import json

import pytest

from hpcremote.controller.events import Arrived, Log, Opened, Send, Tick
from hpcremote.controller.machine import Controller
from hpcremote.wire import messages as m

LIMIT = 8.0
STACK = 'Stack (most recent call first):\n  File "/home/solve.py", line 12 in solve\n'


class Bench:
    """A controller with a watchdog, two engines, their agent and a client; time goes where it is told to."""

    def __init__(self, limit: float = LIMIT) -> None:
        self.machine = Controller("test", "0", "here", 1, watchdog=limit)
        self.now = 100.0
        self.sent: list[tuple[object, m.AnyMessage]] = []
        self.log: list[str] = []
        for rank in (1, 0):
            self.feed(Opened(f"e{rank}", "engine", False))
            self.say(f"e{rank}", m.Join(f"uid{rank}", "set", rank, m.PROTOCOL, "0"))
        members = [m.Member(f"uid{rank}", rank, "node", 10 + rank, mpi="M") for rank in (0, 1)]
        self.say("e0", m.Register("set", 2, members))
        self.feed(Opened("a", "engine", False))
        self.say("a", m.Attend("node", 9, m.PROTOCOL, ["uid0", "uid1"]))
        self.feed(Opened("c", "client", True))
        self.say("c", m.Hello("uidc", m.PROTOCOL, "0", "here", 2, "3.11"))

    def feed(self, event: object) -> None:
        for action in self.machine.handle(event, self.now):  # type: ignore[arg-type]
            if isinstance(action, Send):
                self.sent.append((action.peer, action.message))
                if isinstance(action.message, m.Look):
                    sights = [m.Sight(uid, STACK, "sleeping") for uid in action.message.uids]
                    self.say("a", m.Seen(action.message.request, sights))
            elif isinstance(action, Log):
                self.log.append(action.text)

    def say(self, peer: str, message: m.AnyMessage) -> None:
        self.feed(Arrived(peer, message, ()))

    def call(self, number: int) -> None:
        self.say("c", m.Call(number, [0, 1], "apply", b"", [m.Part()]))

    def done(self, seq: int, *ranks: int) -> None:
        for rank in ranks:
            self.say(f"e{rank}", m.Done(seq, "ok", m.Part()))

    def go_on(self, seconds: float) -> None:
        """Let time pass, with a tick at each deadline that the machine names."""
        end = self.now + seconds
        for _ in range(1000):
            due = self.machine.deadline()
            if due is None or due > end:
                break
            self.now = max(due, self.now)
            self.feed(Tick())
        else:
            raise AssertionError("it never rests")
        self.now = end

    def told(self) -> list[m.Hanging]:
        return [message for to, message in self.sent if to == "c" and isinstance(message, m.Hanging)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_call_that_runs_for_too_long_is_told_once(bench: Bench) -> None:
    bench.call(7)
    bench.go_on(LIMIT - 0.1)
    assert bench.told() == []
    bench.go_on(LIMIT)
    (told,) = bench.told()
    assert told.call == 7
    assert LIMIT <= told.seconds <= LIMIT * 1.5
    rows = json.loads(told.data)
    assert [rows[engine]["text"] for engine in ("0", "1")] == [STACK, STACK]
    assert (
        f"call 7 of client uidc has run for {told.seconds:.1f} s: engines 0-1 in solve() at solve.py:12"
        in (bench.log)
    )
    bench.go_on(10 * LIMIT)
    assert len(bench.told()) == 1


def test_calls_that_end_in_time_are_not_told_however_many(bench: Bench) -> None:
    for number in range(1, 9):
        bench.call(number)
    for seq in range(1, 9):  # those behind have waited for longer than the limit, but not run for as long
        bench.go_on(LIMIT / 2)
        bench.done(seq, 0, 1)
    assert bench.told() == []
    assert bench.machine.deadline() is None


def test_one_rank_that_goes_on_is_enough_and_the_next_call_is_told_too(bench: Bench) -> None:
    for number in (7, 8):
        bench.call(number)
    bench.done(1, 0)
    bench.go_on(2 * LIMIT)
    assert {told.call for told in bench.told()} == {7, 8}
    bench.done(1, 1)
    bench.go_on(2 * LIMIT)
    assert [told.call for told in bench.told()].count(8) == 1


def test_without_a_limit_nobody_looks() -> None:
    bench = Bench(0.0)
    bench.call(7)
    assert bench.machine.deadline() is None
