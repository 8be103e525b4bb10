from __future__ import annotations

from hpcremote.agent.machine import Agent
from hpcremote.wire import messages as m


def agent(*uids: str) -> Agent:
    made = Agent("node7", 5)
    made.found(uids)
    return made


def test_new_ranks_are_said_once():
    machine = Agent("node7", 5)
    assert machine.found(["a"]) == [m.Attend("node7", 5, m.PROTOCOL, ["a"])]
    assert machine.found(["a", "b"]) == [m.Attend("node7", 5, m.PROTOCOL, ["b"])]
    assert machine.found(["a", "b"]) == []


def test_it_is_done_when_the_last_rank_has_gone():
    machine = Agent("node7", 5)
    assert not machine.done
    machine.found(["a", "b"])
    assert machine.ended("a", "killed by SIGKILL", "out") == [m.Exited("a", "killed by SIGKILL", "out")]
    assert not machine.done
    machine.ended("b", "", "")
    assert machine.done
    assert machine.ended("b", "", "") == []


def test_a_stopped_rank_is_said_when_it_is_seen_twice():
    machine = agent("a", "b")
    assert machine.states({"a": "T", "b": "S"}) == []
    assert machine.states({"a": "T", "b": "R"}) == [m.Noticed("a", "T")]
    assert machine.states({"a": "T", "b": "D"}) == []
    assert machine.states({"a": "S", "b": "S"}) == []
    assert machine.states({"a": "R", "b": "D"}) == [m.Noticed("a", "")]


def test_a_new_connection_is_told_everything():
    machine = agent("a", "b")
    for _ in range(2):
        machine.states({"b": "T"})
    assert machine.introduction() == [m.Attend("node7", 5, m.PROTOCOL, ["a", "b"]), m.Noticed("b", "T")]


def test_a_signal_to_the_agent_was_one_to_the_ranks_of_its_own_batch_job():
    machine = agent("a", "b", "c")
    jobs = {"a": "SLURM_JOB_ID=7", "b": "SLURM_JOB_ID=8", "c": "SLURM_JOB_ID=7", "new": "SLURM_JOB_ID=7"}
    assert machine.signalled(15, "SLURM_JOB_ID=7", jobs) == [m.Warned(["a", "c"], 15)]
