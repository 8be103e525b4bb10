"""Engines whose job ends: what clients hear, what is refused, and what runs before."""

from __future__ import annotations

import logging
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import hpcremote
from hpcremote import LaunchError, NotEnoughTime
from hpcremote.wire.walltime import ENDS
from tests.integration.support import PATIENCE, Running, command, eventually, has_ended


def ends_in(seconds: float) -> dict[str, str]:
    return {ENDS: f"{time.time() + seconds:.1f}"}


def controller_log(running: Running) -> str:
    return (running.client_file().parent / "logs" / "controller.log").read_text()


def test_how_long_is_left_and_what_is_refused(session_home: Path) -> None:
    with Running(n=2, profile="local", environment=ends_in(3600)) as running:
        rc = running.rc
        view = rc[:]
        assert rc.time_left is not None
        assert 3000 < rc.time_left < 3600
        assert rc.set(1).time_left == pytest.approx(rc.time_left, abs=5)
        assert running.cluster.time_left == pytest.approx(rc.time_left, abs=5)
        assert "left" in rc.info().columns
        said = command("status", "--profile", "local", "--cluster-id", running.cluster.cluster_id).stdout
        assert "  time left   59 min" in said

        words = (
            r"apply\(pow\): the job of the set of engine . ends in 59 min.*, and the call needs 2 h: it was"
        )
        view.set_flags(needs=120)
        with pytest.raises(NotEnoughTime, match=words):
            view.apply_sync(pow, 2, 3)
        with pytest.raises(NotEnoughTime):
            rc[1].call(pow, (2, 3), needs=120, block=True)
        with view.temp_flags(needs=1):
            assert view.apply_sync(pow, 2, 3) == [8, 8]
        assert view.apply_sync.__self__.client.outstanding == set()
        with pytest.raises(TypeError, match="needs is a number of minutes, not 'long'"):
            rc[0].call(pow, (2, 3), needs="long")


def test_without_a_limit_there_is_none(session_home: Path) -> None:
    with Running(n=1, profile="local") as running:
        assert running.rc.time_left is None
        assert running.rc.set(0).time_left is None
        assert "left" not in running.rc.info().columns
        assert running.rc[0].call(pow, (2, 3), needs=1e6, block=True) == 8


def test_callbacks_come_before_the_end(session_home: Path, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Any] = []
    came = threading.Event()

    def note(ending: Any) -> None:
        heard.append(ending)
        came.set()

    with Running(n=2, profile="local", environment=ends_in(500)) as running:
        rc = running.rc
        with caplog.at_level(logging.WARNING, logger="hpcremote.client"):
            undo = rc.on_walltime(0.001, note)
            rc.on_walltime(60, note)
            assert came.wait(PATIENCE)
            eventually(lambda: len(heard) == 2 and len(caplog.messages) >= 2)
        undo()
        assert sorted(one.engines for one in heard) == [[0], [1]]
        assert all(0 < one.seconds < 500 and one.why == "" for one in heard)
        assert caplog.messages[0].startswith("the job of engine 0 ends in")


def test_nonsense_is_told(session_home: Path) -> None:
    with pytest.raises(LaunchError, match=f"variable {ENDS} has to be seconds since the epoch.*not 'soon'"):
        hpcremote.Cluster(n=1, profile="local", environment={ENDS: "soon"}).start()


SETUP = """
import os, time
import hpcremote
from mpi4py import MPI
order = []

def last_words():
    order.append(("hook", hpcremote.comm().allreduce(rank)))

rank = MPI.COMM_WORLD.rank
hpcremote.on_walltime(last_words)
"""


