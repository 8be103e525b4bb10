"""What a client knows of its connection, without a connection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.client import machine
from hpcremote.client.machine import Session
from hpcremote.errors import EngineError, NotConnected
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame


@dataclass
class Sink:
    results: list[tuple[m.Result, Sequence[Frame]]] = field(default_factory=list)
    outputs: list[m.Output] = field(default_factory=list)
    lost: list[Exception] = field(default_factory=list)

    def on_result(self, result: m.Result, frames: Sequence[Frame]) -> None:
        self.results.append((result, frames))

    def on_results(self, results: Sequence[tuple[m.Result, Sequence[Frame]]]) -> None:
        self.results += results

    def on_output(self, output: m.Output) -> None:
        self.outputs.append(output)

    def on_lost(self, error: Exception) -> None:
        self.lost.append(error)


@dataclass
class Function:
    digest: bytes = b"d" * 16
    data: bytes = b"code"


def info(engine: int, uid: str = "") -> m.EngineInfo:
    return m.EngineInfo(engine, uid or f"uid{engine}", "set", engine, 4, "node", 1, True)


def session(count: int = 4) -> Session:
    made = Session()
    feed(made, m.Welcome("c1", "0", "host", 1, [info(number) for number in range(count)]))
    return made


def feed(to: Session, message: m.AnyMessage, frames: Sequence[Frame] = ()) -> list[m.AnyMessage]:
    deliveries, out = to.handle(message, frames)
    for deliver, arguments in deliveries:
        deliver(*arguments)
    return out


def call(
    to: Session, targets: Sequence[int], sink: Any = None, function: Function | None = None
) -> list[m.AnyMessage]:
    return to.call(to.number(), targets, "apply", [m.Part(b"x", [1])], function, "", sink or Sink())


def test_welcome_and_refusal() -> None:
    assert list(session().engines) == [0, 1, 2, 3]
    refused = Session()
    feed(refused, m.Refused("no"))
    assert (refused.welcome, refused.refused) == (None, "no")


def test_results_go_to_their_call_once() -> None:
    here, sink, other = session(), Sink(), Sink()
    (first,) = call(here, [0, 1], sink)
    (second,) = call(here, [1], other)
    assert isinstance(first, m.Call) and isinstance(second, m.Call)
    assert first.call != second.call
    assert here.open == 3
    feed(here, m.Result(first.call, 1, "ok", m.Part()), ["frame"])
    feed(here, m.Result(first.call, 1, "ok", m.Part()))  # again
    feed(here, m.Result(first.call, 3, "ok", m.Part()))  # not asked
    feed(here, m.Result(99, 0, "ok", m.Part()))  # unknown
    assert [(r.engine, list(f)) for r, f in sink.results] == [(1, ["frame"])]
    assert here.open == 2
    feed(here, m.Output(first.call, 0, 1, "text"))
    feed(here, m.Output(99, 0, 1, "text"))
    feed(here, m.Result(first.call, 0, "ok", m.Part()))
    assert [o.text for o in sink.outputs] == ["text"]
    assert here.open == 1
    feed(here, m.Output(first.call, 0, 1, "too late"))
    assert len(sink.outputs) == 1
    assert other.results == []


def test_a_function_travels_once_to_each_engine() -> None:
    here, function = session(), Function()
    define, first = call(here, [0, 1], function=function)
    assert define == m.Define([0, 1], function.digest, function.data)
    assert isinstance(first, m.Call) and first.digest == function.digest
    assert len(call(here, [0], function=function)) == 1
    define, _ = call(here, [0, 1, 2], function=function)
    assert define == m.Define([2], function.digest, function.data)
    # An engine that comes anew under an old id has it not.
    feed(here, m.Engines([], [m.Gone(0, "uid0", "killed")]))
    feed(here, m.Engines([info(0, "another")], []))
    define, _ = call(here, [0, 1, 2], function=function)
    assert define == m.Define([0], function.digest, function.data)


def test_an_engine_that_forgot_is_told_again() -> None:
    here, function = session(), Function()
    call(here, [0, 1], function=function)
    assert feed(here, m.Missing(1, function.digest)) == [m.Define([1], function.digest, function.data)]
    assert feed(here, m.Missing(1, b"other")) == [m.Define([1], b"other", b"")]


def test_definitions_are_kept_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "KEPT_DEFINITIONS", 3)
    here = session()
    functions = [Function(bytes([number]) * 16, b"code%d" % number) for number in range(5)]
    for function in functions:
        assert len(call(here, [0], function=function)) == 2
    assert len(here._definitions) == 3
    assert len(call(here, [0], function=functions[4])) == 1
    # Who was forgotten is defined again, rather than found missing.
    assert len(call(here, [0], function=functions[0])) == 2


def test_an_engine_that_goes_between_the_check_and_the_call() -> None:
    here, function = session(), Function()
    here.check([0, 1])
    feed(here, m.Engines([], [m.Gone(1, "uid1", "killed")]))
    define, made = call(here, [0, 1], function=function)
    assert define == m.Define([0], function.digest, function.data)
    assert isinstance(made, m.Call) and made.targets == [0, 1]  # the controller answers for engine 1


def test_absent_engines_are_told_how_they_went() -> None:
    here = session(2)
    with pytest.raises(EngineError, match=r"there is no engine 7; there are: 0, 1") as caught:
        here.check([0, 7])
    assert caught.value.engine_id == 7
    feed(here, m.Engines([], [m.Gone(1, "uid1", "killed by SIGKILL", "last words")]))
    with pytest.raises(EngineError, match=r"engine 1 is gone: killed by SIGKILL(.|\n)*last words") as caught:
        here.check([1])
    assert (caught.value.cause, caught.value.output) == ("killed by SIGKILL", "last words")
    feed(here, m.Engines([info(1, "anew")], []))
    here.check([1])


def test_engines_are_replaced_never_changed() -> None:
    here = session(2)
    before = here.engines
    feed(here, m.Engines([info(5), info(4)], [m.Gone(0, "uid0", "left")]))
    assert list(before) == [0, 1]
    assert list(here.engines) == [1, 4, 5]


def test_requests() -> None:
    here = session()
    number = here.request()
    assert here.answer(number) is None
    feed(here, m.Answer(number + 1, "5"))
    assert here.answer(number) is None
    assert here.answer(number + 1) is None
    feed(here, m.Answer(number, '{"a": [1]}'))
    assert here.answer(number) == ({"a": [1]}, "")
    here.close_request(number)
    feed(here, m.Answer(number, "too late"))
    assert here.answer(number) is None
    failed = here.request()
    feed(here, m.Answer(failed, "", "cannot tell"))
    assert here.answer(failed) == (None, "cannot tell")


def test_a_lost_connection_closes_every_call_once() -> None:
    here, sinks = session(), [Sink(), Sink()]
    (first,) = call(here, [0, 1], sinks[0])
    call(here, [2], sinks[1])
    assert isinstance(first, m.Call)
    feed(here, m.Result(first.call, 0, "ok", m.Part()))
    error = NotConnected("gone")
    for deliver, arguments in here.fail_all(error):
        deliver(*arguments)
    assert [sink.lost for sink in sinks] == [[error], [error]]
    assert (here.open, here.engines, here.fail_all(error)) == (0, {}, [])
    feed(here, m.Result(first.call, 1, "ok", m.Part()))
    assert len(sinks[0].results) == 1


answers = st.lists(st.tuples(st.integers(0, 8), st.integers(-1, 5)), max_size=60)


@given(st.lists(st.lists(st.integers(0, 3), unique=True, min_size=1), min_size=1, max_size=6), answers)
def test_whatever_comes_each_target_answers_once_and_the_count_is_right(
    calls: list[list[int]], came: list[tuple[int, int]]
) -> None:
    here, sinks = session(), {}
    for targets in calls:
        sink = Sink()
        (made,) = call(here, targets, sink)
        assert isinstance(made, m.Call)
        sinks[made.call] = (set(targets), sink)
    for number, engine in came:
        feed(here, m.Result(number, engine, "ok", m.Part()))
    for number, (targets, sink) in sinks.items():
        got = [result.engine for result, _ in sink.results]
        assert len(got) == len(set(got))
        assert set(got) == targets & {engine for other, engine in came if other == number}
    assert here.open == sum(len(targets) - len(sink.results) for targets, sink in sinks.values())
