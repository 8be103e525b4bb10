"""The ends of jobs: who is told, which calls are refused, what runs before, and in which order."""

from __future__ import annotations

import json
import math
import signal
from typing import Any

import pytest

from hpcremote.controller.ending import KILL_WAIT, SETTLED
from hpcremote.controller.events import Action, Arrived, End, Log, Lost, Opened, Send, Tick
from hpcremote.controller.machine import Controller
from hpcremote.controller.roster import CONTROLLER_BY_SCHEDULER
from hpcremote.controller.walltime import ASK_AGAIN
from hpcremote.wire import messages as m

HOUR = 3600.0


class Bench:
    """A controller, sets of two ranks in jobs that end, a node agent and a client."""

    def __init__(
        self,
        *lefts: float,
        job: str = "",
        warning: float = 120.0,
        folder: str = "",
        own: float = math.inf,
        mark: str = "",
    ) -> None:
        self.mark = mark
        self.now = 100.0
        options = {"walltime_warning": warning, "save_on_walltime": folder, "limit": self.now + own}
        self.machine = Controller("test", "0", "here", 1, **options)  # type: ignore[arg-type]
        self.sent: list[tuple[object, m.AnyMessage]] = []
        self.log: list[str] = []
        self.ended: list[str] = []
        self.calls = 0
        self.client("c")
        for number, left in enumerate(lefts):
            self.add_set(number, left, job)
        self.feed(Opened("a", "engine", False))
        uids = [info.uid for info in self.machine.roster.infos()]
        self.say("a", m.Attend("node", 9, m.PROTOCOL, uids))

    def client(self, name: str) -> None:
        self.feed(Opened(name, "client", True))
        self.say(name, m.Hello(f"uid{name}", m.PROTOCOL, "0", "here", 2, "3.11"))

    def add_set(self, number: int, left: float, job: str = "") -> None:
        names = [f"e{2 * number + rank}" for rank in range(2)]
        for rank, name in enumerate(names):
            self.feed(Opened(name, "engine", False))
            self.say(name, m.Join(f"uid-{name}", f"s{number}", rank, m.PROTOCOL, "0"))
        members = [m.Member(f"uid-{name}", rank, "node", 10, mpi="M") for rank, name in enumerate(names)]
        self.say(names[0], m.Register(f"s{number}", 2, members, self.mark, "", left, job))

    def feed(self, event: object) -> None:
        self.carry_out(self.machine.handle(event, self.now))  # type: ignore[arg-type]

    def told_to_end(self) -> None:
        self.carry_out(self.machine.told_to_end(f"{CONTROLLER_BY_SCHEDULER} (SIGTERM)", self.now))

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, End):
                self.ended.append(action.reason)
            elif isinstance(action, Send):
                self.sent.append((action.peer, action.message))
            elif isinstance(action, Log):
                self.log.append(action.text)

    def say(self, peer: str, message: m.AnyMessage) -> None:
        self.feed(Arrived(peer, message, ()))

    def call(self, *targets: int, needs: float = 0.0) -> None:
        self.calls += 1
        part = [m.Part(b"x", [1])]
        self.say("c", m.Call(self.calls, list(targets), "apply", b"", part, "", -1.0, needs))

    def go_on(self, seconds: float) -> None:
        """Let time pass, with a tick at each deadline that the machine names."""
        end = self.now + seconds
        for _ in range(1000):
            due = self.machine.deadline()
            if due is None or due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            self.feed(Tick())
        pytest.fail("the machine wants to be woken again and again")

    def told(self, peer: str, kind: type) -> list[Any]:
        return [message for whom, message in self.sent if whom == peer and type(message) is kind]

    def runs(self, peer: str) -> list[Any]:
        return [
            json.loads(message.part.data) if message.op == "walltime" else message.op
            for message in self.told(peer, m.Run)
        ]

    def answer_all(self, peer: str, status: str = "ok", **words: str) -> None:
        for message in self.told(peer, m.Run):
            self.say(peer, m.Done(message.seq, status, m.Part(), **words))


def test_clients_hear_when_jobs_end() -> None:
    bench = Bench(HOUR, -1.0)
    assert bench.told("c", m.TimeLeft) == [m.TimeLeft("s0", HOUR, "")]
    bench.go_on(600.0)
    bench.client("late")
    assert bench.told("late", m.TimeLeft) == [m.TimeLeft("s0", HOUR - 600, "")]


