"""The controller's rules, without a socket.

The property test states the two guarantees the controller gives: every call is answered exactly once
for every target, and any two calls meet every engine that both have in the same order.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from hpcremote.controller.events import Arrived, End, Log, Lost, Opened, Send, Tick, Unlink
from hpcremote.controller.machine import Controller
from hpcremote.wire import messages as m


class Bench:
    """A controller, and everything that it sent to each peer."""

    def __init__(self) -> None:
        self.machine = Controller("test", "0", "here", 1, shm="/shm", grace=5.0)
        self.now = 0.0
        self.sent: dict[object, list[tuple[m.AnyMessage, object]]] = {}
        self.other: list[object] = []
        self.together = False  # what comes is one turn's, which the next Tick ends

    def feed(self, event: object) -> None:
        if self.together and not isinstance(event, Tick):
            self.machine.take_in(event, self.now)  # type: ignore[arg-type]
        else:
            self.take(self.machine.handle(event, self.now))  # type: ignore[arg-type]

    def take(self, actions: list[object]) -> None:
        for action in actions:
            if isinstance(action, Send):
                self.sent.setdefault(action.peer, []).append((action.message, action.frames))
            else:
                self.other.append(action)

    def say(self, peer: object, message: m.AnyMessage, frames: object = ()) -> None:
        self.feed(Arrived(peer, message, frames))  # type: ignore[arg-type]

    def client(self, name: str, *, local: bool = True, role: str = "any") -> str:
        self.feed(Opened(name, role, local))
        self.say(name, m.Hello(name * 8, m.PROTOCOL, "0", "here", 2, "3.11"))
        return name

    def engines(self, size: int, set_id: str = "s", *, mpi: str = "MPICH", local: bool = True) -> list[str]:
        names = [f"{set_id}{rank}" for rank in range(size)]
        for rank in reversed(range(size)):
            self.feed(Opened(names[rank], "any", local))
            self.say(names[rank], m.Join(names[rank], set_id, rank, m.PROTOCOL, "0"))
        members = [m.Member(uid=names[r], rank=r, host="here", pid=100 + r, mpi=mpi) for r in range(size)]
        self.say(names[0], m.Register(set_id, size, members))
        return names

    def got(self, peer: object, kind: type) -> list[m.AnyMessage]:
        return [message for message, _ in self.sent.get(peer, []) if isinstance(message, kind)]

    def logged(self) -> str:
        return "\n".join(action.text for action in self.other if isinstance(action, Log))


def call(number: int, targets: list[int], **parts: object) -> m.Call:
    return m.Call(number, targets, "apply", b"", parts.get("parts", [m.Part(b"x", [1])]))  # type: ignore[arg-type]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_set_appears_as_a_whole_with_ids_equal_to_ranks(bench: Bench) -> None:
    client = bench.client("c")
    names = ["s0", "s1", "s2"]
    for rank in (2, 0):
        bench.feed(Opened(names[rank], "engine", False))
        bench.say(names[rank], m.Join(names[rank], "s", rank, m.PROTOCOL, "0"))
    members = [m.Member(uid=n, rank=r, host="h", pid=r, mpi="MPICH") for r, n in enumerate(names)]
    bench.say("s0", m.Register("s", 3, members))
    assert bench.got(client, m.Engines) == []
    bench.feed(Opened("s1", "engine", False))
    bench.say("s1", m.Join("s1", "s", 1, m.PROTOCOL, "0"))
    (came,) = bench.got(client, m.Engines)
    assert [(info.id, info.rank, info.uid) for info in came.came] == [
        (0, 0, "s0"),
        (1, 1, "s1"),
        (2, 2, "s2"),
    ]
    assert [bench.got(name, m.Joined)[0].engine for name in names] == [0, 1, 2]


def test_a_second_set_follows_and_a_later_one_begins_at_zero_again(bench: Bench) -> None:
    client = bench.client("c")
    first = bench.engines(2, "a")
    second = bench.engines(2, "b")
    assert [info.id for came in bench.got(client, m.Engines) for info in came.came] == [0, 1, 2, 3]
    for name in first + second:
        bench.feed(Lost(name))
    bench.engines(3, "c")
    assert [info.id for info in bench.got(client, m.Engines)[-1].came] == [0, 1, 2]


def test_a_set_that_does_not_name_every_rank_is_refused(bench: Bench) -> None:
    bench.feed(Opened("s0", "any", True))
    bench.say("s0", m.Join("s0", "s", 0, m.PROTOCOL, "0"))
    bench.say("s0", m.Register("s", 2, [m.Member(uid="s0", rank=0, host="h", pid=1)]))
    (refused,) = bench.got("s0", m.Refused)
    assert "ranks 0 to 1" in refused.reason


def test_one_part_goes_to_all_and_a_part_each_to_its_own(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(2)
    bench.say(client, call(1, [1, 0], parts=[m.Part(b"all", [3], 1)]), ["frame"])
    bench.say(
        client, call(2, [1, 0], parts=[m.Part(b"one", [3], 1), m.Part(b"nil", [3], 2)]), ["a", "b", "c"]
    )
    runs = {n: [(r.part.data, list(f)) for r, f in bench.sent[n] if isinstance(r, m.Run)] for n in names}
    assert runs["s0"] == [(b"all", ["frame"]), (b"nil", ["b", "c"])]
    assert runs["s1"] == [(b"all", ["frame"]), (b"one", ["a"])]


def test_an_engine_that_dies_fails_its_calls_and_says_how(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(2)
    bench.say(client, call(1, [0, 1]))
    bench.feed(Lost(names[1], "killed by SIGKILL", "last words"))
    (lost,) = bench.got(client, m.Result)
    assert (lost.engine, lost.status, lost.err, lost.out) == (1, "lost", "killed by SIGKILL", "last words")
    gone = bench.got(client, m.Engines)[-1].went[0]
    assert (gone.id, gone.cause) == (1, "killed by SIGKILL")
    bench.now += 0.1
    bench.feed(Lost(names[0], "killed by SIGKILL"))
    aftermath = bench.got(client, m.Result)[-1]
    assert "after engine 1 of the same MPI job: killed by SIGKILL" in aftermath.err


def test_of_ranks_that_die_alike_in_one_moment_none_is_called_the_first(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(3)
    bench.say(client, call(1, [0, 1, 2]))
    bench.feed(Lost(names[1], "killed by SIGKILL"))
    bench.feed(Lost(names[0], "killed by SIGKILL"))
    bench.feed(Lost(names[2], "aborted (SIGABRT)"))
    told = {result.engine: result.err for result in bench.got(client, m.Result)}
    assert told[0] == told[1] == "killed by SIGKILL"
    assert told[2] == "aborted (SIGABRT), after engine 1 of the same MPI job: killed by SIGKILL"


def test_who_said_that_it_ends_all_ranks_is_the_first_whoever_is_seen_to_end_before(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(3)
    bench.say(client, call(1, [0, 1, 2]))
    bench.say(names[2], m.Leaving("it called MPI_Abort(7)", True))
    for number in (1, 2, 0):
        bench.feed(Lost(names[number], "killed by SIGKILL"))
    told = {result.engine: result.err for result in bench.got(client, m.Result)}
    after = "killed by SIGKILL, after engine 2 of the same MPI job: it called MPI_Abort(7)"
    assert told == {0: after, 1: after, 2: "it called MPI_Abort(7)"}


def test_a_call_to_an_engine_that_is_gone_is_answered_at_once(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(1)
    bench.feed(Lost(names[0], "segmentation fault"))
    bench.say(client, call(1, [0]))
    bench.say(client, call(2, [9]))
    first, second = bench.got(client, m.Result)
    assert first.err == "segmentation fault"
    assert "no engine 9" in second.err


def test_roles_are_kept_apart(bench: Bench) -> None:
    bench.feed(Opened("thief", "engine", False))
    bench.say("thief", m.Hello("t", m.PROTOCOL, "0", "h", 1, "3"))
    assert "key of this connection" in bench.got("thief", m.Refused)[0].reason
    bench.say("thief", call(1, [0]))
    bench.feed(Opened("spy", "client", False))
    bench.say("spy", m.Join("u", "s", 0, m.PROTOCOL, "0"))
    assert bench.got("spy", m.Refused)
    client = bench.client("c", role="client")
    bench.say(client, m.Register("s", 1, [m.Member(uid="u", rank=0, host="h", pid=1)]))
    assert "may not send Register" in bench.logged()
    assert not bench.machine.roster.engines


def test_blobs_are_removed_when_nobody_will_read_them(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(2)
    bench.say(client, call(1, [0, 1], parts=[m.Part(b"", [70000], 0, "ab" * 16)]))
    seq = bench.got(names[0], m.Run)[0].seq
    bench.say(names[0], m.Done(seq, "ok", m.Part()))
    assert not [a for a in bench.other if isinstance(a, Unlink)]
    bench.feed(Lost(client))
    bench.say(names[1], m.Done(seq, "ok", m.Part(b"", [70000], 0, "cd" * 16)))
    assert [a.blob for a in bench.other if isinstance(a, Unlink)] == ["cd" * 16, "ab" * 16]


def test_a_client_that_leaves_takes_its_queued_calls_along(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(1)
    bench.say(client, call(1, [0]))
    bench.feed(Lost(client))
    assert bench.got(names[0], m.Drop)[0].seqs == [bench.got(names[0], m.Run)[0].seq]


def test_one_rank_of_an_mpi_job_cannot_be_shut_down_alone(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(3)
    bench.say(client, m.Shutdown(1, [1], False))
    assert "0 to 2" in bench.got(client, m.Answer)[0].error
    bench.say(client, m.Shutdown(2, [0, 1, 2], False))
    assert all(bench.got(name, m.Stop) for name in names)


def test_the_end_waits_for_engines_but_not_for_ever(bench: Bench) -> None:
    client = bench.client("c")
    names = bench.engines(2)
    bench.say(client, m.Shutdown(1, [], True))
    assert json.loads(bench.got(client, m.Answer)[0].data) is True
    assert all(bench.got(name, m.Stop) for name in names)
    bench.feed(Lost(names[0]))
    assert bench.machine.deadline() == 5.0
    bench.now = 5.0
    bench.feed(Tick())
    assert [a for a in bench.other if isinstance(a, End)]
    assert "1 engines did not end" in bench.logged()


def test_what_a_starting_engine_reports_is_told(bench: Bench) -> None:
    client = bench.client("c")
    bench.feed(Opened("e", "engine", False))
    bench.say("e", m.Phase("u", "node1", 7, "MPI_Init"))
    bench.feed(Opened("f", "engine", False))
    bench.say("f", m.Phase("v", "node2", 8, "MPI_Init"))
    bench.feed(Lost("f"))
    bench.say(client, m.Query(1, "info"))
    info = json.loads(bench.got(client, m.Answer)[0].data)
    assert info["starting"]["MPI_Init"] == 1
    assert info["failed"] == [{"cause": "connection lost", "phase": "MPI_Init", "host": "node2", "pid": 8}]


class Ordering(RuleBasedStateMachine):
    """Clients come, call, abort and go; engines answer in their order, drop what is aborted, or die."""

    clients = Bundle("clients")
    pending = Bundle("pending")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.names = self.bench.engines(4)
        self.alive = set(self.names)
        self.count = 0
        self.numbers: dict[object, int] = {}
        self.owed: dict[tuple[object, int], set[int]] = {}
        self.aborted: set[tuple[object, int, int]] = set()
        self.left: set[str] = set()
        self.answered: dict[str, set[int]] = {name: set() for name in self.names}
        self.drops_read: dict[str, int] = dict.fromkeys(self.names, 0)

    def queue(self, name: str) -> list[int]:
        """What an engine has not answered; it may have begun with the first of these."""
        return [run.seq for run in self.bench.got(name, m.Run) if run.seq not in self.answered[name]]

    def done(self, name: str, seq: int, status: str) -> None:
        self.answered[name].add(seq)
        self.bench.say(name, m.Done(seq, status, m.Part()))

    @rule(target=clients)
    def connect(self) -> str:
        self.count += 1
        return self.bench.client(f"client{self.count}")

    @rule(client=clients, ids=st.lists(st.integers(0, 5), unique=True, min_size=1))
    def submit(self, client: str, ids: list[int]) -> None:
        if client not in self.bench.machine.clients:
            return
        number = self.numbers[client] = self.numbers.get(client, 0) + 1
        self.owed[client, number] = set(ids)
        name = f"{client} {number}".encode()
        self.bench.say(client, call(number, ids, parts=[m.Part(name, [len(name)])]))

    @rule(
        client=clients,
        numbers=st.lists(st.integers(1, 5), unique=True, max_size=3),
        ids=st.lists(st.integers(0, 5), unique=True),
        interrupt=st.booleans(),
    )
    def abort(self, client: str, numbers: list[int], ids: list[int], interrupt: bool) -> None:
        if client not in self.bench.machine.clients:
            return
        sent = range(1, self.numbers.get(client, 0) + 1)
        chosen = [number for number in numbers if number in sent] if numbers else sent
        self.aborted |= {(client, number, engine) for number in chosen for engine in ids or range(6)}
        self.bench.say(client, m.Abort(numbers, ids, interrupt))

    @rule(rank=st.integers(0, 3), begun=st.booleans())
    def obey(self, rank: int, begun: bool) -> None:
        """Read what is to be dropped; the first run, if begun, is not, but may be interrupted."""
        name = self.names[rank]
        drops = self.bench.got(name, m.Drop)[self.drops_read[name] :]
        if name not in self.alive:
            return
        self.drops_read[name] += len(drops)
        for drop in drops:
            running = self.queue(name)[:1] if begun else []
            for seq in self.queue(name):
                if seq in drop.seqs and (seq not in running or drop.interrupt):
                    self.done(name, seq, "error" if seq in running else "aborted")

    @rule(rank=st.integers(0, 3))
    def answer(self, rank: int) -> None:
        name = self.names[rank]
        if name in self.alive and (queue := self.queue(name)):
            self.done(name, queue[0], "ok")

    @rule(rank=st.integers(0, 3))
    def die(self, rank: int) -> None:
        if self.names[rank] in self.alive:
            self.alive.discard(self.names[rank])
            self.bench.feed(Lost(self.names[rank], "killed"))

    @rule(client=consumes(clients))
    def leave(self, client: str) -> None:
        self.left.add(client)
        self.bench.feed(Lost(client))
        self.owed = {key: rest for key, rest in self.owed.items() if key[0] != client}

    @rule()
    def begin_a_turn(self) -> None:
        self.bench.together = True

    @rule()
    def end_a_turn(self) -> None:
        self.bench.together = False
        self.bench.feed(Tick())

    @invariant()
    def every_engine_has_common_calls_in_one_order(self) -> None:
        for name in self.names:
            seqs = [run.seq for run in self.bench.got(name, m.Run)]
            assert seqs == sorted(set(seqs))

    @invariant()
    def a_call_has_one_number_everywhere(self) -> None:
        targets: dict[int, tuple[int, ...]] = {}
        for name in self.names:
            for run in self.bench.got(name, m.Run):
                assert targets.setdefault(run.seq, tuple(run.targets)) == tuple(run.targets)

    @invariant()
    def what_nobody_aborted_is_not_dropped(self) -> None:
        for engine, name in enumerate(self.names):
            named = {run.seq: run.part.data.decode().split() for run in self.bench.got(name, m.Run)}
            for seq in (seq for drop in self.bench.got(name, m.Drop) for seq in drop.seqs):
                client, number = named[seq]
                assert (client, int(number), engine) in self.aborted or client in self.left

    @invariant()
    def no_answer_comes_twice_or_to_another_client(self) -> None:
        for peer in self.numbers:
            answers = [(r.call, r.engine) for r in self.bench.got(peer, m.Result)]
            assert len(answers) == len(set(answers))
            for number, engine in answers:
                assert 1 <= number <= self.numbers[peer]
                if (peer, number) in self.owed:
                    assert engine in self.owed[peer, number]

    def teardown(self) -> None:
        self.end_a_turn()
        for rank, name in enumerate(self.names):
            self.obey(rank, begun=True)
            while name in self.alive and self.queue(name):
                self.answer(rank)
        for (peer, number), targets in self.owed.items():
            answers = {r.engine for r in self.bench.got(peer, m.Result) if r.call == number}
            assert answers == targets
        assert all(not c.works for c in self.bench.machine.clients.values())


Ordering.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestOrdering = Ordering.TestCase
