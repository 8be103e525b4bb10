"""Engine sets for real: several on one controller, sets that come back, restarts by client and command."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

import hpcremote
from hpcremote import files
from hpcremote.launch import record
from tests.integration.support import Running, command, environment, eventually, has_ended

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(120)]

#: A restart takes one or two seconds; a busy machine is given this.
SOON = 30.0
MPIEXEC = shutil.which(
    "mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
)


def engine_file(running: Running) -> str:
    return str(running.client_file().with_name("engine.json"))


@contextlib.contextmanager
def by_hand(running: Running, n: int) -> Iterator[subprocess.Popen[str]]:
    """What somebody types in a terminal: ``mpiexec -n 2 hpcremote engine``."""
    assert MPIEXEC is not None
    engine = ("-m", "hpcremote", "engine")
    started = subprocess.Popen(
        [MPIEXEC, "-n", str(n), sys.executable, *engine, "--file", engine_file(running), "--wait", "10"],
        env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield started
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(0 if started.poll() is None else SOON)
        if started.poll() is None:
            started.terminate()
        started.communicate(timeout=SOON)


def die(rc: hpcremote.Client, engine: int, ids: list[int]) -> None:
    """Kill one rank; its launcher ends the others."""
    os.kill(rc.link.engines[engine].pid, signal.SIGKILL)
    assert rc.link.wait(lambda: rc.ids == ids, SOON)


# ---------------------------------------------------------------- several sets


def test_several_sets_on_one_controller(start: Callable[..., Running]) -> None:
    running = start(n=2, profile="mpi")
    rc = running.rc
    with by_hand(running, 1) as second:
        assert rc.link.wait(lambda: len(rc.ids) == 3, SOON)
        assert [one.ids for one in rc.engine_sets] == [[0, 1], [2]]
        assert [row[1:3] for row in rc.info().rows] == [("0", "0/2"), ("0", "1/2"), ("1", "0/1")]
        assert rc.set(0).comm.whole
        with pytest.raises(hpcremote.HPCRemoteError, match="over 2 engine sets"):
            _ = rc[:].comm
        # A view over two sets is fine for calls that do not communicate.
        assert len(set(rc[:].apply_sync(os.getpid))) == 3
        with pytest.raises(
            hpcremote.CompositeError, match="3 of 3 engines: HPCRemoteError.* of several MPI jobs"
        ):
            rc[:].apply_sync(lambda: hpcremote.comm().rank)
        (host,) = rc.by_host()
        assert rc.by_host()[host].targets == [0, 1, 2]
        with pytest.raises(hpcremote.HPCRemoteError, match="the set of engine 2 was started by hand"):
            rc.set(1).restart()
        rc.set(1).shutdown(block=True)
        second.wait(SOON)
        assert rc.ids == [0, 1]
        assert not rc.set(1).alive
        with by_hand(running, 1):  # the same command once more
            assert rc.link.wait(lambda: rc.ids == [0, 1, 2], SOON)
            assert rc.set(1).alive
            rc.set(1).shutdown(block=True)
    assert rc[:].apply_sync(abs, -1) == [1, 1]


#: A job of two ranks under a launcher that does not mind when one of them dies; rank 1 does.
DIES_EARLY = """
import os, signal, sys
from hpcremote.engine import mpi

def join_world(uid, expect):
    if os.environ["RANK"] == "1":
        with open("pipe", "w") as pipe:
            pipe.write(uid)
        os.kill(os.getpid(), signal.SIGKILL)
    with open("pipe") as pipe:
        other = pipe.read()
    members = [mpi._member(uid, 0, "MPI"), mpi._member(other, 1, "MPI")]
    return mpi.Place("5" * 32, 0, 2, members), None