def test_the_log_has_a_line_at_ten_minutes_and_at_two() -> None:
    bench = Bench(HOUR)
    bench.log.clear()
    bench.go_on(HOUR)
    assert [line for line in bench.log if "ends in" in line] == [
        "the job of the set of engines 0 to 1 ends in 10 minutes",
        "the job of the set of engines 0 to 1 ends in 2 minutes",
    ]
    assert bench.machine.deadline() is None


def test_a_call_that_needs_more_than_there_is_is_begun_nowhere() -> None:
    bench = Bench(HOUR, 600.0)
    bench.call(0, 1, 2, 3, needs=601.0)
    assert [(r.engine, r.status) for r in bench.told("c", m.Result)] == [(n, "refused") for n in range(4)]
    why = bench.told("c", m.Result)[0].err
    assert why == (
        "the job of the set of engines 2 to 3 ends in 10 minutes, and the call needs 10 min 1 s: it was not "
        "begun on any engine"
    )
    assert [bench.told(f"e{n}", m.Run) for n in range(4)] == [[], [], [], []]
    bench.call(0, 1, needs=601.0)
    bench.call(2, 3, needs=600.0)
    assert [len(bench.told(f"e{n}", m.Run)) for n in range(4)] == [1, 1, 1, 1]
    # Its number may be used again: it is not open.
    bench.calls = 0
    bench.call(2, needs=599.0)
    assert len(bench.told("e2", m.Run)) == 2


def test_without_a_limit_no_call_is_refused() -> None:
    bench = Bench(-1.0)
    bench.call(0, 1, needs=1e9)
    assert bench.runs("e0") == ["apply"]


def test_hooks_are_numbered_on_all_ranks_of_the_set_in_one_step() -> None:
    bench = Bench(HOUR, HOUR)
    bench.say("e1", m.Hook(300.0))
    bench.say("e0", m.Hook(-1.0))
    bench.call(0, 1)
    bench.go_on(HOUR - 301)
    assert bench.runs("e0") == ["apply"]
    bench.go_on(2.0)
    bench.call(0, 1)
    bench.go_on(HOUR)
    first, last = {"hooks": [300.0], "left": 300.0}, {"hooks": [-1.0], "left": 120.0}
    assert bench.runs("e0") == bench.runs("e1") == ["apply", first, "apply", last]
    seqs = [[run.seq for run in bench.told(engine, m.Run)] for engine in ("e0", "e1")]
    assert seqs[0] == seqs[1] == sorted(seqs[0])
    assert bench.runs("e2") == []


def test_a_hook_that_comes_late_runs_at_once_and_once_on_all() -> None:
    bench = Bench(60.0)
    for engine in ("e0", "e1"):
        bench.say(engine, m.Hook(100.0))
    late = {"hooks": [100.0], "left": 60.0}
    assert bench.runs("e0") == bench.runs("e1") == [late]
    for engine in ("e1", "e0"):  # registered again
        bench.say(engine, m.Hook(100.0))
    assert bench.runs("e0") == bench.runs("e1") == [late, late]


def test_namespaces_are_saved_after_the_hooks_also_where_these_fail() -> None:
    bench = Bench(HOUR, warning=60.0, folder="/scratch/x")
    bench.say("e0", m.Hook(-1.0))
    bench.go_on(HOUR - 60)
    assert bench.runs("e1") == [{"hooks": [-1.0], "left": 60.0}, {"save": "/scratch/x"}]
    bench.log.clear()
    hook, save = [run.seq for run in bench.told("e0", m.Run)]
    bench.say("e0", m.Done(hook, "ok", m.Part()))
    bench.say("e1", m.Done(hook, "error", m.Part(), err="Traceback ...\nValueError: no\n"))
    for engine in ("e0", "e1"):
        bench.say(engine, m.Done(save, "ok", m.Part(), out="3 names saved to /scratch/x/rank-0.hpcremote\n"))
    told = "what runs before the end of the set of engines 0 to 1 failed on engine 1: ValueError: no"
    assert bench.log == [f"{told}; 3 names saved to /scratch/x/rank-0.hpcremote"]
    # Whoever waits for the rank that failed is released, as in any call; clients have nothing to do with it.
    assert bench.told("c", m.Result) == []


def test_a_call_that_does_not_end_is_named_before_it_is_too_late() -> None:
    bench = Bench(HOUR)
    bench.say("e0", m.Hook(-1.0))
    bench.call(0, 1)
    bench.log.clear()
    bench.go_on(HOUR - 59)
    assert bench.log[-1] == (
        "what has to run before the end of the set of engines 0 to 1 waits for a call that still runs on "
        "engine 0 and 1 others; 60 s are left"
    )


