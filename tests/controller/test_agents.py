"""What the controller makes of node agents, without a socket."""

from __future__ import annotations

import json

import pytest

from hpcremote.controller.agents import BRIEF_PATIENCE, HOLD, PATIENCE, RETURN, TRIES
from hpcremote.controller.events import Arrived, Forget, Log, Lost, Opened, Rejoined, Send, Severed, Tick
from hpcremote.controller.machine import Controller
from hpcremote.wire import messages as m
from hpcremote.wire.lastwords import SILENT


class Bench:
    """A controller with two engines and a client."""

    def __init__(self) -> None:
        self.machine = Controller("test", "0", "here", 1)
        self.now = 0.0
        self.sent: list[tuple[object, m.AnyMessage]] = []
        self.log: list[str] = []
        self.forgotten: list[object] = []
        for rank in (1, 0):
            self.feed(Opened(f"e{rank}", "engine", False))
            self.say(f"e{rank}", m.Join(f"uid{rank}", "set", rank, m.PROTOCOL, "0"))
        members = [m.Member(f"uid{rank}", rank, "node", 10 + rank, mpi="M") for rank in (0, 1)]
        self.say("e0", m.Register("set", 2, members))
        self.feed(Opened("c", "client", True))
        self.say("c", m.Hello("uidc", m.PROTOCOL, "0", "here", 2, "3.11"))

    def feed(self, event: object) -> None:
        for action in self.machine.handle(event, self.now):  # type: ignore[arg-type]
            if isinstance(action, Send):
                self.sent.append((action.peer, action.message))
            elif isinstance(action, Log):
                self.log.append(action.text)
            elif isinstance(action, Forget):
                self.forgotten.append(action.peer)

    def say(self, peer: str, message: m.AnyMessage) -> None:
        self.feed(Arrived(peer, message, ()))

    def agent(self, name: str = "a", uids: tuple[str, ...] = ("uid0", "uid1")) -> None:
        self.feed(Opened(name, "engine", False))
        self.say(name, m.Attend("node", 9, m.PROTOCOL, list(uids)))

    def got(self, peer: str, kind: type) -> list[m.AnyMessage]:
        return [message for to, message in self.sent if to == peer and isinstance(message, kind)]

    def answer(self) -> dict[str, dict[str, object]]:
        (answer,) = self.got("c", m.Answer)
        return json.loads(answer.data)  # type: ignore[no-any-return]

    def wait(self, seconds: float) -> None:
        """Let time pass up to the deadline that the machine has named, if it is within *seconds*."""
        due = self.machine.deadline()
        assert due is not None
        assert due <= self.now + seconds
        self.now = due
        self.feed(Tick())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_agents_answer(bench):
    bench.agent("a", ("uid0",))
    bench.agent("b", ("uid1",))
    bench.say("c", m.Where(7, [0, 1], True))
    (look,) = bench.got("a", m.Look)
    assert look == m.Look(1, ["uid0"], True)
    bench.say("a", m.Seen(1, [m.Sight("uid0", "Stack", "sleeping", "#0", "n")]))
    assert bench.got("c", m.Answer) == []
    bench.say("b", m.Seen(1, [m.Sight("uid1", "Other", "running")]))
    row = {"rank": 0, "host": "node", "text": "Stack", "native": "#0", "state": "sleeping", "note": "n"}
    assert bench.answer() == {
        "0": row,
        "1": {**row, "rank": 1, "text": "Other", "native": "", "state": "running", "note": ""},
    }
    assert bench.machine.deadline() is None


def test_only_those_that_are_asked_for(bench):
    bench.agent()
    bench.say("c", m.Where(7, [1, 5]))
    assert bench.got("a", m.Look) == [m.Look(1, ["uid1"], False)]
    bench.say("a", m.Seen(1, []))
    assert bench.answer()["1"]["state"] == "not seen: it has just ended"


def test_an_agent_that_does_not_answer_is_named(bench):
    bench.agent()
    bench.say("c", m.Where(7, [0]))
    bench.wait(PATIENCE)
    assert bench.answer()["0"]["state"] == "the node agent of node (pid 9) did not answer in time"
    bench.say("a", m.Seen(1, [m.Sight("uid0", "late")]))
    assert len(bench.got("c", m.Answer)) == 1


def test_engines_without_an_agent_get_one_and_are_seen(bench):
    bench.say("c", m.Where(7, [0, 1]))
    assert bench.got("e0", m.Tend) == bench.got("e1", m.Tend) == [m.Tend()]
    bench.agent()
    assert bench.got("a", m.Look) == [m.Look(1, ["uid0", "uid1"], False)]
    bench.say("a", m.Seen(1, [m.Sight("uid0", "x"), m.Sight("uid1", "y")]))
    assert [row["text"] for row in bench.answer().values()] == ["x", "y"]