@pytest.mark.mpi
def test_hooks_wait_for_the_call_and_may_communicate_then_all_is_saved(
    session_home: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    folder = tmp_path / "saved"

    slow = f"""
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
order.append("call")
"""
    settings = {"save_on_walltime": str(folder), "walltime_warning": 7200.0}
    with Running(n=3, profile="mpi", environment=ends_in(3600), **settings) as running:
        view = running.rc[:]
        view.block = True
        view.block = False
        view.execute(SETUP.partition("hpcremote.on_walltime")[0])
        registered = view.execute(f"{slow}hpcremote.on_walltime(last_words)")
        between = view.execute("order.append('between')")  # numbered before the hooks are known
        gate.touch()
        registered.get(PATIENCE)
        between.get(PATIENCE)
        told = f"7 names saved to {folder}/rank-0.hpcremote"
        eventually(lambda: told in controller_log(running), why="the controller did not hear of it")
        view.block = True
        view.clear()
        view.load(folder)
        assert view["order"] == [["call", "between", ("hook", 3)]] * 3


@pytest.mark.mpi
def test_a_hook_that_fails_is_told_and_the_others_go_on(session_home: Path, tmp_path: Path) -> None:
    code = SETUP.replace("order.append", "assert rank != 1, 'no more'\n    order.append")
    settings = {"save_on_walltime": str(tmp_path), "walltime_warning": 7200.0, "collective_grace": 0.1}
    with Running(n=2, profile="mpi", environment=ends_in(3600), **settings) as running:
        view = running.rc[:]
        view.block = True
        view.execute(code)
        told = "failed on engine 1: AssertionError: no more"
        eventually(lambda: told in controller_log(running), why="no failure was told")
        assert len(list(tmp_path.glob("rank-*.hpcremote"))) == 2
        assert view.apply(lambda: hpcremote.comm().allreduce(1)) == [2, 2]


HOOK = """
import hpcremote

def last_words():
    global said
    said = "good bye"

hpcremote.on_walltime(last_words, before=1)
"""


@pytest.mark.mpi
def test_a_warning_signal_to_a_rank_runs_the_hooks(session_home: Path, tmp_path: Path) -> None:
    heard: list[Any] = []
    with Running(n=2, profile="mpi", environment=ends_in(3600)) as running:
        running.rc.on_walltime(1, heard.append)
        view = running.rc[:]
        view.block = True
        view.execute(HOOK)
        for engine in running.engines.values():
            engine.send_signal(signal.SIGUSR1)
        eventually(lambda: heard, why="the client did not hear of it")
        eventually(lambda: "is done (" in controller_log(running), why="no hook ran")
        assert heard[0].why == "its scheduler is about to end it (SIGUSR1)"
        assert heard[0].engines == [0, 1]
        assert view["said"] == ["good bye"] * 2


@pytest.mark.mpi
def test_sigterm_saves_and_then_ends_the_set(session_home: Path, tmp_path: Path) -> None:
    environment = ends_in(3600)
    running = Running(n=2, profile="mpi", environment=environment, save_on_walltime=str(tmp_path))
    with running:
        view = running.rc[:]
        view.block = True
        view.execute(HOOK)
        for engine in running.engines.values():
            engine.send_signal(signal.SIGTERM)
        eventually(lambda: not running.rc.ids, why="the ranks did not end")
        causes = {gone.cause for gone in running.rc.link.gone.values()}
        assert causes == {"its job was ended by its scheduler (SIGTERM)"}
        for engine in running.engines.values():
            eventually(lambda engine=engine: has_ended(engine), why="a process is left")
    with Running(n=2, profile="mpi") as again:
        again.rc[:].load(tmp_path, block=True)
        assert again.rc[:].pull("said", block=True) == ["good bye"] * 2


@pytest.mark.mpi
def test_a_rank_that_dies_in_a_job_ends_the_others_as_ever(session_home: Path) -> None:
    with Running(n=2, profile="mpi", environment=ends_in(3600)) as running:
        running.engines[1].kill()
        eventually(lambda: not running.rc.ids, why="the other rank did not end")
        assert "SIGKILL" in running.rc.link.gone[1].cause
        assert "scheduler" not in running.rc.link.gone[0].cause


def test_engines_that_are_no_job_have_no_next_one(session_home: Path) -> None:
    with (
        Running(n=1, profile="local") as running,
        pytest.raises(LaunchError, match="profile 'local' names no scheduler"),
    ):
        running.cluster.extend()