def test_nothing_runs_on_a_set_that_has_lost_a_rank() -> None:
    bench = Bench(HOUR)
    bench.say("e0", m.Hook(-1.0))
    bench.feed(Lost("e1", "killed by SIGKILL"))
    bench.go_on(HOUR)
    assert bench.runs("e0") == []
    assert "nothing runs before the end of the set of engines 0 to 1: it has lost ranks" in bench.log


# ---------------------------------------------------------------- what the batch system says


def test_the_batch_system_is_asked_now_and_then() -> None:
    bench = Bench(-1.0, job="slurm")
    bench.go_on(3.0)
    assert bench.told("a", m.HowLong) == [m.HowLong("uid-e0")]
    bench.say("a", m.Remaining("uid-e0", HOUR))
    assert bench.told("c", m.TimeLeft) == [m.TimeLeft("s0", HOUR, "")]
    bench.go_on(ASK_AGAIN)
    bench.say("a", m.Remaining("uid-e0", HOUR - ASK_AGAIN - 1))
    assert len(bench.told("a", m.HowLong)) == 2
    assert len(bench.told("c", m.TimeLeft)) == 1, "that was known"
    bench.say("a", m.Remaining("uid-e0", 2 * HOUR))
    bench.say("a", m.Remaining("uid-e0", -1.0))
    assert [news.seconds for news in bench.told("c", m.TimeLeft)] == [HOUR, 2 * HOUR, -1.0]
    bench.call(0, needs=3 * HOUR)
    assert bench.runs("e0") == ["apply"]


def test_hooks_run_once_more_where_the_limit_was_put_off() -> None:
    bench = Bench(HOUR)
    bench.say("e0", m.Hook(-1.0))
    bench.go_on(HOUR - 100)
    bench.answer_all("e0")
    bench.answer_all("e1")
    bench.say("a", m.Remaining("uid-e0", 150.0))
    bench.go_on(50.0)
    assert len(bench.runs("e0")) == 1, "by so little it is the same end"
    bench.say("a", m.Remaining("uid-e0", HOUR))
    bench.go_on(HOUR - 121)
    assert len(bench.runs("e0")) == 1
    bench.go_on(2.0)
    assert len(bench.runs("e0")) == 2


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_a_warning_signal_runs_hooks_and_ends_nothing(number: int) -> None:
    bench = Bench(HOUR)
    bench.say("e1", m.Hook(10.0))
    for _ in range(2):  # each rank says so
        bench.say("a", m.Warned(["uid-e0", "uid-e1"], number))
    why = f"its scheduler is about to end it ({signal.Signals(number).name})"
    assert bench.told("c", m.TimeLeft)[1:] == [m.TimeLeft("s0", HOUR, why)]
    assert bench.runs("e0") == [{"hooks": [10.0], "left": HOUR}]
    bench.answer_all("e0")
    bench.answer_all("e1")
    bench.go_on(HOUR)
    assert bench.runs("e0") == [{"hooks": [10.0], "left": HOUR}]
    assert bench.told("e0", m.Stop) == []


@pytest.mark.parametrize("left", [HOUR, -1.0])
def test_sigterm_runs_hooks_and_then_ends_the_set(left: float) -> None:
    bench = Bench(left, HOUR)
    bench.say("e1", m.Hook(-1.0))
    bench.say("a", m.Warned(["uid-e0"], signal.SIGTERM))
    bench.say("a", m.Warned(["uid-e1"], signal.SIGTERM))
    bench.go_on(SETTLED)
    why = "its scheduler is about to end it (SIGTERM)"
    news = [one for one in bench.told("c", m.TimeLeft) if one.why]
    seconds = KILL_WAIT if left > 0 else -1.0
    assert [one.why for one in news] == [why]
    assert news[0].seconds in (KILL_WAIT, seconds)
    assert len(bench.runs("e0")) == 1
    assert bench.told("e0", m.Stop) == []
    bench.answer_all("e0")
    bench.answer_all("e1")
    reason = "its job was ended by its scheduler (SIGTERM)"
    assert bench.told("e0", m.Stop) == bench.told("e1", m.Stop) == [m.Stop(reason)]
    assert bench.told("e2", m.Stop) == []


def test_sigterm_ends_the_set_in_time_whatever_runs() -> None:
    bench = Bench(HOUR)
    bench.say("e1", m.Hook(-1.0))
    bench.call(0, 1)
    bench.say("a", m.Warned(["uid-e0"], signal.SIGTERM))
    bench.go_on(KILL_WAIT)
    assert bench.told("e0", m.Stop) == []
    bench.go_on(2.0)
    assert len(bench.told("e0", m.Stop)) == 1