def test_engines_that_get_no_agent_are_said_to(bench):
    bench.say("c", m.Where(7, [0]))
    bench.wait(PATIENCE)
    assert bench.answer()["0"]["state"] == "not seen: no node agent watches it on node"


def test_an_agent_that_ends_is_replaced_but_not_for_ever(bench):
    for name in "abcdefghij":
        bench.agent(name)
        bench.feed(Lost(name))
    assert len(bench.got("e0", m.Tend)) == TRIES
    assert "ended 5 times within 60 s: it is not started anew" in bench.log[-1]


def test_an_agent_that_ends_while_it_looks(bench):
    bench.agent()
    bench.say("c", m.Where(7, [0]))
    bench.feed(Lost("a"))
    assert bench.answer()["0"]["state"] == "the node agent of node (pid 9) has just ended"


def test_when_all_ends_no_agent_is_started(bench):
    bench.agent()
    bench.machine.end("enough", bench.now)
    bench.feed(Lost("a"))
    assert bench.got("e0", m.Tend) == []


def test_the_end_of_an_engine_elsewhere_waits_for_its_cause(bench):
    bench.agent()
    bench.feed(Lost("e1"))
    assert bench.got("c", m.Engines) == []
    bench.say("a", m.Exited("uid1", "killed by SIGBUS", "last words"))
    (change,) = bench.got("c", m.Engines)
    assert change.went == [m.Gone(1, "uid1", "killed by SIGBUS", "last words")]


def test_it_waits_no_longer_than_a_moment(bench):
    bench.agent()
    bench.feed(Lost("e1"))
    bench.wait(HOLD)
    (change,) = bench.got("c", m.Engines)
    assert change.went[0].cause.startswith("its connection was lost")


@pytest.mark.parametrize(
    ("found", "cause"), [("", "no memory left"), (SILENT, "no memory left"), ("os._exit(3)", "os._exit(3)")]
)
def test_a_cause_that_came_first_counts_where_there_is_no_better(bench, found, cause):
    bench.agent()
    bench.say("a", m.Exited("uid1", "no memory left"))
    bench.feed(Lost("e1", found))
    (change,) = bench.got("c", m.Engines)
    assert change.went[0].cause == cause


def test_signals_go_to_the_agent_of_the_engine(bench):
    bench.agent("a", ("uid0",))
    bench.say("c", m.Kill(8, [0], 10))
    assert bench.got("a", m.Signal) == [m.Signal(["uid0"], 10)]
    bench.say("c", m.Kill(9, [0, 1], 10))
    bench.say("c", m.Kill(10, [5], 10))
    assert [answer.error for answer in bench.got("c", m.Answer)] == [
        "",
        "no node agent watches engine 1 on node",
        "there is no engine 5",
    ]
    assert len(bench.got("a", m.Signal)) == 1


def test_what_agents_may_not(bench):
    bench.agent("a", ("uid0",))
    bench.say("a", m.Exited("uid1", "a lie"))
    bench.say("a", m.Stop("a client asked for it"))
    assert "may not send Stop" in bench.log[-1]
    assert bench.machine.roster.has("uid1")
    bench.feed(Opened("x", "client", False))
    bench.say("x", m.Attend("node", 9, m.PROTOCOL, ["uid0"]))
    bench.say("x", m.Seen(1, []))
    assert "x" not in bench.machine.agents


def states(bench: Bench) -> dict[str, object]:
    """Return the states that a queue status has, by engine."""
    bench.say("c", m.Query(9, "queue_status"))
    rows = json.loads(bench.got("c", m.Answer)[-1].data)["engines"]
    return {engine: row["state"] for engine, row in rows.items() if "state" in row}


def test_a_rank_that_is_stopped_is_said_to_be(bench):
    bench.agent()
    bench.say("a", m.Noticed("uid1", "T"))
    bench.say("a", m.Noticed("uid0", "D"))
    assert states(bench) == {"0": "waiting for I/O", "1": "stopped"}
    bench.say("a", m.Noticed("uid1", ""))
    bench.say("a", m.Noticed("uid0", ""))
    assert states(bench) == {}
    assert bench.log[-4:] == [
        "engine 1 is stopped (SIGCONT lets it go on)",
        "engine 0 hangs in the kernel (a file system?)",
        "engine 1 goes on",
        "engine 0 goes on",
    ]


def test_what_was_noticed_is_forgotten_with_the_rank_and_with_the_agent(bench):
    bench.agent()
    bench.say("a", m.Noticed("uid0", "T"))
    bench.say("a", m.Noticed("uid1", "T"))
    bench.say("a", m.Exited("uid0", "killed by SIGKILL"))
    assert states(bench) == {"1": "stopped"}
    bench.feed(Lost("a"))
    assert bench.machine.agents.noticed == {}
    bench.agent("b")
    bench.say("a", m.Noticed("uid1", "T"))  # it is nobody now
    assert states(bench) == {}


