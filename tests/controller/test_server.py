"""The controller as a whole (its rules on real sockets), and against peers with a key and bad intentions.

What is asked of it: whatever a peer says, no message ends the controller or makes it raise; what it does
to others stays what its role allows; and its answers and memory stay in proportion to what was sent.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcremote.controller.calls import DEFINITION_PATIENCE, MOST_TARGETS
from hpcremote.controller.events import Arrived, End, Lost, Opened, Tick, Unlink
from hpcremote.controller.machine import Controller
from hpcremote.controller.server import Server
from hpcremote.ids import new_uid
from hpcremote.net import locals
from hpcremote.net.hub import Hub
from hpcremote.net.keys import Admission, new_keypair
from hpcremote.net.stream import Closed, Stream
from hpcremote.wire import messages as m
from hpcremote.wire.frames import pack, unpack
from hpcremote.wire.walltime import WARNINGS
from tests.controller.test_machine import Bench, call

MEMBERS = [m.Member(uid=f"s{rank}", rank=rank, host="here", pid=rank, mpi="MPICH") for rank in range(2)]


def join(rank: int, set_id: str = "s", uid: str = "") -> m.Join:
    return m.Join(uid or f"{set_id}{rank}", set_id, rank, m.PROTOCOL, "0")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def opened(bench: Bench, name: str, role: str = "engine") -> str:
    bench.feed(Opened(name, role, False))
    return name


# ---------------------------------------------------------------- engines that lie


def test_no_other_role_is_had_by_leaving_first(bench: Bench) -> None:
    thief = opened(bench, "thief")
    bench.say(thief, m.Phase("u", "h", 1, "started"))
    bench.say(thief, m.Leaving("bye"))
    bench.say(thief, m.Hello("t", m.PROTOCOL, "0", "h", 1, "3"))
    assert not bench.machine.clients
    assert bench.got(thief, m.Refused) and not bench.got(thief, m.Welcome)


def test_a_peer_without_role_may_do_nothing(bench: Bench) -> None:
    nobody = opened(bench, "nobody", "")
    for message in (m.Hello("t", m.PROTOCOL, "0", "h", 1, "3"), join(0), m.Phase("u", "h", 1, "started")):
        bench.say(nobody, message)
    bench.say("never opened", m.Hello("t", m.PROTOCOL, "0", "h", 1, "3"))
    assert not bench.machine.clients and not bench.machine.roster.peers()


@pytest.mark.parametrize("rank", [7, -1, 1 << 62])
def test_a_rank_that_does_not_exist_does_not_complete_a_set(bench: Bench, rank: int) -> None:
    for name, number in (("a", 0), ("b", rank)):
        bench.say(opened(bench, name), join(number))
    bench.say("a", m.Register("s", 2, MEMBERS))
    assert bench.machine.roster.infos() == []
    bench.say(opened(bench, "c"), join(1))
    assert [info.uid for info in bench.machine.roster.infos()] == ["s0", "s1"]


def test_an_impostor_does_not_take_a_rank_place(bench: Bench) -> None:
    bench.say(opened(bench, "a"), join(0))
    bench.say(opened(bench, "evil"), join(1, uid="other"))
    bench.say("a", m.Register("s", 2, MEMBERS))
    assert bench.machine.roster.infos() == []
    bench.say(opened(bench, "b"), join(1))
    assert len(bench.got("a", m.Joined)) == len(bench.got("b", m.Joined)) == 1
    bench.say(opened(bench, "late"), join(1, uid="other"))
    assert "no such rank" in bench.got("late", m.Refused)[0].reason
    bench.feed(Lost("evil"))
    bench.feed(Lost("late"))
    assert len(bench.machine.roster.infos()) == 2


def test_one_connection_is_one_rank(bench: Bench) -> None:
    bench.say(opened(bench, "a"), join(0))
    bench.say("a", join(0))  # said twice: its connection was made anew just then
    assert not bench.got("a", m.Refused)
    bench.say("a", join(1))
    assert "one rank of one set" in bench.got("a", m.Refused)[0].reason
    bench.say("a", m.Register("s", 2, MEMBERS))
    bench.say(opened(bench, "b"), join(1))
    assert [info.id for info in bench.machine.roster.infos()] == [0, 1]


@pytest.mark.parametrize(
    ("size", "members"),
    [
        (10**18, MEMBERS),
        (2**63 - 1, []),
        (0, []),
        (-1, []),
        (1, MEMBERS),
        (3, MEMBERS),
        (2, [MEMBERS[0], MEMBERS[0]]),
        (2, [MEMBERS[0], m.Member("x", 5, "h", 1)]),
    ],
    ids=str,
)
def test_sets_that_cannot_be_are_refused_at_once(bench: Bench, size: int, members: list[m.Member]) -> None:
    bench.say(opened(bench, "a"), join(0))
    began = time.monotonic()
    bench.say("a", m.Register("s", size, members))
    assert time.monotonic() - began < 0.5
    assert bench.got("a", m.Refused)
    bench.feed(Lost("a"))
    assert not bench.machine.roster._sets


def test_only_rank_0_registers_its_own_set(bench: Bench) -> None:
    bench.say(opened(bench, "a"), join(0))
    bench.say(opened(bench, "b"), join(1))
    bench.say("b", m.Register("s", 2, MEMBERS))
    bench.say("a", m.Register("other", 2, MEMBERS))
    assert bench.got("a", m.Refused) and bench.got("b", m.Refused)
    assert bench.machine.roster.infos() == []


def test_another_protocol_is_told(bench: Bench) -> None:
    bench.say(opened(bench, "a"), m.Join("u", "s", 0, 99, "9.9"))
    assert "protocol" in bench.got("a", m.Refused)[0].reason
    bench.say(opened(bench, "c", "client"), m.Hello("t", 99, "9.9", "h", 1, "3"))
    assert "protocol 99 of hpcremote 9.9" in bench.got("c", m.Refused)[0].reason


# ---------------------------------------------------------------- engines that come back


def test_a_rank_is_back_before_its_old_connection_is_known_to_be_gone(bench: Bench) -> None:
    client = bench.client("c")
    bench.engines(2)
    bench.say(client, call(1, [0, 1]))
    bench.say(opened(bench, "again"), join(0))
    bench.say("again", m.Register("s", 2, MEMBERS))
    assert not bench.got("again", m.Joined)
    bench.feed(Lost("s0", "connection lost"))
    assert bench.got("again", m.Joined)[0].engine == 0
    assert not bench.got("again", m.Refused)
    assert [r.status for r in bench.got(client, m.Result)] == ["lost"]
    bench.say(client, call(2, [0, 1]))
    assert len(bench.got("again", m.Run)) == 1
    assert [info.id for info in bench.machine.roster.infos()] == [0, 1]


def test_a_rank_is_back_before_its_set_was_complete(bench: Bench) -> None:
    bench.say(opened(bench, "a"), join(0))
    bench.say(opened(bench, "b"), join(1))
    bench.say(opened(bench, "b again"), join(1))
    bench.feed(Lost("b"))
    bench.say("a", m.Register("s", 2, MEMBERS))
    assert bench.got("b again", m.Joined)


def test_an_engine_whose_id_was_given_away_is_told(bench: Bench) -> None:
    for name in bench.engines(1):
        bench.feed(Lost(name))
    bench.engines(1, "t")
    bench.say(opened(bench, "again"), join(0))
    assert "given to another" in bench.got("again", m.Refused)[0].reason


def test_sets_that_never_were_and_sets_that_are_gone_are_forgotten(bench: Bench) -> None:
    for number in range(1_500):
        bench.say(opened(bench, f"x{number}"), join(0, f"set{number}"))
        bench.feed(Lost(f"x{number}"))
    assert not bench.machine.roster._sets
    for number in range(1_500):
        for name in bench.engines(1, f"set{number}"):
            bench.feed(Lost(name))
    assert len(bench.machine.roster._sets) <= 1_001


# ---------------------------------------------------------------- clients that ask too much


def sent_to(bench: Bench, peer: str) -> int:
    return len(bench.sent.get(peer, []))


def test_one_message_does_not_make_many(bench: Bench) -> None:
    client, names = bench.client("c"), bench.engines(2)
    before = sent_to(bench, names[0])
    bench.say(client, m.Define([0] * 10_000, b"d", b"code"))
    bench.say(client, m.Shutdown(1, [0] * 100_000 + [1], False))
    assert sent_to(bench, names[0]) - before == 2
    bench.say(client, call(1, [0, 1]))
    bench.say(client, m.Abort([1] * 10_000, []))
    assert [len(drop.seqs) for drop in bench.got(names[0], m.Drop)] == [1]
    before = sent_to(bench, client)
    bench.say(client, call(2, [0] * 1_000_000))
    bench.say(client, call(3, list(range(100, MOST_TARGETS + 1_000))))
    assert sent_to(bench, client) - before <= MOST_TARGETS + 1


@pytest.mark.parametrize(
    "odd",
    [
        call(5, []),
        call(5, [0, 0]),
        call(5, [0, 1], parts=[]),
        call(5, [0, 1], parts=[m.Part()] * 3),
        call(5, [-1, -(2**63), 2**64 - 1]),
        m.Call(-5, [0], "no such thing", b"", [m.Part(b"", [], 0, "../../etc/passwd")]),
        m.Abort([99, -1], [-1, 99]),
        m.Query(1, "secrets"),
        m.Define([-1, 99], b"", b""),
        m.Shutdown(1, [-1], False),
        m.Hello("again", m.PROTOCOL, "0", "h", 1, "3"),
        m.Done(1, "ok", m.Part()),
        m.Welcome("c", "0", "h", 1, []),
    ],
    ids=repr,
)
def test_odd_requests_leave_everything_as_it_is(bench: Bench, odd: m.AnyMessage) -> None:
    client, names = bench.client("c"), bench.engines(2)
    bench.say(client, odd)
    bench.say(client, call(7, [0, 1]))
    for name in names:
        for run in bench.got(name, m.Run):
            bench.say(name, m.Done(run.seq, "ok", m.Part()))
    assert {(r.engine, r.status) for r in bench.got(client, m.Result) if r.call == 7} == {
        (0, "ok"),
        (1, "ok"),
    }
    assert not bench.machine.clients[client].works


def test_a_client_that_does_not_define_its_function_again_holds_nobody_up_for_long(bench: Bench) -> None:
    """It may be stopped (Ctrl-Z), and the engine can do nothing else before it knows."""
    client, (name,) = bench.client("c"), bench.engines(1)
    bench.say(client, m.Call(1, [0], "apply", b"d", [m.Part()]))
    bench.say(name, m.Lacking(1, b"d"))
    assert len(bench.got(client, m.Missing)) == 1
    assert bench.machine.deadline() == DEFINITION_PATIENCE
    bench.say(client, m.Define([0], b"d", b"code"))
    assert bench.machine.deadline() is None
    bench.say(name, m.Lacking(1, b"d"))
    bench.now = DEFINITION_PATIENCE
    bench.feed(Tick())
    assert [given.data for given in bench.got(name, m.Given)] == [b"code", b""]
    assert bench.machine.deadline() is None


def test_a_silent_client_is_waited_for_once_however_much_it_leaves_undefined(bench: Bench) -> None:
    client, (name,) = bench.client("c"), bench.engines(1)
    for number in range(1, 5):
        bench.say(client, m.Call(number, [0], "apply", b"d%d" % number, [m.Part()]))
    bench.say(name, m.Lacking(1, b"d1"))
    bench.now = DEFINITION_PATIENCE
    bench.feed(Tick())
    for number in (2, 3):
        bench.say(name, m.Lacking(number, b"d%d" % number))
        assert bench.machine.deadline() is None
    assert [given.digest for given in bench.got(name, m.Given)] == [b"d1", b"d2", b"d3"]
    bench.say(client, m.Define([0], b"d1", b"code"))  # it is back
    bench.say(name, m.Lacking(4, b"d4"))
    assert bench.machine.deadline() == 2 * DEFINITION_PATIENCE


def test_a_call_that_is_refused_leaves_no_shared_memory(bench: Bench) -> None:
    client = bench.client("c")
    bench.engines(1)
    bench.say(client, m.Call(1, [0, 0], "apply", b"", [m.Part(blob="ab" * 16)]))
    assert Unlink("ab" * 16) in bench.other


def test_a_number_that_is_in_use_is_not_used_again(bench: Bench) -> None:
    client, (name,) = bench.client("c"), bench.engines(1)
    bench.say(client, call(1, [0]))
    bench.say(client, call(1, [0]))
    assert len(bench.got(name, m.Run)) == 1
    bench.say(client, m.Abort([], []))
    assert len(bench.got(name, m.Drop)[0].seqs) == 1


numbers = st.one_of(st.integers(-2, 6), st.sampled_from([-(2**63), 2**63 - 1, 2**64 - 1]))
some = st.lists(numbers, max_size=4)
words = st.sampled_from(["", "s", "t", "s0", "s1", "queue_status", "info", "ok", "aborted", "x" * 5])
parts = st.builds(m.Part, st.just(b""), st.just([]), st.just(0), st.sampled_from(["", "ab" * 16, "../x"]))
members = st.lists(st.builds(m.Member, words, numbers, words, numbers, mpi=words), max_size=3)
anything = st.one_of(
    st.builds(m.Hello, words, st.just(1), words, words, numbers, words),
    st.builds(m.Define, some, st.just(b"d"), st.just(b"")),
    st.builds(m.Call, numbers, some, words, st.just(b""), st.lists(parts, max_size=4)),
    st.builds(m.Abort, some, some),
    st.builds(m.Shutdown, numbers, some, st.just(False)),
    st.builds(m.Query, numbers, words),
    st.builds(m.Join, words, words, numbers, st.sampled_from([1, 1, 1, 2]), words),
    st.builds(m.Phase, words, words, numbers, words),
    st.builds(m.Register, words, numbers, members),
    st.builds(m.Done, numbers, words, parts),
    st.builds(m.Print, numbers, numbers, words),
    st.builds(m.Lacking, numbers, st.just(b"d")),
    st.builds(m.Leaving, words),
    st.builds(m.Joined, numbers, words),
    st.builds(m.Drop, some),
)
peers = st.sampled_from(["c1", "c2", "e1", "e2", "any"])
events = st.lists(st.tuples(peers, st.one_of(anything, anything, anything, st.just("lost"))), max_size=60)


@settings(max_examples=150, deadline=None)
@given(events)
def test_whatever_peers_with_keys_say_others_work_on(said: list[tuple[str, m.AnyMessage | str]]) -> None:
    bench = Bench()
    client, names = bench.client("honest"), bench.engines(2, "honest set")
    roles = {"c1": "client", "c2": "client", "e1": "engine", "e2": "engine", "any": "any"}
    for peer, role in roles.items():
        bench.feed(Opened(peer, role, False))
    for peer, message in said:
        if isinstance(message, str):
            bench.feed(Lost(peer))
            bench.feed(Opened(peer, roles[peer], False))
        else:
            bench.feed(Arrived(peer, message, ()))
    works = bench.machine
    assert {"e1", "e2"}.isdisjoint(works.clients)
    assert not any(works.roster.knows(peer) for peer in ("c1", "c2"))
    for peer in roles:
        bench.feed(Lost(peer))
    assert set(works.clients) == {client}
    if bench.got(names[0], m.Stop):  # that much a client may do
        return
    bench.say(client, call(7, [0, 1]))
    for name in names:
        for run in bench.got(name, m.Run):
            bench.say(name, m.Done(run.seq, "ok", m.Part()))
    assert {(r.engine, r.status) for r in bench.got(client, m.Result)} == {(0, "ok"), (1, "ok")}
    assert all(not engine.runs for engine in works.roster.engines.values())
    assert len(works.roster.peers()) == 2


# ---------------------------------------------------------------- on sockets


class Served:
    """A server in this process, in the main thread while :meth:`run` lasts."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "hub.sock"
        self.words = folder / "words"
        self.words.mkdir()
        server, client, engine = (new_keypair() for _ in range(3))
        self.hub = Hub(server, Admission(client.public, engine.public), f"ipc://{self.path}")
        self.machine = Controller("test", "0", "here", os.getpid(), shm=str(self.words), grace=1.0)
        self.server = Server(self.machine, self.hub, shm=str(self.words), words=str(self.words))

    def run(self, visit: object) -> None:
        """Serve while *visit* runs in a thread; then SIGTERM."""
        failed: list[BaseException] = []

        def work() -> None:
            try:
                visit()  # type: ignore[operator]
            except BaseException as error:
                failed.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=work)
        thread.start()
        self.server.run()
        thread.join()
        if failed:
            raise failed[0]

    def peer(self) -> Visitor:
        return Visitor(str(self.path))