mpi.side_of = lambda internal, place, replace: None
mpi.join_world = join_world
from hpcremote.cli.main import main
sys.exit(main(["engine", "--mpi", *sys.argv[1:]]))
"""


def test_a_rank_lost_before_it_registers_ends_the_others_at_once(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    running = start(n=1, profile="local")
    os.mkfifo(tmp_path / "pipe")
    words = [sys.executable, "-c", DIES_EARLY, "--file", engine_file(running), "--wait", "10"]
    options = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    ranks = [subprocess.Popen(words, env=environment(RANK=str(rank)), **options) for rank in (0, 1)]  # type: ignore[call-overload]
    try:
        _, said = ranks[0].communicate(timeout=SOON)
        ranks[1].communicate(timeout=SOON)
    finally:
        for rank in ranks:
            rank.kill()
    assert ranks[0].returncode == 5
    assert "rank 1 of its MPI job (pid " in said and "ended before all 2 ranks had registered" in said
    log = files.cluster_dir("local", running.cluster.cluster_id) / "logs" / "controller.log"
    assert f"(pid {ranks[1].pid}) failed in phase " in log.read_text()
    assert running.rc.ids == [0]


# ---------------------------------------------------------------- restart


@pytest.mark.openmpi
def test_a_stuck_set_is_restarted_under_its_ids(start: Callable[..., Running]) -> None:
    running = start(n=2, profile="mpi")
    rc = running.rc
    view, whole = rc[:], rc.set(0)
    with view.sync_imports(quiet=True):
        import math  # noqa: F401
    view.execute("import ctypes\nhalf = math.pi / 2", block=True)
    view.push({"data": 1}, block=True)
    with pytest.raises(hpcremote.RemoteError):
        view.execute("raise ValueError", block=True)
    former = whole.set_id
    stuck = view.apply_async(_hold_the_gil)
    queued = rc[0].apply_async(abs, -1)
    eventually(lambda: rc.queue_status()[0]["queue"] == 2)
    began = time.monotonic()
    assert whole.restart(replay=True) is whole
    print(f"restarted in {time.monotonic() - began:.2f} s")
    assert time.monotonic() - began < SOON
    for ar in (stuck, queued):
        with pytest.raises((hpcremote.EngineError, hpcremote.CompositeError), match="its set was restarted"):
            ar.get(SOON)
    assert rc.ids == [0, 1] and whole.ids == [0, 1] and whole.set_id != former
    for engine in running.engines.values():
        eventually(lambda engine=engine: has_ended(engine))
    assert [round(half, 2) for half in view["half"]] == [1.57, 1.57]
    with pytest.raises(hpcremote.RemoteError, match="data"):
        view["data"]
    assert set(view.apply_sync(os.getpid)).isdisjoint(one.pid for one in running.engines.values())
    running._take_note()


def _hold_the_gil() -> None:
    import ctypes

    ctypes.PyDLL(None).sleep(1000)


@pytest.mark.openmpi
def test_a_dead_set_is_back_with_one_call_and_with_one_command(start: Callable[..., Running]) -> None:
    running = start(n=2, profile="mpi")
    rc = running.rc
    die(rc, 1, [])
    with running.new_client() as other:  # one that has not seen it die
        dead = other.set(0)
        assert not dead.alive and dead.size == 2
        with pytest.raises(
            hpcremote.EngineError, match=r"engine set 0 \(engines 0 to 1\) has ended .*SIGKILL"
        ):
            dead.apply_sync(os.getpid)
        dead.restart()
        assert dead.apply_sync(abs, -1) == [1, 1]
    assert rc.ids == [0, 1]
    die(rc, 0, [])
    done = command("restart", "--set", "0", "-p", "mpi", "-c", running.cluster.cluster_id, seconds=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("engine set 0 is restarted: engines 0 to 1 (")
    assert rc.link.wait(lambda: rc.ids == [0, 1], SOON)
    assert rc[:].apply_sync(abs, -1) == [1, 1]
    wrong = command("restart", "--set", "4", "-p", "mpi", "-c", running.cluster.cluster_id)
    assert wrong.returncode == 1
    assert "there is no engine set 4; there are 1" in wrong.stderr
    running._take_note()


def test_of_single_engines_only_the_one_that_is_meant_is_restarted(
    start: Callable[..., Running], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    running = start(n=2, profile="local", environment={"TASTE": "sweet"})
    rc = running.rc
    monkeypatch.chdir("/")
    rc[:].push({"a": 1}, block=True)
    rc.set(1).restart()
    assert rc[0].apply_sync(os.getpid) == running.engines[0].pid
    assert rc[0]["a"] == 1
    assert rc[1].apply_sync(os.getpid) != running.engines[1].pid
    # As at the first time: folder, environment, and what was overridden.
    assert rc[1].apply_sync(os.getcwd) == str(tmp_path)
    assert rc[1].apply_sync(os.getenv, "TASTE") == "sweet"
    found = record.read(files.cluster_dir("local", running.cluster.cluster_id))
    assert found is not None
    assert sorted(one.pid for one in found.engines) == sorted(rc[:].apply_sync(os.getpid))
    running._take_note()


def test_a_restart_that_fails_says_why_and_leaves_nothing(start: Callable[..., Running]) -> None:
    running = start(n=1, profile="mpi")
    rc = running.rc
    file = Path(engine_file(running))
    text = file.read_text()
    file.write_text("{}")  # the new engines cannot connect
    try:
        with pytest.raises(hpcremote.HPCRemoteError, match=r"(?s)did not register within 4 s.*engines\.log"):
            rc.set(0).restart(timeout=4)
    finally:
        file.write_text(text)
    assert rc.ids == []
    left = [one for one in running.processes() if "engine" in " ".join(_words(one))]
    assert left == []
    rc.set(0).restart()  # and the next one succeeds
    assert rc[:].apply_sync(abs, -1) == [1]
    running._take_note()


def _words(one: psutil.Process) -> list[str]:
    try:
        return [word for word in one.cmdline() if "/" not in word]
    except psutil.NoSuchProcess:
        return []
