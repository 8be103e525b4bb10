from __future__ import annotations

import gc

import pytest

from hpcremote.client import memory as module
from hpcremote.client.flight import Flight
from hpcremote.client.memory import Memory, metadata_of, results_of
from hpcremote.wire import payload
from hpcremote.wire.messages import Result


def sent(memory: Memory, number: int, *targets: int) -> Flight:
    flight = Flight(
        uid="me", method="apply", name="f", label=None, targets=targets, engines={}, keep=memory.landed
    )
    flight.call = number
    memory.add(flight)
    return flight


def land(flight: Flight, value: object = None) -> None:
    for engine in flight.targets:
        part, frames = payload.to_part(payload.dump_result(value))
        flight.on_result(Result(flight.call, engine, "ok", part), frames)


def test_a_call_is_found_by_its_names() -> None:
    memory = Memory("me")
    flight = sent(memory, 1, 4, 2)
    assert memory.history.msg_ids() == ["me_1_4", "me_1_2"]
    assert memory.find("me_1_2") == (flight, 1)
    assert memory.history.pick(-1) == "me_1_2"
    for unknown in ("me_1_3", "me_2_4", "you_1_4", "me", "me_1", "me_x_4", ""):
        with pytest.raises(KeyError, match="no result for"):
            memory.find(unknown)


def test_a_pending_call_nobody_holds_is_forgotten_and_a_finished_small_one_is_not() -> None:
    memory = Memory("me")
    sent(memory, 1, 0)
    land(sent(memory, 2, 0), "small")
    land(sent(memory, 3, 0), bytes(module.SMALL))
    gc.collect()
    assert [flight.call for flight in memory.flights()] == [2]
    assert dict(results_of(memory)) == {"me_2_0": "small"}
    assert memory.history.msg_ids() == ["me_1_0", "me_2_0", "me_3_0"]


def test_the_history_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HISTORY", 3)
    memory = Memory("me")
    for number in range(1, 6):
        land(sent(memory, number, 0))
    assert memory.history.msg_ids() == ["me_3_0", "me_4_0", "me_5_0"]
    with pytest.raises(IndexError, match="3 entries, no number -4"):
        memory.history.pick(-4)


def test_outstanding_is_what_owes_a_result() -> None:
    memory = Memory("me")
    first, second = sent(memory, 1, 0, 1), sent(memory, 2, 0)
    part, frames = payload.to_part(payload.dump_result(None))
    first.on_result(Result(1, 1, "ok", part), frames)
    assert memory.outstanding() == {"me_1_0", "me_2_0"}
    assert memory.pending() == [first, second]
    assert set(metadata_of(memory)) == {"me_1_0", "me_1_1", "me_2_0"}


def test_forgetting() -> None:
    memory = Memory("me")
    pending, first, second = sent(memory, 1, 0), sent(memory, 2, 0), sent(memory, 3, 0)
    land(first)
    land(second)
    memory.forget([(first, 0)])
    assert memory.flights() == [pending, second]
    memory.forget()
    assert memory.flights() == [pending]
