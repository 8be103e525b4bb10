from __future__ import annotations

from typing import Any

import pytest

from hpcremote.client.flight import Flight, Raised, attend
from hpcremote.errors import EngineError, NotConnected, TaskAborted
from hpcremote.wire import payload
from hpcremote.wire.messages import EngineInfo, Output, Part, Result

ENGINES = {
    3: EngineInfo(3, "u3", "set", 3, 8, "node7", 1, True),
    5: EngineInfo(5, "u5", "set", -1, 1, "node8", 1, True),
}


class Waiter:
    def __init__(self) -> None:
        self.owed = 0
        self.arrivals = 0

    def arrived(self) -> None:
        self.arrivals += 1


def flight(*targets: int) -> tuple[Flight, list[Flight]]:
    kept: list[Flight] = []
    made = Flight(
        uid="me", method="apply", name="f", label=None, targets=targets, engines=ENGINES, keep=kept.append
    )
    return made, kept


def ok(engine: int, value: Any = None, **more: Any) -> tuple[Result, list[Any]]:
    part, frames = payload.to_part(payload.dump_result(value))
    return Result(7, engine, "ok", part, 1.0, 2.0, **more), frames


def test_seats_are_in_view_order_whatever_the_order_of_arrival() -> None:
    it, kept = flight(5, 3)
    it.on_result(*ok(3, "three"))
    assert (it.missing, kept) == (1, [])
    it.on_result(*ok(5, "five"))
    assert [it.outcome(0), it.outcome(1)] == ["five", "three"]
    assert it.call == 7 and it.msg_id(0) == "me_7_5"
    assert kept == [it]


def test_who_waits_is_told_once() -> None:
    it, _ = flight(3, 5)
    one, whole, both = Waiter(), Waiter(), Waiter()
    attend(one, [(it, 1)])
    attend(whole, [(it, -1)])
    attend(both, [(it, 0), (it, 1)])
    assert [one.owed, whole.owed, both.owed] == [1, 1, 2]
    it.on_result(*ok(5))
    assert [one.arrivals, whole.arrivals, both.arrivals] == [1, 0, 0]
    it.on_result(*ok(3))
    assert [one.arrivals, whole.arrivals, both.arrivals] == [1, 1, 1]
    late = Waiter()
    attend(late, [(it, 0), (it, -1)])
    assert late.owed == 0


def test_only_the_first_answer_counts() -> None:
    it, kept = flight(3)
    it.on_result(*ok(3, "first"))
    it.on_result(*ok(3, "second"))
    it.on_lost(NotConnected("gone"))
    assert it.outcome(0) == "first"
    assert len(kept) == 1


def test_what_is_missing_when_the_controller_goes_is_lost() -> None:
    it, _ = flight(3, 5)
    it.on_result(*ok(3, 1))
    gone = NotConnected("gone")
    it.on_lost(gone)
    assert it.outcome(0) == 1
    outcome = it.outcome(1)
    assert isinstance(outcome, Raised) and outcome.error is gone
    assert it.metadata(1)["status"] == "error" and it.metadata(1)["error"] is gone
    assert it.missing == 0


def test_each_way_to_fail_has_its_error() -> None:
    it, _ = flight(3, 5)
    it.on_result(Result(7, 3, "aborted", Part()), ())
    it.on_result(Result(7, 5, "lost", Part(), out="tail\n", err="killed by SIGKILL"), ())
    aborted, lost = it.outcome(0).error, it.outcome(1).error
    assert isinstance(aborted, TaskAborted)
    assert str(aborted) == "apply(f) was aborted before it started on engine 3 (rank 3 on node7)"
    assert isinstance(lost, EngineError)
    assert str(lost).startswith("engine 5 (on node8) ended before it answered apply(f): killed by SIGKILL")
    assert (lost.engine_id, lost.output) == (5, "tail\n")
    assert it.text(1, 1) == ""


def test_garbage_is_an_error_of_that_engine() -> None:
    it, _ = flight(3)
    it.on_result(Result(7, 3, "ok", Part(b"garbage", [7])), ())
    outcome = it.outcome(0)
    assert isinstance(outcome, Raised)
    assert "f returned on engine 3 (rank 3 on node7) cannot be unpickled" in str(outcome.error)


def test_bytes_are_let_go_once_they_are_read() -> None:
    it, _ = flight(3)
    it.on_result(*ok(3, bytearray(200_000)))
    value = it.outcome(0)
    assert len(value) == 200_000
    assert it.outcome(0) is value
    assert it.results[0] is not None and it.results[0].part == Part()
    assert it.weight > 200_000


def test_shared_memory_and_output_weigh_too() -> None:
    it, _ = flight(3)
    it.on_output(Output(7, 3, 1, "x" * 1000))
    assert it.weight == 1000
    result = Result(7, 3, "ok", Part(b"", [200_000], 0, "blob"))
    it.on_result(result, [memoryview(bytearray(200_000))])  # the link has mapped it
    assert it.weight == 201_000


def test_output_is_in_order_and_watched_without_a_gap() -> None:
    class Stream:
        def __init__(self) -> None:
            self.fed: list[tuple[int, int, str]] = []

        def feed(self, engine: int, stream: int, text: str) -> None:
            self.fed.append((engine, stream, text))

    it, _ = flight(3, 5)
    stream = Stream()
    it.on_output(Output(7, 3, 1, "a"))
    assert it.watch(stream) == [(3, 1, "a")]
    it.on_output(Output(7, 5, 2, "b"))
    it.on_result(*ok(3, out="c", err="d"))
    it.unwatch(stream)
    it.on_output(Output(7, 5, 1, "e"))
    assert stream.fed == [(5, 2, "b"), (3, 1, "c"), (3, 2, "d")]
    assert (it.text(0, 1), it.text(0, 2), it.text(1, 1), it.text(1, 2)) == ("ac", "d", "e", "b")


def test_a_value_that_has_not_come_cannot_be_read() -> None:
    it, _ = flight(3)
    with pytest.raises(RuntimeError, match="engine 3 has not answered"):
        it.outcome(0)
