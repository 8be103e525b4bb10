"""The commands, for real: what they print, what they return, and that nothing is left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpcremote import Client, Cluster, files
from hpcremote.cli import exits
from hpcremote.launch import record


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of our own; whatever a test leaves running is stopped, and is an error."""
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))
    monkeypatch.delenv("HPCREMOTE_PROFILE", raising=False)
    yield tmp_path / "home"
    left = [folder for folder in record.folders() if record.read(folder) is not None]
    hpcremote("stop", "--all", "--timeout", "0")
    assert left == []
    assert processes_of(tmp_path) == []


def processes_of(home: Path) -> list[int]:
    """Processes that were started with a file below *home*."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path("/proc", name, "cmdline").read_text()
        except OSError:
            continue
        if str(home) in words and files.process_start(int(name)) is not None:
            found.append(int(name))
    return found


def hpcremote(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hpcremote", *words], capture_output=True, text=True, check=False, timeout=60
    )


def background(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hpcremote", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(done, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_cluster_from_start_to_stop(home):
    started = hpcremote("start", "-n", "2", "--profile", "local")
    assert started.returncode == exits.OK
    assert started.stdout.splitlines() == [
        "cluster 'default' of profile 'local' is ready: 2 engines, local",
        "  connect:  rc = hpcremote.Client(profile='local')",
        "  stop:     hpcremote stop --profile local",
    ]
    assert "register 2/2" in started.stderr
    with Client(profile="local") as rc:
        assert rc.ids == [0, 1]

    again = hpcremote("start", "--profile", "local")
    assert again.returncode == exits.ALREADY_RUNNING
    assert "cluster 'default' of profile 'local' is running, since " in again.stderr
    assert "--cluster-id another-name" in again.stderr

    status = hpcremote("status")
    assert status.returncode == exits.OK
    assert status.stdout.startswith("cluster 'default' of profile 'local': running\n")
    assert "engines     2 of 2" in status.stdout
    told = json.loads(hpcremote("status", "--json").stdout)
    assert list(told["engines"].values()) == [[0, 1]]

    other = hpcremote("start", "-n", "1", "-p", "local", "-c", "b", "-q")
    assert (other.returncode, other.stdout, other.stderr) == (exits.OK, "", "")
    rows = json.loads(hpcremote("list", "--json").stdout)
    assert [(row["cluster_id"], row["state"]) for row in rows] == [("b", "running"), ("default", "running")]
    assert hpcremote("stop").returncode == exits.NO_CLUSTER  # which of the two?

    stopped = hpcremote("stop", "--cluster-id", "b")
    assert (stopped.returncode, stopped.stdout) == (exits.OK, "cluster 'b' of profile 'local' is stopped\n")
    assert hpcremote("stop", "--all").stdout == "cluster 'default' of profile 'local' is stopped\n"
    assert hpcremote("status").returncode == exits.NO_CLUSTER
    assert hpcremote("list").stdout == "no clusters; start one with hpcremote start\n"
    assert sorted(path.name for path in (home / "clusters/local/b").iterdir()) == [".lock", "logs"]


@pytest.mark.mpi
def test_mpi_ranks(home):
    started = hpcremote("start", "-n", "2", "--profile", "mpi")
    assert started.returncode == exits.OK, started.stderr
    assert "is ready: 2 engines, mpiexec, " in started.stdout
    with Client(profile="mpi") as rc:
        assert rc[:].apply_sync(os.getenv, "HPCREMOTE_EXPECT") == ["2", "2"]
    assert hpcremote("stop").returncode == exits.OK


@pytest.mark.mpi
def test_status_tells_how_far_a_start_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(record.__file__).parents[2]))
    python = tmp_path / "python"  # the second of two engines waits
    wait = f"mkdir {tmp_path}/first 2>/dev/null || while [ ! -e {tmp_path}/go ]; do sleep 0.1; done"
    python.write_text(f'#!/bin/sh\ncase "$*" in *" engine "*) {wait};; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    start = background("start", "-n", "2", "-p", "mpi", "--set", f"python={python}")

    def phases():
        status = hpcremote("status", "--json")
        return json.loads(status.stdout)["phases"] if status.returncode == exits.ERROR else None

    wait_for(lambda: (phases() or {}).get("launch") == 1, 60.0)
    status = hpcremote("status")
    assert status.returncode == exits.ERROR
    assert status.stdout.startswith("cluster 'default' of profile 'mpi': starting\n")
    assert re.search(
        r"^  starting    launch 1/2, MPI_Init [01]/2, register 0/2$", status.stdout, re.MULTILINE
    )
    (tmp_path / "go").touch()
    _, said = start.communicate(timeout=60)
    assert start.returncode == exits.OK, said
    assert json.loads(hpcremote("status", "--json").stdout)["phases"] is None
    assert hpcremote("stop").returncode == exits.OK


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_foreground_stops_everything_when_told_to(number):
    command = background("start", "-n", "1", "-p", "local", "--foreground")
    assert command.stdout is not None
    assert "is ready" in command.stdout.readline()
    command.send_signal(number)
    command.communicate(timeout=30)
    assert command.returncode == exits.OK


def test_foreground_ends_with_its_controller():
    command = background("start", "-n", "1", "-p", "local", "--foreground")
    assert command.stdout is not None
    assert "is ready" in command.stdout.readline()
    assert hpcremote("stop").returncode == exits.OK
    command.communicate(timeout=30)
    assert command.returncode == exits.OK


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_an_interrupted_start_leaves_nothing(home, tmp_path, monkeypatch, number, code):
    monkeypatch.setenv("PYTHONPATH", str(Path(record.__file__).parents[2]))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in *" engine "*) sleep 60;; esac\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    command = background("start", "-n", "1", "-p", "local", "--set", f"python={python}")
    wait_for((home / "clusters/local/default/client.json").exists)
    command.send_signal(number)
    _, said = command.communicate(timeout=30)
    # Python itself may end by the signal when Ctrl-C meets an import; to a shell both are 130.
    assert command.returncode in (code, -signal.SIGINT if number == signal.SIGINT else code), said
    assert "Traceback" not in said
    wait_for(lambda: record.read(home / "clusters/local/default") is None)
    wait_for(lambda: processes_of(home) == [])


def test_a_failed_start_says_why_and_logs_tell_later(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(record.__file__).parents[2]))
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\ncase "$*" in *" engine "*) echo oh no; exit 3;; esac\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    failed = hpcremote("start", "-n", "1", "-p", "local", "--set", f"python={python}")
    assert failed.returncode == exits.NOT_LAUNCHED
    assert "hpcremote: engine 0 ended before all engines were there (exit code 3)" in failed.stderr
    assert "oh no" in failed.stderr
    assert "oh no" in hpcremote("logs", "--engines").stdout
    status = hpcremote("status")
    assert status.returncode == exits.NO_CLUSTER
    assert "engine 0 ended before all engines were there (exit code 3)" in status.stdout
    assert hpcremote("start", "-n", "1", "-p", "local", "-q").returncode == exits.OK
    assert hpcremote("stop").returncode == exits.OK
    assert hpcremote("status").stdout == ""


def test_what_the_scheduler_said_of_a_job_that_it_did_not_take_is_told_later(tmp_path, monkeypatch):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho sbatch: error: invalid partition specified: nosuch >&2\nexit 1\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    start = hpcremote("start", "-n", "2", "-p", "slurm", "--set", "queue=nosuch")
    assert start.returncode == exits.NOT_LAUNCHED
    status = hpcremote("status", "-p", "slurm")
    assert (status.returncode, status.stderr) == (exits.NO_CLUSTER, "")
    first, *said = status.stdout.splitlines()
    assert first.startswith("there is no cluster 'default' of profile 'slurm': its last start failed ")
    assert "  sbatch: error: invalid partition specified: nosuch" in said
    assert "sbatch: error: invalid partition specified: nosuch" in hpcremote("logs").stdout.splitlines()
    told = hpcremote("status", "--json")
    assert told.returncode == exits.NO_CLUSTER
    seen = json.loads(told.stdout)
    assert (seen["condition"], seen["n"]) == ("failed", 2)
    assert f"hpcremote: {seen['failure']}\n" in start.stderr
    assert hpcremote("status", "-p", "local").returncode == exits.NO_CLUSTER
    assert hpcremote("clean").returncode == exits.OK
    assert hpcremote("status", "-p", "slurm").stdout == ""


def test_logs_follow_to_the_end(home):
    assert hpcremote("start", "-n", "1", "-p", "local", "-q").returncode == exits.OK
    follow = background("logs", "-f", "--controller", "-n", "1")
    assert follow.stdout is not None
    assert follow.stdout.readline() != ""
    assert hpcremote("stop").returncode == exits.OK
    rest, said = follow.communicate(timeout=30)
    assert (follow.returncode, said) == (exits.OK, "")
    assert "ended: " in rest


def test_clean_removes_what_the_dead_left(home):
    assert hpcremote("start", "-n", "1", "-p", "local", "-q").returncode == exits.OK
    found = record.read(home / "clusters/local/default")
    assert found is not None
    connection = record.peek(found.folder / "client.json")
    assert connection is not None
    traces = [Path(connection.ipc.removeprefix("ipc://")), Path(connection.shm)]
    for one in found.processes:
        os.kill(one.pid, signal.SIGKILL)
    wait_for(lambda: found.condition() == "stale")
    assert "stale" in hpcremote("list").stdout
    status = hpcremote("status")
    assert status.returncode == exits.ERROR
    assert "remedy      hpcremote stop --profile local" in status.stdout
    assert all(path.exists() for path in traces)
    assert f"would remove {found.folder}" in hpcremote("clean", "--dry-run").stdout
    assert found.folder.exists()
    assert hpcremote("clean").returncode == exits.OK
    assert not found.folder.exists()
    assert not [path for path in traces if path.exists()]


def test_clean_leaves_the_living_alone(home):
    assert hpcremote("start", "-n", "1", "-p", "local", "-q").returncode == exits.OK
    assert "clusters/local/default" not in hpcremote("clean").stdout
    with Client(profile="local") as rc:
        assert rc[0].apply_sync(abs, -1) == 1
    assert hpcremote("stop").returncode == exits.OK


# ---------------------------------------------------------------- by hand


@pytest.fixture
def controller(home):
    command = background("controller", "--profile", "local", "--cluster-id", "hand")
    wait_for((home / "clusters/local/hand/engine.json").exists)
    yield command
    command.terminate()
    command.communicate(timeout=30)
    assert command.returncode == exits.OK
    assert not (home / "clusters/local/hand/engine.json").exists()


def test_an_engine_joins_by_hand(controller):
    engine = background("engine", "--profile", "local")
    with Client(profile="local") as rc:
        rc.wait_for_engines(1, timeout=20)
        assert rc[0].apply_sync(abs, -3) == 3
        rc.shutdown()
    engine.communicate(timeout=30)
    assert engine.returncode == exits.OK


@pytest.mark.mpi
def test_ranks_join_by_hand(controller):
    mpiexec = Path(sys.executable).parent / "mpiexec"
    words = [str(mpiexec), "-n", "2", sys.executable, "-m", "hpcremote", "engine", "--profile", "local"]
    ranks = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )

    def rank():
        from mpi4py import MPI

        return MPI.COMM_WORLD.rank

    with Client(profile="local") as rc:
        rc.wait_for_engines(2, timeout=30)
        assert rc[:].apply_sync(rank) == [0, 1]
        rc.shutdown()
    assert ranks.wait(30) == 0


def test_a_controller_by_hand_is_listed_and_not_overwritten(controller):
    rows = json.loads(hpcremote("list", "--json").stdout)
    assert [(row["cluster_id"], row["state"], row["launcher"]) for row in rows] == [
        ("hand", "running", "by hand")
    ]
    refused = hpcremote("start", "-p", "local", "-c", "hand")
    assert refused.returncode == exits.ALREADY_RUNNING
    assert "started by hand" in refused.stderr


@pytest.fixture
def by_hand(home):
    """A controller by hand with two MPI ranks by hand."""
    command = background("controller", "--profile", "local", "--cluster-id", "hand")
    wait_for((home / "clusters/local/hand/engine.json").exists)
    mpiexec = Path(sys.executable).parent / "mpiexec"
    words = [str(mpiexec), "-n", "2", sys.executable, "-m", "hpcremote", "engine", "--profile", "local"]
    ranks = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    with Client(profile="local", cluster_id="hand") as rc:
        rc.wait_for_engines(2, timeout=30)
    yield command, ranks
    for process in (command, ranks):
        process.kill()
        process.communicate()


@pytest.mark.mpi
def test_what_was_started_by_hand_is_shown_and_stopped_like_anything_else(by_hand, home):
    command, ranks = by_hand
    status = hpcremote("status")
    assert status.returncode == exits.OK
    said = status.stdout.splitlines()
    assert said[0] == "cluster 'hand' of profile 'local': running"
    assert said[1].endswith(", by hand") and "started" in said[1]
    assert said[2] == "  engines     2"
    assert said[3].endswith(" 0-1")
    told = json.loads(hpcremote("status", "--json").stdout)
    assert (told["controller"], told["n"], told["launcher"]) == (command.pid, None, "by hand")
    assert len(told["processes"]) == 3

    logs = hpcremote("logs")
    assert logs.returncode == exits.ERROR
    assert "cluster 'hand' of profile 'local' was started by hand" in logs.stderr

    stopped = hpcremote("stop")
    assert (stopped.returncode, stopped.stdout) == (
        exits.OK,
        "cluster 'hand' of profile 'local' is stopped\n",
    )
    assert [files.process_start(pid) for pid in told["processes"]] == [None, None, None]
    assert command.wait(10) == ranks.wait(10) == 0
    assert not (home / "clusters/local/hand/client.json").exists()
    assert hpcremote("stop").returncode == exits.NO_CLUSTER
    assert hpcremote("list").stdout == "no clusters; start one with hpcremote start\n"


def test_a_controller_by_hand_that_hangs_is_stopped_all_the_same(home):
    command = background("controller", "--profile", "local", "--cluster-id", "hand")
    wait_for((home / "clusters/local/hand/client.json").exists)
    command.send_signal(signal.SIGSTOP)
    stopped = hpcremote("stop", "--all", "--timeout", "1")
    assert (stopped.returncode, stopped.stderr) == (exits.OK, "")
    assert command.wait(10) == -signal.SIGKILL
    command.communicate()
    assert not (home / "clusters/local/hand/client.json").exists()
    assert hpcremote("list").stdout == "no clusters; start one with hpcremote start\n"


def test_a_controller_by_hand_that_died_is_stale_until_it_is_stopped(home):
    command = background("controller", "--profile", "local", "--cluster-id", "hand")
    wait_for((home / "clusters/local/hand/client.json").exists)
    command.kill()
    command.communicate()
    assert hpcremote("status").stdout.startswith("cluster 'hand' of profile 'local': stale\n")
    assert hpcremote("stop").returncode == exits.OK
    assert not (home / "clusters/local/hand/client.json").exists()


def test_a_controller_by_hand_on_another_machine_is_one_sentence(controller, home):
    here = home / "clusters/local/hand"
    there = files.private_dir(home / "clusters/local/there")
    data = json.loads((here / "client.json").read_text())
    data.update(machine="0" * 32, host="node9", pid=os.getpid(), addresses=["tcp://127.0.0.1:9"], ipc="")
    files.write_private(there / "client.json", json.dumps(data).encode())
    refused = hpcremote("stop", "--cluster-id", "there")
    assert refused.returncode == exits.NOT_LAUNCHED
    assert (
        f"started by hand on node9 (pid {os.getpid()}) and does not answer: stop it there" in refused.stderr
    )
    assert len(refused.stderr.splitlines()) == 1
    rows = json.loads(hpcremote("list", "--json").stdout)
    assert [(row["cluster_id"], row["state"]) for row in rows] == [
        ("hand", "running"),
        ("there", "elsewhere"),
    ]
    assert hpcremote("status", "-c", "there").stdout.startswith(
        "cluster 'there' of profile 'local': elsewhere"
    )


def test_an_engine_without_a_controller_gives_up():
    alone = hpcremote("engine", "--profile", "local", "--wait", "0.2")
    assert alone.returncode == exits.NO_CLUSTER
    assert "no cluster of profile 'local' is running" in alone.stderr
    assert "Traceback" not in alone.stderr


def test_restart_leaves_alone_what_was_stopped_on_purpose(home) -> None:
    cluster = Cluster(n=1, profile="local", cluster_id="a").start()
    try:
        cluster.start_engines(1)
        cluster.stop_engines(1)
        done = hpcremote("restart", "-p", "local", "-c", "a")
        assert [line.partition(":")[0] for line in done.stdout.splitlines()] == ["engine set 0 is restarted"]
        cluster.stop_engines(0)  # all of it: then that cannot be what is meant
        assert len(hpcremote("restart", "-p", "local", "-c", "a").stdout.splitlines()) == 2
    finally:
        cluster.stop()


def test_a_dry_run_tells_which_keys_have_no_effect() -> None:
    done = hpcremote("start", "-p", "mpi", "-n", "1", "--dry-run", "--set", "walltime=2:00:00")
    assert done.returncode == 0
    assert done.stderr == (
        "hpcremote: profile 'mpi' names no scheduler: walltime has no effect; name one (scheduler: slurm), "
        "or leave it out\n"
    )
    assert hpcremote("start", "-q", "-p", "mpi", "--dry-run", "--set", "walltime=2:00:00").stderr == ""


def test_a_dry_run_by_ssh_shows_what_each_host_is_told() -> None:
    words = ("-n", "3", "-p", "mpi", "--set", "launcher=ssh", "--set", "hosts=[a:2, b]")
    done = hpcremote("start", "--dry-run", *words)
    assert done.returncode == 0, done.stderr
    _, first, second = done.stdout.split("$ ssh ")
    assert " a exec sh -s <<'END'\n" in first
    assert " b exec sh -s <<'END'\n" in second
    assert [part.count(" engine --file ") for part in (first, second)] == [2, 1]