class Visitor:
    """A local peer that waits for what it asks for."""

    def __init__(self, path: str) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        self._stream = Stream(sock, keep=False)
        self._came: list[m.AnyMessage] = []

    def send(self, *messages: m.AnyMessage) -> None:
        self._stream.send(pack([(message, ()) for message in messages]))

    def expect(self, kind: type) -> m.AnyMessage:
        deadline = time.monotonic() + 10
        while not any(isinstance(message, kind) for message in self._came):
            assert time.monotonic() < deadline, f"no {kind.__name__}, but {self._came}"
            for head, frames in self._stream.receive():
                self._came += [message for message, _ in unpack(head, frames)]
            time.sleep(0.001)
        found = next(message for message in self._came if isinstance(message, kind))
        self._came.remove(found)
        return found

    def close(self) -> None:
        self._stream.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    made = Served(tmp_path)
    yield made
    made.hub.close(0)
    for number, handler in former.items():
        signal.signal(number, handler)


def test_it_serves_until_sigterm_and_lets_go_of_signals(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def visit() -> None:
        peer = served.peer()
        peer.send(m.Hello("u" * 32, m.PROTOCOL, "0", "here", 1, "3"))
        welcome = peer.expect(m.Welcome)
        assert isinstance(welcome, m.Welcome) and welcome.cluster_id == "test"
        peer.send(m.Query(1, "info"))
        peer.expect(m.Answer)
        peer.close()

    served.run(visit)
    assert "ended: SIGTERM received" in caplog.text
    assert signal.set_wakeup_fd(-1) == -1


def test_in_a_job_warnings_are_for_the_engines(
    tmp_path: Path, served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    served.server = Server(served.machine, served.hub, shm="", words="", in_job=True)
    former = {number: signal.getsignal(number) for number in WARNINGS}

    def visit() -> None:
        peer = served.peer()
        peer.send(m.Hello("u" * 32, m.PROTOCOL, "0", "here", 1, "3"))
        peer.expect(m.Welcome)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR2)
        peer.send(m.Query(1, "info"))
        peer.expect(m.Answer)
        peer.close()

    try:
        served.run(visit)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
    assert "ended: the controller's job was ended by its scheduler (SIGTERM)" in caplog.text


def test_a_dead_engine_is_looked_up_by_its_uid_only(served: Served) -> None:
    outside = served.words.parent / "precious.err"
    outside.write_text("mine")
    uid = new_uid()
    (served.words / f"{uid}.err").write_text("last words of an engine\n")

    def visit() -> None:
        for name in ("../precious", uid):
            engine = served.peer()
            engine.send(m.Phase(name, "here", 1, "started"))
            asks = served.peer()
            asks.send(m.Hello("u" * 32, m.PROTOCOL, "0", "here", 1, "3"))
            asks.expect(m.Welcome)
            engine.close()
            deadline = time.monotonic() + 10
            while True:
                asks.send(m.Query(1, "info"))
                answer = asks.expect(m.Answer)
                if isinstance(answer, m.Answer) and '"started": 0' in answer.data:
                    break
                assert time.monotonic() < deadline
            asks.close()

    served.run(visit)
    assert outside.read_text() == "mine"
    assert not (served.words / f"{uid}.err").exists()


def test_complaints_are_few_and_stay_on_their_line(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def visit() -> None:
        peer = served.peer()
        peer.send(m.Hello("a\nb" * 10, m.PROTOCOL, "0", "here\n2026 ERROR forged", 1, "3"))
        peer.expect(m.Welcome)
        for _ in range(300):
            peer.send(m.Leaving("x"), m.Drop([]))
        peer.send(m.Query(1, "info"))
        peer.expect(m.Answer)
        peer.close()

    served.run(visit)
    lines = [record.getMessage() for record in caplog.records]
    assert all("\n" not in line for line in lines)
    assert 1 <= sum("may not send" in line for line in lines) <= 10


def test_the_end_is_an_action_not_an_error(bench: Bench) -> None:
    bench.take(bench.machine.end("SIGTERM received", 0.0))
    assert [type(action) for action in bench.other if isinstance(action, End)] == [End]


def test_a_client_that_does_not_read_is_disconnected_and_others_are_not(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locals, "MOST_WAITING", 1 << 20)
    monkeypatch.setattr(locals, "STILL", 0.2)

    def visit() -> None:
        deaf, other = served.peer(), served.peer()
        for peer in (deaf, other):
            peer.send(m.Hello("c" * 32, m.PROTOCOL, "0", "here", 4711, "3"))
        other.expect(m.Welcome)
        deadline = time.monotonic() + 30
        with pytest.raises(Closed):
            while time.monotonic() < deadline:
                deaf.send(*[m.Query(1, "what" * 1000)] * 50)
                time.sleep(0.001)
        told = ""
        while '"clients": 1,' not in told:
            assert time.monotonic() < deadline
            other.send(m.Query(1, "info"))
            answer = other.expect(m.Answer)
            assert isinstance(answer, m.Answer)
            told = answer.data
        deaf.close()
        other.close()

    with caplog.at_level(logging.INFO, "hpcremote.controller"):
        served.run(visit)
    assert caplog.text.count("client cccccccc (pid 4711) is disconnected: it does not read") == 1
