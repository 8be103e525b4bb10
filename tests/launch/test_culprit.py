"""A rank that ends while the others start."""

from __future__ import annotations

import re

import pytest

from hpcremote.launch import culprit
from hpcremote.launch.culprit import Culprit

MPIEXEC = re.compile(r"PID (?P<pid>\d+) RUNNING AT (?P<host>\S+)|process rank (?P<rank>\d+) with PID \d+")
BEGUN = "hpcremote: 2 ranks by MPICH 5.0.2 (/opt/bin/mpiexec)\n"
SAID = BEGUN + "= PID 7 RUNNING AT node1\n"


class Log:
    """A log, and a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.text, self.now, self.read = "", 100.0, 0
        monkeypatch.setattr(culprit, "time", self)

    def monotonic(self) -> float:
        return self.now

    def __call__(self) -> str:
        self.read += 1
        return self.text

    def after(self, seconds: float, watch: Culprit) -> str:
        self.now += seconds
        return watch.look()


def test_it_is_told_when_no_end_has_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    watch = Culprit(log, MPIEXEC)
    assert watch.look() == ""
    log.text = SAID
    assert log.after(1.1, watch) == ""
    assert watch.found
    assert log.after(2.0, watch) == ""
    assert log.after(1.1, watch) == "process 7 on node1 ended before all engines were there"


def test_the_log_is_not_read_at_every_look(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    watch = Culprit(log, MPIEXEC)
    for _ in range(100):
        log.after(0.05, watch)
    assert log.read <= 6


@pytest.mark.parametrize(
    "begun", ["hpcremote: 4 ranks by MPICH 5.0.2 (/opt/bin/mpiexec)", "$ mpiexec -n 4 python"]
)
def test_ranks_that_have_begun_once_more_are_not_those_of_before(
    monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    log = Log(monkeypatch)
    watch = Culprit(log, MPIEXEC)
    log.text = SAID
    assert log.after(1.1, watch) == ""
    log.text += f"{begun}\n"
    assert log.after(5.0, watch) == ""
    log.text += "mpirun noticed that process rank 2 with PID 7 on node node1 exited on signal 9 (Killed).\n"
    assert log.after(1.1, watch) == ""
    assert log.after(3.1, watch) == "rank 2 ended before all engines were there"


@pytest.mark.parametrize(
    "said",
    [
        "= PID 7 RUNNING AT node1\n",  # the job's setup: it may use mpiexec as well
        f"{BEGUN}= PID 7 RUNNING AT node1\nhpcremote: job 7 has started on node2\n",  # it was queued again
        f"hpcremote: job 7 has started on node2\n= PID 7 RUNNING AT node1\n{BEGUN}",
    ],
)
def test_what_was_written_before_the_ranks_began_is_not_of_them(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(monkeypatch)
    log.text = said
    watch = Culprit(log, MPIEXEC)
    assert [log.after(2.0, watch) for _ in range(4)] == [""] * 4


def test_a_launcher_that_does_not_say_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(monkeypatch)
    log.text = SAID
    watch = Culprit(log, None)
    assert log.after(10.0, watch) == log.after(10.0, watch) == ""
    assert log.read == 0
