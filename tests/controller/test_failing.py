"""Calls that fail on one engine while others wait for it in MPI: who is told what, and when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.controller.events import Arrived, Lost, Opened, Send, Tick
from hpcremote.controller.failing import PATIENCE
from hpcremote.controller.machine import Controller
from hpcremote.wire import messages as m

GRACE = 2.0


class Stage:
    """A controller with sets of MPI engines and one client."""

    def __init__(self, *sizes: int) -> None:
        self.machine = Controller("test", "0", "here", 1, collective_grace=GRACE)
        self.now = 100.0
        self.sent: dict[object, list[m.AnyMessage]] = {}
        for number, size in enumerate(sizes):
            self._set(f"s{number}", size)
        self._open("c", m.Hello("c" * 32, m.PROTOCOL, "0", "here", 2, "3.11"))
        self.calls = 0

    def _open(self, peer: object, message: m.AnyMessage) -> None:
        self._take(self.machine.handle(Opened(peer, "any", True), self.now))
        self.say(peer, message)

    def _set(self, set_id: str, size: int) -> None:
        base = len(self.machine.roster.engines)
        for rank in range(size):
            self._open(base + rank, m.Join(f"{set_id}-{rank}", set_id, rank, m.PROTOCOL, "0"))
        members = [m.Member(f"{set_id}-{rank}", rank, "here", 9, mpi="MPICH") for rank in range(size)]
        self.say(base, m.Register(set_id, size, members))

    def _take(self, actions: Sequence[object]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.sent.setdefault(action.peer, []).append(action.message)

    def say(self, peer: object, message: m.AnyMessage) -> None:
        self._take(self.machine.handle(Arrived(peer, message, ()), self.now))

    def call(self, *targets: int, grace: float = -1.0) -> int:
        """Make a call; return its number in the one order."""
        self.calls += 1
        self.say("c", m.Call(self.calls, list(targets), "apply", b"", [m.Part(b"x", [1])], "", grace))
        run = [message for message in self.sent[targets[0]] if isinstance(message, m.Run)][-1]
        return run.seq

    def done(self, engine: int, seq: int, status: str = "ok", mpi: int = 0) -> None:
        self.say(engine, m.Done(seq, status, m.Part(), mpi=mpi))

    def lose(self, engine: int) -> None:
        self._take(self.machine.handle(Lost(engine, "killed by SIGKILL"), self.now))

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._take(self.machine.handle(Tick(), self.now))

    def told(self, engine: object, kind: type) -> list[Any]:
        return [message for message in self.sent.get(engine, []) if type(message) is kind]

    def stock(self) -> list[m.Stock]:
        """Make the spares that engines are told to make; return what they were told."""
        made: dict[int, m.Stock] = {}
        while owed := [
            (engine, message)
            for engine in self.machine.roster.engines
            for message in self.told(engine, m.Stock)
            if message.seq in self.machine.roster.engines[engine].runs
        ]:
            for engine, message in owed:
                made[message.seq] = message
                self.done(engine, message.seq)
        return list(made.values())

    def released(self, seq: int) -> list[int]:
        engines = [peer for peer in self.sent if peer != "c"]
        return [e for e in engines if any(x.seq == seq for x in self.told(e, m.Release))]


@pytest.fixture
def stage() -> Stage:
    return Stage(4)


def test_those_that_wait_are_released_after_the_grace_period(stage: Stage) -> None:
    seq = stage.call(0, 1, 2, 3)
    stage.done(3, seq)
    stage.done(1, seq, "error")
    assert stage.machine.deadline() == stage.now + GRACE
    stage.wait(GRACE - 0.1)
    assert stage.released(seq) == []
    stage.wait(0.1)
    assert stage.released(seq) == [0, 2]
    assert stage.machine.deadline() is None


def test_a_call_has_its_own_grace_period(stage: Stage) -> None:
    seq = stage.call(0, 1, grace=0.0)
    stage.done(1, seq, "error")
    stage.wait(0.0)
    assert stage.released(seq) == [0]
    never = stage.call(0, 1, grace=float("inf"))
    stage.done(1, never, "error")
    assert stage.machine.deadline() is None


def test_nobody_is_released_from_a_call_that_ended_in_time(stage: Stage) -> None:
    seq = stage.call(0, 1)
    stage.done(1, seq, "error")
    stage.done(0, seq)
    assert stage.machine.deadline() is None
    stage.wait(GRACE)
    assert stage.released(seq) == []


def test_a_call_on_one_engine_releases_nobody(stage: Stage) -> None:
    seq = stage.call(2)
    stage.done(2, seq, "error", mpi=m.WORLD)
    stage.stock()
    assert stage.machine.deadline() is None
    assert not any(stage.told(engine, m.Renew) for engine in range(4))


def test_a_dead_engine_is_one_that_failed(stage: Stage) -> None:
    seq = stage.call(0, 1)
    stage.lose(1)
    stage.wait(GRACE)
    assert stage.released(seq) == [0]


def test_an_aborted_one_is_one_that_failed(stage: Stage) -> None:
    seq = stage.call(0, 1)
    stage.done(1, seq, "aborted")
    stage.wait(GRACE)
    assert stage.released(seq) == [0]


def test_without_communication_only_those_that_failed_are_told_that_it_is_over(stage: Stage) -> None:
    seq = stage.call(0, 1, 2)
    stage.done(1, seq, "error")
    stage.done(0, seq)
    assert stage.told(1, m.Settled) == []
    stage.done(2, seq)
    assert stage.told(1, m.Settled) == [m.Settled(seq)]
    assert not stage.told(0, m.Settled)
    assert not any(stage.told(engine, m.Renew) for engine in range(4))


def test_the_communicator_of_the_call_is_renewed_by_its_engines(stage: Stage) -> None:
    seq = stage.call(2, 0, 1)
    stage.done(1, seq, "error")
    stage.done(0, seq, "released", mpi=m.OWN_COMM)
    stage.done(2, seq)
    (renewal,) = stage.told(0, m.Renew)
    assert (renewal.after, renewal.ranks, renewal.world) == (seq, [2, 0, 1], False)
    assert stage.told(1, m.Renew) == stage.told(2, m.Renew) == [renewal]
    assert stage.told(3, m.Renew) == []
    assert stage.told(1, m.Settled) == []


@pytest.mark.parametrize("status", ["", "error"])
def test_nobody_waits_in_a_renewal_for_one_that_is_gone_or_gave_up(stage: Stage, status: str) -> None:
    seq = stage.call(2, 0, 1)
    stage.done(1, seq, "error", mpi=m.OWN_COMM)
    stage.done(0, seq)
    stage.done(2, seq)
    (renewal,) = stage.told(0, m.Renew)
    if status:
        stage.done(1, renewal.seq, status)
    else:
        stage.lose(1)
    stage.wait(GRACE)
    assert stage.released(renewal.seq) == [0, 2]
    stage.done(0, renewal.seq, "error")
    stage.done(2, renewal.seq, "error")
    assert stage.told(0, m.Settled) == []


def test_the_world_is_renewed_by_the_whole_set() -> None:
    stage = Stage(2, 3)
    seq = stage.call(3, 4)
    stage.done(3, seq, "error", mpi=m.WORLD)
    stage.done(4, seq)
    (renewal,) = stage.told(2, m.Renew)
    assert (renewal.ranks, renewal.world) == ([1, 2], True)
    assert [bool(stage.told(engine, m.Renew)) for engine in range(5)] == [False, False, True, True, True]


def test_a_renewal_comes_after_the_calls_before_it_and_before_those_after_it(stage: Stage) -> None:
    seq = stage.call(0, 1)
    stage.done(0, seq, "error", mpi=m.WORLD)
    stage.done(1, seq)
    later = stage.call(0, 1)
    (renewal,) = stage.told(0, m.Renew)
    assert seq < renewal.seq < later


def test_a_set_that_lost_a_rank_is_not_renewed(stage: Stage) -> None:
    seq = stage.call(0, 1)
    stage.done(0, seq, "error", mpi=m.WORLD)
    stage.lose(3)
    stage.done(1, seq)
    assert not any(stage.told(engine, m.Renew) for engine in range(3))
    assert stage.told(0, m.Settled) == [m.Settled(seq)]


def test_what_survivors_have_among_themselves_is_renewed(stage: Stage) -> None:
    stage.lose(3)
    seq = stage.call(2, 0)
    stage.done(0, seq, "error", mpi=m.OWN_COMM | m.WORLD)
    stage.done(2, seq, "released", mpi=m.OWN_COMM)
    (renewal,) = stage.told(0, m.Renew)
    assert (renewal.ranks, renewal.world) == ([2, 0], False)
    assert stage.told(2, m.Renew) == [renewal]
    assert stage.told(1, m.Renew) == []


def test_nothing_is_renewed_that_a_dead_rank_was_part_of(stage: Stage) -> None:
    seq = stage.call(0, 1, 3)
    stage.lose(3)
    stage.done(0, seq, "error", mpi=m.OWN_COMM)
    stage.done(1, seq, "error", mpi=m.OWN_COMM)
    assert not any(stage.told(engine, m.Renew) for engine in range(3))
    assert stage.told(0, m.Settled) == stage.told(1, m.Settled) == [m.Settled(seq)]


def test_a_later_call_that_went_ahead_is_released_at_once(stage: Stage) -> None:
    seq, later = stage.call(0, 1, 2), stage.call(0, 1, 2)
    stage.done(2, seq, mpi=m.WORLD)
    stage.done(2, later, mpi=m.WORLD)
    stage.done(0, seq, "error")
    assert stage.released(later) == []
    stage.done(1, seq)
    assert stage.released(later) == [0, 1]


def test_a_later_call_that_did_not_communicate_goes_on(stage: Stage) -> None:
    seq, later = stage.call(0, 1, 2), stage.call(0, 1, 2)
    stage.done(2, seq, mpi=m.WORLD)
    stage.done(2, later)
    stage.done(0, seq, "error")
    stage.done(1, seq)
    assert stage.released(later) == []


def test_renewals_are_work_that_no_client_hears_of(stage: Stage) -> None:
    seq = stage.call(0, 1)
    stage.done(0, seq, "error", mpi=m.OWN_COMM)
    stage.done(1, seq)
    before = len(stage.sent["c"])
    (renewal,) = stage.told(0, m.Renew)
    assert stage.machine.roster.engines[0].runs
    stage.done(0, renewal.seq)
    stage.done(1, renewal.seq, "error")
    (stock,) = stage.stock()
    assert (stock.ranks, stock.world) == ([0, 1], False)
    assert len(stage.sent["c"]) == before
    assert not stage.machine.roster.engines[0].runs
    assert stage.machine.deadline() is None


def test_a_later_call_that_ended_before_the_renewal_came_is_released(stage: Stage) -> None:
    seq, later = stage.call(0, 1), stage.call(0, 1, 2)
    stage.done(0, seq, "error", mpi=m.WORLD)
    stage.done(1, seq)
    assert stage.released(later) == []
    stage.done(2, later, mpi=m.WORLD)  # by what the others do not listen to any more
    assert stage.released(later) == [0, 1]


def test_a_later_call_that_communicates_after_the_renewal_goes_on(stage: Stage) -> None:
    seq, later = stage.call(0, 1), stage.call(0, 1, 2)
    stage.done(0, seq, "error", mpi=m.WORLD)
    stage.done(1, seq)
    (renewal,) = stage.told(2, m.Renew)
    stage.done(2, renewal.seq)
    stage.done(2, later, mpi=m.WORLD)
    assert stage.released(later) == []


def test_what_broke_elsewhere_is_looked_for_only_if_it_was_used(stage: Stage) -> None:
    for used, others in ((m.WORLD, False), (m.OTHERS | m.WORLD, True), (m.OWN_COMM, False)):
        seq = stage.call(0, 1)
        stage.done(0, seq, "error", mpi=used)
        stage.done(1, seq)
        assert stage.told(0, m.Renew)[-1].others is others


# ---------------------------------------------------------------- spares


def test_a_spare_for_the_world_is_made_when_it_was_used_and_all_are_free(stage: Stage) -> None:
    busy, seq = stage.call(3), stage.call(0, 1)
    stage.done(0, seq, mpi=m.WORLD)
    stage.done(1, seq, mpi=m.WORLD)
    assert stage.told(0, m.Stock) == []
    other = stage.call(1)
    stage.done(3, busy)
    assert stage.told(0, m.Stock) == []
    stage.done(1, other)
    (stock,) = stage.told(0, m.Stock)
    assert stock.world
    assert all(stage.told(engine, m.Stock) == [stock] for engine in range(4))
    stage.stock()
    seq = stage.call(0, 1)
    stage.done(0, seq, mpi=m.WORLD)
    stage.done(1, seq, mpi=m.WORLD)
    assert stage.stock() == []


def test_a_spare_that_was_taken_is_made_again(stage: Stage) -> None:
    busy, seq = stage.call(3), stage.call(2, 0)
    stage.done(0, seq, "error", mpi=m.OWN_COMM)
    stage.done(2, seq)
    for engine in (0, 2):
        (renewal,) = stage.told(engine, m.Renew)
        stage.done(engine, renewal.seq)
    (stock,) = stage.stock()
    assert (stock.ranks, stock.world) == ([2, 0], False)
    assert stage.told(3, m.Stock) == stage.told(1, m.Stock) == []
    stage.done(3, busy)
    assert stage.stock() == []


def test_several_spares_are_made_one_after_the_other(stage: Stage) -> None:
    seq = stage.call(0, 1)
    stage.done(0, seq, "error", mpi=m.OWN_COMM)
    stage.done(1, seq, mpi=m.WORLD | m.OWN_COMM)
    for engine in range(4):
        for renewal in stage.told(engine, m.Renew):
            stage.done(engine, renewal.seq)
    pair = stage.call(0, 1)
    stage.done(0, pair, "error", mpi=m.OWN_COMM)
    stage.done(1, pair)
    for engine in (0, 1):
        stage.done(engine, stage.told(engine, m.Renew)[-1].seq)
    assert sorted(stock.world for stock in stage.stock()) == [False, True]
    assert stage.machine.deadline() is None


def test_nobody_waits_long_for_one_that_does_not_come_to_make_spares(stage: Stage) -> None:
    seq = stage.call(0)
    stage.done(0, seq, mpi=m.WORLD)
    (stock,) = stage.told(3, m.Stock)
    for engine in (1, 2):
        stage.done(engine, stock.seq)
    stage.wait(PATIENCE)
    assert stage.released(stock.seq) == [0, 3]


def test_a_set_that_lost_a_rank_makes_no_spares(stage: Stage) -> None:
    busy, seq = stage.call(3), stage.call(0)
    stage.done(0, seq, mpi=m.WORLD)
    stage.lose(2)
    stage.done(3, busy)
    assert stage.stock() == []
    seq = stage.call(0, 1)
    stage.done(0, seq, "error", mpi=m.OWN_COMM)
    stage.done(1, seq, "error", mpi=m.OWN_COMM)
    for engine in (0, 1):
        (renewal,) = stage.told(engine, m.Renew)
        stage.done(engine, renewal.seq)
    assert stage.stock() == []


def test_an_interrupt_reaches_all_engines_of_the_call_in_one_step(stage: Stage) -> None:
    seq = stage.call(0, 1, 2)
    stage.say("c", m.Abort([1], [], True))
    assert [stage.told(engine, m.Drop) for engine in range(4)] == [[m.Drop([seq], True)]] * 3 + [[]]


outcome = st.sampled_from(["ok", "error", "aborted"])


@given(
    calls=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True), min_size=1, max_size=6),
    data=st.data(),
)
def test_whatever_happens_every_failed_rank_hears_that_it_is_over(
    calls: list[list[int]], data: object
) -> None:
    """In the end nobody is owed a verdict, nothing is due, and each verdict comes after the call's end."""
    draw = data.draw  # type: ignore[attr-defined]
    stage = Stage(4)
    queues: dict[int, list[int]] = {engine: [] for engine in range(4)}
    for targets in calls:
        seq = stage.call(*targets)
        for target in targets:
            queues[target].append(seq)
    failed: set[tuple[int, int]] = set()
    while busy := [engine for engine, queue in queues.items() if queue]:
        engine = draw(st.sampled_from(busy))
        seq = queues[engine].pop(0)
        status = draw(outcome)
        if status != "ok":
            failed.add((engine, seq))
        stage.done(engine, seq, status, mpi=draw(st.sampled_from([0, 1, 2, 3])))
    together = {seq for seq in _numbers(stage) if len(_targets(stage, seq)) > 1}
    for engine, seq in failed:
        if seq in together:
            renewed = [one for one in stage.told(engine, m.Renew) if one.after == seq]
            settled = [one for one in stage.told(engine, m.Settled) if one.seq == seq]
            assert len(renewed) + len(settled) == 1
    for engine in range(4):
        for renewal in stage.told(engine, m.Renew):
            stage.done(engine, renewal.seq)
    stage.stock()
    assert stage.machine.deadline() is None
    assert not any(engine.runs for engine in stage.machine.roster.engines.values())


def _numbers(stage: Stage) -> set[int]:
    return {run.seq for engine in range(4) for run in stage.told(engine, m.Run)}


def _targets(stage: Stage, seq: int) -> list[int]:
    return next(run.targets for engine in range(4) for run in stage.told(engine, m.Run) if run.seq == seq)
