"""A start that fails half way, and ends."""

from __future__ import annotations

import os
import sys

import pytest

from hpcremote import profile
from hpcremote.errors import HPCRemoteError, LaunchError
from hpcremote.launch import ending, process, record, startup
from hpcremote.launch.attempt import attempt
from hpcremote.launch.process import Child
from hpcremote.launch.record import Submitted


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))


def job_of(scheduler: str) -> Submitted:
    return Submitted("7", scheduler, "job", 2, 0.0, "job.sh", "engines.log", "mpiexec")


def test_processes_end_even_if_the_scheduler_does_not_take_the_job_back(tmp_path):
    begun = startup.Startup(profile.Profile("p", launcher="local"), "a", 1)
    record.claim(begun.record)
    words = [sys.executable, "-c", "import signal; signal.pause()"]
    env = {**os.environ, process.MARK: begun.record.mark}
    child = Child(words, env=env, cwd=str(tmp_path), log=tmp_path / "log", leash=True)
    what = begun.record.changed(controller=child.process, jobs=(job_of("no-such-scheduler"),))
    with pytest.raises(HPCRemoteError, match="no-such-scheduler"):
        ending.end(what, [child], polite=0.0)
    assert not child.process.alive()
    assert record.read(what.folder) is not None  # its job is there still


def test_a_start_that_is_refused_at_once_makes_no_folder():
    begun = startup.Startup(profile.Profile("p", launcher="local", max_ranks_per_core=1), "a", 10_000)
    with pytest.raises(LaunchError, match="too many"), attempt(begun.abandon):
        begun.launch([], [])
    assert record.folders() == []


def test_an_error_stays_what_it_was_when_what_had_begun_is_abandoned():
    ended = []
    with pytest.raises(KeyError, match="mine"), attempt(lambda: ended.append(1)):
        raise KeyError("mine")
    assert ended == [1]

    def refused() -> None:
        raise LaunchError("scancel fails")

    both = r"(?s)mine.*Not all that had begun could be ended: scancel fails"
    with pytest.raises(LaunchError, match=both), attempt(refused):
        raise LaunchError("mine")


def test_the_end_of_a_cluster_that_is_gone_makes_no_folder():
    begun = startup.Startup(profile.Profile("p", launcher="local"), "a", 1, temporary=True)
    record.claim(begun.record)
    record.forget(begun.record)
    ending.end(begun.record, polite=0.0)
    assert not begun.record.folder.exists()