def test_sigterm_ends_a_set_at_once_that_has_nothing_to_do() -> None:
    bench = Bench(HOUR)
    bench.say("a", m.Warned(["uid-e0", "uid-e1"], signal.SIGTERM))
    bench.go_on(SETTLED)
    assert len(bench.told("e0", m.Stop)) == len(bench.told("e1", m.Stop)) == 1
    bench.feed(Lost("e0", ""))
    bench.go_on(1.0)  # its agent might know more
    gone = [went for news in bench.told("c", m.Engines) for went in news.went]
    assert [one.cause for one in gone] == ["its job was ended by its scheduler (SIGTERM)"]


def test_sigterm_of_a_launcher_whose_rank_has_died_is_no_end_of_the_job() -> None:
    bench = Bench(HOUR)
    bench.say("e1", m.Hook(-1.0))
    bench.say("a", m.Warned(["uid-e0"], signal.SIGTERM))
    bench.feed(Lost("e1", "killed by SIGKILL"))
    bench.go_on(SETTLED)
    assert bench.told("e0", m.Stop) == [m.Stop("its MPI launcher has ended it (SIGTERM)")]
    assert bench.runs("e0") == []
    assert [one.why for one in bench.told("c", m.TimeLeft)] == [""]


def test_all_sets_end_with_the_controllers_own_job() -> None:
    bench = Bench(HOUR, 600.0, -1.0, own=900.0)
    lefts = (900.0, 600.0, 900.0)
    assert bench.told("c", m.TimeLeft) == [m.TimeLeft(f"s{n}", left, "") for n, left in enumerate(lefts)]
    why = "the controller's own job ends then"
    assert f"the job of the set of engines 0 to 1 ends in 15 minutes: {why}" in bench.log
    bench.call(4, needs=1000.0)
    (refused,) = bench.told("c", m.Result)
    assert f"ends in 15 minutes ({why}), and the call needs" in refused.err


def test_a_controller_whose_job_is_ended_lets_hooks_run_and_then_ends() -> None:
    bench = Bench(HOUR, HOUR)
    bench.say("e1", m.Hook(-1.0))
    bench.told_to_end()
    assert [len(bench.runs(f"e{n}")) for n in range(4)] == [1, 1, 0, 0]
    assert [len(bench.told(f"e{n}", m.Stop)) for n in range(4)] == [0, 0, 1, 1]
    bench.answer_all("e0")
    bench.answer_all("e1")
    assert bench.told("e0", m.Stop) == [m.Stop("the controller's job was ended by its scheduler (SIGTERM)")]
    assert not bench.ended
    for name in ("e0", "e1", "e2", "e3"):
        bench.feed(Lost(name, ""))
    bench.go_on(1.0)  # their agent might know more
    assert bench.ended == ["the controller's job was ended by its scheduler (SIGTERM)"]


def test_a_controller_whose_job_is_ended_does_not_wait_for_long() -> None:
    bench = Bench(HOUR)
    bench.say("e1", m.Hook(-1.0))
    bench.call(0, 1)
    bench.told_to_end()
    bench.told_to_end()  # by the job's script, whose commands have ended
    assert not bench.told("e0", m.Stop)
    bench.go_on(KILL_WAIT)
    assert bench.told("e0", m.Stop)
    bench.now += 3.0  # schedulers give 30 seconds in all
    bench.feed(Tick())
    assert bench.ended


def test_nothing_new_begins_when_the_controllers_job_is_ended() -> None:
    bench = Bench(HOUR)
    bench.say("e1", m.Hook(-1.0))
    bench.feed(Opened("late", "engine", True))
    bench.say("late", m.Phase("uid-late", "node", 7, "MPI_Init"))
    bench.told_to_end()
    (stop,) = bench.told("late", m.Stop)
    assert "ended by its scheduler" in stop.reason
    bench.say("c", m.Restart(8, "s0"))
    assert "the cluster is ending: the controller's job" in bench.told("c", m.Answer)[-1].error


def test_the_signal_by_which_a_set_is_restarted_is_no_warning() -> None:
    bench = Bench(HOUR, mark="here.1")
    bench.say("c", m.Restart(8, "s0"))
    bench.say("a", m.Warned(["uid-e0", "uid-e1"], signal.SIGTERM))
    bench.go_on(SETTLED)
    assert not [line for line in bench.log if "is about to end it" in line]


def test_what_others_may_not_say() -> None:
    bench = Bench(HOUR)
    bench.say("e0", m.Remaining("uid-e0", 5.0))
    bench.say("c", m.Hook(5.0))
    bench.call(0, needs=HOUR)
    assert bench.runs("e0") == ["apply"]
