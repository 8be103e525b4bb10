"""What the controller makes of clients whose connection breaks and who may come back."""

from __future__ import annotations

from hpcremote.controller.absent import PATIENCE
from hpcremote.controller.events import Rejoined, Severed, Tick
from hpcremote.wire import messages as m
from tests.controller.test_agents import Bench


def call(bench: Bench, number: int) -> None:
    bench.say("c", m.Call(number, [0, 1], "apply", b"", [m.Part(b"x", [1])]))


def test_what_a_client_asked_for_goes_on_while_it_is_away() -> None:
    bench = Bench()
    call(bench, 1)
    bench.feed(Severed("c"))
    assert bench.got("e0", m.Drop) == []
    bench.say("e0", m.Done(1, "ok", m.Part()))
    bench.feed(Rejoined("c"))
    bench.say("e1", m.Done(1, "ok", m.Part()))
    assert [result.engine for result in bench.got("c", m.Result)] == [0, 1]  # type: ignore[attr-defined]
    assert "client uidc is back" in bench.log
    assert bench.forgotten == []
    bench.now += 2 * PATIENCE
    bench.feed(Tick())
    call(bench, 2)
    assert len(bench.got("e0", m.Run)) == 2


def test_one_that_stays_away_is_given_up() -> None:
    bench = Bench()
    call(bench, 1)
    bench.feed(Severed("c"))
    bench.wait(PATIENCE)
    bench.feed(Tick())
    assert bench.forgotten == ["c"]
    assert [drop.seqs for drop in bench.got("e0", m.Drop)] == [[1]]  # type: ignore[attr-defined]
    assert "client uidc left with 1 open calls" in bench.log
