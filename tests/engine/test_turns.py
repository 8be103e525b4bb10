"""Ranks that poll do the same calls at the same step, whatever arrives when: all of it in every order."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest

from hpcremote.engine.machine import Job
from hpcremote.engine.turns import Offer, Steered, Turn
from hpcremote.wire import messages as m

BASE = 10


def run(seq: int, ranks: list[int]) -> m.Run:
    return m.Run(seq, "apply", b"", m.Part(), False, [BASE + rank for rank in ranks])


def steered(rank: int = 0, size: int = 1, *, polls: bool = True) -> Steered:
    machine = Steered(lambda digest: True, lambda digest, data: None)
    machine.place(BASE, rank, size, polls=polls)
    return machine


class Program:
    """Ranks that poll, their connections, and what they have done: (step, number) for each rank."""

    def __init__(self, size: int, chance: Random) -> None:
        self.machines = [steered(rank, size) for rank in range(size)]
        self.wires: list[deque[m.AnyMessage]] = [deque() for _ in range(size)]
        self.done: list[list[tuple[int, int]]] = [[] for _ in range(size)]
        self.aborted: list[list[int]] = [[] for _ in range(size)]
        self.sent: dict[int, list[int]] = {}
        self.dropped: set[int] = set()
        self.chance = chance
        self.haste = chance.choice([0.02, 0.1, 0.5])  # how likely a message is to arrive by the next look
        self.step = 0
        self.asked = False

    def call(self, ranks: list[int]) -> None:
        seq = len(self.sent) + 1
        self.sent[seq] = ranks
        for rank in ranks:
            self.wires[rank].append(run(seq, ranks))

    def drop(self, seq: int) -> None:
        self.dropped.add(seq)
        for rank in self.sent[seq]:
            self.wires[rank].append(m.Drop([seq]))

    def deliver(self, rank: int, most: int) -> None:
        while most and self.wires[rank]:
            self.answer(rank, self.machines[rank].handle(self.wires[rank].popleft(), ()))
            most -= 1

    def deliver_some(self) -> None:
        for rank in range(len(self.machines)):
            while self.wires[rank] and self.chance.random() < self.haste:
                self.deliver(rank, 1)

    def answer(self, rank: int, answers: list[m.AnyMessage]) -> None:
        for answer in answers:
            assert isinstance(answer, m.Done) and answer.status == "aborted"
            self.aborted[rank].append(answer.seq)

    def poll(self) -> None:
        self.step += 1
        first, *others = self.machines
        turn = first.wants_turn() or self.asked
        self.asked = False
        for machine in others:
            self.deliver_some()
            self.asked = machine.wants_turn() or self.asked
        if turn:
            self.turn()
        for rank, machine in enumerate(self.machines):
            self.deliver_some()
            self.work(rank, machine)
            if turn:
                machine.end_turn()

    def turn(self) -> None:
        turn, again, rounds = Turn(), True, 0
        while again:
            offers = []
            for rank, machine in enumerate(self.machines):
                while not machine.arrived(turn.due(rank)):
                    assert self.wires[rank], "a rank waits for what will never come"
                    self.deliver(rank, 1)
                self.deliver_some()
                offers.append(machine.offers(turn))
            again = turn.merge(offers)
            rounds += 1
            assert rounds <= len(self.sent) + 1
        for machine in self.machines:
            machine.begin_turn(turn)

    def step_of(self, rank: int, seq: int) -> list[int | None]:
        return [step for step, number in self.done[rank] if number == seq] or [None]

    def work(self, rank: int, machine: Steered) -> None:
        while machine.may_begin():
            work = machine.next()
            if isinstance(work, m.Done):
                self.answer(rank, [work])
            else:
                assert isinstance(work, Job)
                self.done[rank].append((self.step, work.run.seq))
                machine.finished()


@pytest.mark.parametrize("start", range(0, 1000, 100))
def test_all_ranks_do_the_same_at_the_same_step(start: int) -> None:
    for seed in range(start, start + 100):
        check(Random(seed))


def check(chance: Random) -> None:
    size = chance.randint(1, 4)
    program = Program(size, chance)
    for _ in range(chance.randint(1, 60)):
        match chance.choice("cccdllpp"):
            case "c":
                program.call(chance.sample(range(size), chance.randint(1, size)))
            case "d" if program.sent:
                program.drop(chance.choice([*program.sent]))
            case "l":
                program.deliver_some()
            case _:
                program.poll()
    for rank in range(size):
        program.deliver(rank, 1000)
    for _ in range(3):
        program.poll()

    for rank, done in enumerate(program.done):
        assert [seq for _, seq in done] == sorted(seq for _, seq in done), "out of order"
        came = sorted([*(seq for _, seq in done), *program.aborted[rank]])
        assert came == [seq for seq, ranks in program.sent.items() if rank in ranks], "lost, or done twice"
    for seq, ranks in program.sent.items():
        steps = {step for rank in ranks for step in program.step_of(rank, seq)}
        assert len(steps) == 1, f"call {seq} on ranks {ranks} was done at steps {steps}"
        if steps == {None}:
            assert seq in program.dropped


def test_one_round_is_enough_where_everything_has_arrived() -> None:
    turn = Turn()
    assert not turn.merge([[Offer(1, range(2))], [Offer(1, range(2))]])
    assert turn.due(0) == turn.due(1) == {1}


def test_what_comes_during_a_turn_waits_for_the_next() -> None:
    turn = Turn()
    assert turn.merge([[Offer(2, range(2))], []])
    first, second = steered(0, 2), steered(1, 2)
    for seq in (2, 3):
        second.handle(run(seq, [0, 1]), ())
    assert [offer.seq for offer in second.offers(turn)] == [2]
    assert first.offers(turn) == []


@pytest.mark.parametrize("first", [False, True])
def test_a_call_that_one_rank_shall_drop_is_dropped_by_all(first: bool) -> None:
    turn = Turn()
    turn.merge([[Offer(1, range(2), first)], [Offer(1, range(2), not first)]])
    machine = steered(0, 2)
    machine.handle(run(1, [0, 1]), ())
    machine.begin_turn(turn)
    answer = machine.next()
    assert isinstance(answer, m.Done) and answer.status == "aborted"
    assert turn.dropped() == {1}


def test_a_false_alarm_is_no_harm() -> None:
    turn = Turn()
    assert not turn.merge([[], []])
    assert turn.due(0) == set()


def test_a_call_on_one_rank_needs_no_turn_but_passes_nobody() -> None:
    machine = steered(1, 3)
    machine.handle(run(1, [1]), ())
    assert not machine.wants_turn()
    assert isinstance(machine.next(), Job)
    machine.handle(run(2, [1, 2]), ())
    machine.handle(run(3, [1]), ())
    assert machine.next() is None
    assert not machine.may_begin()


def test_the_first_of_a_calls_ranks_asks_and_only_once() -> None:
    first, second = steered(1, 3), steered(2, 3)
    for machine in (first, second):
        machine.handle(run(1, [2, 1]), ())
    assert not second.wants_turn()
    assert first.wants_turn()
    assert not first.wants_turn()
    first.handle(run(2, [1, 2]), ())
    assert first.wants_turn()


def test_rank_0_asks_itself_until_it_is_done() -> None:
    machine = steered(0, 2)
    machine.handle(run(1, [0, 1]), ())
    assert machine.wants_turn()
    assert machine.wants_turn()


def test_engines_of_other_programs_take_no_part() -> None:
    machine = steered(1, 3)
    assert list(machine.ranks(m.Run(1, "apply", b"", m.Part(), False, [3, 12, 11, 99]))) == [2, 1]
    assert not machine.is_shared(m.Run(1, "apply", b"", m.Part(), False, [3, 11, 99]))


def test_a_program_that_waits_agrees_on_nothing() -> None:
    machine = steered(0, 2, polls=False)
    machine.handle(run(1, [0, 1]), ())
    assert isinstance(machine.next(), Job)


def test_many_targets_are_told_in_few_bytes() -> None:
    machine = steered(0, 10_000)
    assert machine.ranks(run(1, list(range(10_000)))) == range(10_000)
    assert machine.ranks(run(1, list(range(9_999, -1, -3)))) == range(9_999, -1, -3)
    assert machine.ranks(run(1, [0, 1, 5])) == (0, 1, 5)


def test_an_interrupt_ends_what_has_been_agreed_on_but_not_begun() -> None:
    machine = steered(0, 2)
    machine.handle(run(1, [0, 1]), ())
    turn = Turn()
    turn.merge([machine.offers(turn), [Offer(1, range(2))]])
    machine.handle(m.Drop([1]), ())
    machine.begin_turn(turn)
    machine.handle(m.Drop([1], interrupt=True), ())
    answer = machine.next()
    assert isinstance(answer, m.Done) and answer.status == "aborted"


def test_a_definition_that_does_not_come_fails_the_call() -> None:
    known: set[bytes] = set()
    machine = Steered(known.__contains__, lambda digest, data: known.add(digest))
    machine.handle(m.Run(1, "apply", b"d" * 16, m.Part(), False, [0]), ())
    assert isinstance(machine.next(), m.Lacking)
    assert not machine.can_go_on()
    machine.give_up_definition()
    job = machine.next()
    assert isinstance(job, Job) and job.undefined