# ---------------------------------------------------------------- processes


def small(uid: str, state: str = "") -> m.Sight:
    return m.Sight(uid, "", state, memory=5 << 20)


def test_what_processes_are_at_is_what_the_agents_see(bench):
    bench.agent("a", ("uid0",))
    bench.agent("b", ("uid1",))
    bench.say("c", m.Query(7, "processes"))
    assert bench.got("a", m.Look) == [m.Look(1, ["uid0"], False, True)]
    bench.say("a", m.Seen(1, [small("uid0")]))
    assert bench.got("c", m.Answer) == []
    bench.say("b", m.Seen(1, [small("uid1", "T")]))
    assert bench.answer() == {
        "0": {"memory": 5 << 20, "state": ""},
        "1": {"memory": 5 << 20, "state": "stopped"},
    }
    assert bench.machine.deadline() is None


def test_of_a_process_that_has_just_ended_nothing_is_known(bench):
    bench.agent()
    bench.say("c", m.Query(7, "processes"))
    bench.say("a", m.Seen(1, [small("uid0"), m.Sight("uid1", "")]))
    assert bench.answer().keys() == {"0"}


def test_nobody_waits_for_an_agent_that_is_not_there_and_none_is_started(bench):
    bench.agent("a", ("uid0",))
    bench.say("c", m.Query(7, "processes"))
    bench.say("a", m.Seen(1, [small("uid0")]))
    assert bench.answer().keys() == {"0"}
    assert bench.got("e1", m.Tend) == []


def test_an_agent_that_does_not_answer_is_waited_for_a_second(bench):
    bench.agent("a", ("uid0",))
    bench.agent("b", ("uid1",))
    bench.say("c", m.Query(7, "processes"))
    bench.say("a", m.Seen(1, [small("uid0")]))
    bench.wait(BRIEF_PATIENCE)
    assert bench.answer().keys() == {"0"}


def test_without_agents_the_answer_comes_at_once(bench):
    bench.say("c", m.Query(7, "processes"))
    assert bench.answer() == {}


# ---------------------------------------------------------------- ranks behind an agent that ended


def cut_off(bench: Bench, *peers: str) -> None:
    """An agent that spoke for these ranks is killed."""
    bench.agent()
    bench.say("c", m.Call(1, [0, 1], "apply", b"", [m.Part()]))
    for peer in peers:
        bench.feed(Severed(peer))
    bench.feed(Lost("a"))


def test_calls_of_ranks_that_come_back_go_on(bench):
    cut_off(bench, "e0", "e1")
    assert bench.got("e0", m.Tend) == bench.got("e1", m.Tend) == []
    for peer in ("e0", "e1"):
        bench.feed(Rejoined(peer))
    assert bench.machine.deadline() is None
    (run,) = bench.got("e0", m.Run)
    bench.say("e0", m.Done(run.seq, "ok", m.Part()))
    bench.say("e1", m.Done(run.seq, "ok", m.Part()))
    assert [result.status for result in bench.got("c", m.Result)] == ["ok", "ok"]
    assert bench.got("c", m.Engines) == [] and bench.forgotten == []


def test_who_does_not_come_back_is_given_up(bench):
    cut_off(bench, "e0", "e1")
    bench.feed(Rejoined("e0"))
    bench.wait(RETURN)
    (change,) = bench.got("c", m.Engines)
    assert [gone.id for gone in change.went] == [1]
    assert [result.status for result in bench.got("c", m.Result)] == ["lost"]
    assert bench.forgotten == ["e1"]
    bench.feed(Opened("again", "engine", False))
    bench.say("again", m.Join("uid1", "set", 1, m.PROTOCOL, "0"))
    assert bench.got("again", m.Joined) == [m.Joined(1, "test")]


def test_who_is_seen_alive_has_time(bench):
    cut_off(bench, "e1")
    bench.agent("b")
    for _ in range(5):
        bench.wait(RETURN)
    assert bench.got("c", m.Engines) == []
    bench.say("b", m.Exited("uid1", "killed by SIGKILL", "its last words"))
    (change,) = bench.got("c", m.Engines)
    assert change.went == [m.Gone(1, "uid1", "killed by SIGKILL", "its last words")]
    assert bench.forgotten == ["e1"]


def test_an_agent_may_have_said_how_a_rank_ended_before_it_ended_itself(bench):
    bench.agent()
    bench.say("a", m.Exited("uid1", "killed by SIGSEGV"))
    bench.feed(Severed("e1"))
    (change,) = bench.got("c", m.Engines)
    assert change.went[0].cause == "killed by SIGSEGV"


def test_a_lane_that_was_nobody_is_forgotten(bench):
    bench.feed(Opened("x", "engine", False))
    bench.feed(Severed("x"))
    assert "x" in bench.forgotten and bench.machine.strangers == {}
