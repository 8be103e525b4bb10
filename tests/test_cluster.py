"""Clusters, for real: start, use, status, stop; bad starts; and that nothing is left of any of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpcremote import Cluster, files
from hpcremote.client.client import Client
from hpcremote.errors import AlreadyRunning, ClusterNotFound, ConfigError, LaunchError, ProfileError
from hpcremote.launch import process, record


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home of our own; at the end there is no process of any cluster in it, nor a socket or key."""
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))
    sockets = set(files.runtime_dir().iterdir())
    yield tmp_path / "home"
    for folder in record.folders():
        left = record.read(folder)
        assert left is None, f"{left} was not ended"
        assert not (folder / "client.json").exists()
    assert running(tmp_path) == []
    assert not [path for path in set(files.runtime_dir().iterdir()) - sockets if belongs_to(path, tmp_path)]


def belongs_to(path: Path, _home: Path) -> bool:
    """Other tests may run beside us: only what nobody listens behind is ours to complain about."""
    from hpcremote.launch import leftovers

    return path in leftovers.orphans(files.runtime_dir())


def running(home: Path) -> list[str]:
    """The command lines of processes that were started with a file below *home*."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and files.process_start(int(name)) is not None:
            try:
                words = Path("/proc", name, "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if str(home) in words:
                found.append(words)
    return found


def wait_for(done, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


# ---------------------------------------------------------------- good starts


def test_with_gives_a_client_and_ends_everything(home):
    cluster = Cluster(n=2, profile="local")
    with cluster as rc:
        assert isinstance(rc, Client)
        assert rc.cluster is cluster
        rc.wait_for_engines(timeout=0)  # as many as the cluster has
        assert rc.ids == [0, 1]
        pids = rc[:].apply_sync(os.getpid)
        assert cluster.status().running
    assert not [pid for pid in pids if files.process_start(pid) is not None]
    assert list(home.glob("clusters/*/*")) == []  # a random id: its logs, too


def test_with_ends_everything_on_an_exception():
    with pytest.raises(ZeroDivisionError), Cluster(n=1, profile="local") as rc:
        pid = rc[0].apply_sync(os.getpid)
        raise ZeroDivisionError
    assert files.process_start(pid) is None


@pytest.mark.mpi
def test_mpi_ranks_and_phases():
    seen = []
    with Cluster(n=2, profile="mpi", progress=seen.append) as rc:

        def rank():
            from mpi4py import MPI

            return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size

        assert rc[:].apply_sync(rank) == [(0, 2), (1, 2)]
    assert seen[-1][:3] == ("register", 2, 2)
    phases = [each.phase for each in seen]
    assert phases == sorted(phases, key=["launch", "MPI_Init", "register"].index)
    assert [each.seconds for each in seen] == sorted(each.seconds for each in seen)


def test_start_status_restart_stop(home):
    cluster = Cluster(n=1, profile="local", cluster_id="a")
    with pytest.raises(ClusterNotFound):
        cluster.status()
    with pytest.raises(ClusterNotFound, match=r"does not run; start\(\) it first"):
        cluster.connect_client()
    assert cluster.start() is cluster
    first = cluster.status()
    assert (first.condition, first.n, first.launcher) == ("running", 1, "local")
    assert list(first.engines.values()) == [[0]]
    with pytest.raises(AlreadyRunning, match="is started already"):
        cluster.start()
    assert cluster.status() == first
    cluster.restart(n=2)
    second = cluster.status()
    assert second.n == 2
    assert set(first.processes).isdisjoint(second.processes)
    with cluster.connect_client() as rc:
        assert rc.ids == [0, 1]
    cluster.stop()
    cluster.stop()  # ended already: fine
    assert (home / "clusters/local/a/logs/engines.log").exists()  # a chosen id: the logs stay


def test_several_at_once():
    with (
        Cluster(n=1, profile="local", cluster_id="a") as one,
        Cluster(n=1, profile="local", cluster_id="b") as two,
    ):
        assert one[0].apply_sync(os.getpid) != two[0].apply_sync(os.getpid)
        with pytest.raises(AlreadyRunning, match="cluster 'a' of profile 'local' is running"):
            Cluster(n=1, profile="local", cluster_id="a").start()
        assert one.ids == [0]  # the refused start did not touch it


def test_another_object_can_stop_it():
    mine = Cluster(n=1, profile="local", cluster_id="a").start()
    Cluster(profile="local", cluster_id="a").stop()
    with pytest.raises(ClusterNotFound):
        mine.status()
    mine.stop()


def test_the_client_can_end_it(home):
    cluster = Cluster(n=1, profile="local", cluster_id="a").start()
    with cluster.connect_client() as rc:
        rc.shutdown(hub=True)
        cluster.wait()
    assert record.read(home / "clusters/local/a") is None
    with cluster.start().connect_client() as rc:  # and it can be started again
        assert rc.ids == [0]
    cluster.stop()


def test_overrides_reach_controller_and_engines(tmp_path):
    overrides = {"environment": {"COLOUR": "blue"}, "working_dir": str(tmp_path), "interface": "127.0.0.1"}
    with Cluster(n=1, profile="local", **overrides) as rc:
        assert rc[0].apply_sync(os.getcwd) == str(tmp_path)
        assert rc[0].apply_sync(os.getenv, "COLOUR") == "blue"


def test_a_profile_by_its_path(tmp_path, monkeypatch):
    (tmp_path / "own.yaml").write_text("extends: local\nn: 1\n")
    monkeypatch.chdir(tmp_path)
    with Cluster(profile="./own.yaml") as rc:
        assert rc.ids == [0]


# ---------------------------------------------------------------- asyncio


def test_asyncio():
    async def use():
        async with Cluster(n=1, profile="local") as rc:
            assert rc.ids == [0]
        cluster = Cluster(n=1, profile="local", cluster_id="a")
        rc = await cluster.start_and_connect_async()
        rc.close()
        assert (await cluster.status_async()).running
        await cluster.stop_async()
        await cluster.start_cluster()
        (await cluster.connect_client_async()).close()
        await cluster.stop_cluster()

    asyncio.run(use())


def test_a_cancelled_start_leaves_nothing(tmp_path, monkeypatch):
    checkout(monkeypatch)

    async def use():
        cluster = Cluster(n=1, profile="local", python=str(waiting_python(tmp_path)))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(cluster.start_async(), 0.5)

    asyncio.run(use())


def test_ipyparallels_names():
    cluster = Cluster(n=1, profile="local")
    cluster.start_cluster_sync()
    cluster.connect_client_sync().close()
    cluster.stop_cluster_sync()
    rc = cluster.start_and_connect_sync()
    assert rc.ids == [0]
    rc.close()
    cluster.stop_cluster_sync()


# ---------------------------------------------------------------- bad starts


def waiting_python(folder: Path, *, engines: str = "sleep 60") -> Path:
    """A Python that is itself for the controller, and for engines a shell script."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$*" in *" engine "*) {engines};; esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def checkout(monkeypatch) -> None:
    """Processes under a named Python find this very hpcremote."""
    monkeypatch.setenv("PYTHONPATH", str(Path(record.__file__).parents[2]))


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "four"])
def test_a_bad_number(n):
    with pytest.raises(ConfigError, match=f"n is {n!r}: a cluster needs a whole number of engines"):
        Cluster(n=n)


def test_a_bad_id():
    with pytest.raises(ConfigError, match=r"cluster_id '\.\./x': has to begin with a letter or digit"):
        Cluster(cluster_id="../x")


def test_what_is_refused_at_once_leaves_no_folder(home):
    with pytest.raises(LaunchError, match="too many"):
        Cluster(n=100_000, profile="local").start()
    assert list(home.glob("clusters/*/*")) == []


def test_engines_that_end_early_are_noticed_at_once(tmp_path, monkeypatch):
    checkout(monkeypatch)
    python = waiting_python(tmp_path, engines="echo all is lost >&2; exit 7")
    began = time.monotonic()
    with pytest.raises(LaunchError) as caught:
        Cluster(n=2, profile="local", python=str(python), start_timeout=60).start()
    assert time.monotonic() - began < 20
    said = str(caught.value)
    assert said.startswith("engine 0 ended before all engines were there (exit code 7)")
    assert "engines.log" in said
    assert "all is lost" in said


def test_a_slow_start_times_out_with_the_phase_and_the_log(tmp_path, monkeypatch):
    checkout(monkeypatch)
    python = waiting_python(tmp_path, engines="echo still thinking; sleep 60")
    with pytest.raises(LaunchError) as caught:
        Cluster(n=2, profile="local", python=str(python), start_timeout=5).start()
    said = str(caught.value)
    assert said.startswith("not ready within 5 s (start_timeout): of 2 engines 0 came up")
    assert "still thinking" in said


def test_a_start_that_somebody_else_stops_says_so(tmp_path, monkeypatch):
    checkout(monkeypatch)
    python = waiting_python(tmp_path, engines="echo still thinking; sleep 60")
    begun = threading.Event()
    cluster = Cluster(
        n=2, profile="local", cluster_id="a", python=str(python), progress=lambda _: begun.set()
    )
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(cluster.start)
        assert begun.wait(20)
        Cluster(profile="local", cluster_id="a").stop()
        with pytest.raises(LaunchError) as caught:
            start.result(20)
    assert str(caught.value) == "cluster 'a' of profile 'local' was stopped while it started"
    with pytest.raises(ClusterNotFound):  # it is no start that failed
        cluster.status()


@pytest.mark.parametrize(
    ("name", "near"), [("profil", "'profile'"), ("partitoin", "'partition'"), ("cluster", "'cluster_id'")]
)
def test_an_argument_that_there_is_not_is_named_with_the_nearest(name, near):
    with pytest.raises(ProfileError, match=rf"has no argument '{name}', .*; did you mean {near}"):
        Cluster(**{name: "x"})


def test_a_controller_that_cannot_start_is_quoted():
    with pytest.raises(LaunchError) as caught:
        Cluster(n=1, profile="local", interface="no-such-interface").start()
    said = str(caught.value)
    assert said.startswith("the controller ended (exit code 1): interface: 'no-such-interface' is neither")


def test_a_controller_that_ends_as_soon_as_it_listens_is_quoted(tmp_path):
    python = tmp_path / "python"
    lines = [
        'case "$*" in *" engine "*) sleep 60;; esac',
        "umask 077",
        "echo {} > client.json",
        "echo too bad",
        "exit 3",
    ]
    python.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    python.chmod(0o755)
    with pytest.raises(LaunchError) as caught:
        Cluster(n=1, profile="local", python=str(python)).start()
    said = str(caught.value)
    assert said.startswith("the controller ended (exit code 3)")
    assert "too bad" in said


def test_no_mpiexec_is_one_sentence():
    with pytest.raises(LaunchError, match="mpiexec: /no/mpiexec"):
        Cluster(n=1, profile="mpi", mpiexec="/no/mpiexec").start()


@pytest.mark.mpi
def test_lonely_ranks_are_one_error_that_names_both_sides(tmp_path):
    """An mpiexec of another MPI starts n ranks that know nothing of each other."""
    other = tmp_path / "mpiexec"
    other.write_text(
        '#!/bin/bash\nif [ "$1" = --version ]; then echo "mpiexec (Open MPI) 4.1.4"; exit; fi\n'
        'n=$2; shift 2; while [ "$1" != -- ] && [[ "$1" == -* ]]; do [ "$1" = -x ] && shift; shift; done\n'
        'for ((i = 0; i < n; i++)); do "$@" & done; wait\n'
    )
    other.chmod(0o755)
    with pytest.raises(LaunchError) as caught:
        Cluster(n=2, profile="mpi", mpiexec=str(other)).start()
    said = str(caught.value)
    assert said.startswith("the 2 ranks came up as lonely ones: ")
    assert "2 ranks were started, but MPI sees 1" in said
    assert f"mpiexec is Open MPI 4.1.4 ({other}) but mpi4py loads " in said


def test_no_mpi_library_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("MPI4PY_LIBMPI", str(tmp_path / "libmpi.so"))
    with pytest.raises(LaunchError) as caught:
        Cluster(n=1, profile="mpi").start()
    assert "MPI library" in str(caught.value)


# ---------------------------------------------------------------- ends

SCRIPT = """
import os, signal, sys, time
from hpcremote import Cluster
{body}
"""


def script(body: str, **options) -> subprocess.Popen[str]:
    code = SCRIPT.format(body=body)
    return subprocess.Popen([sys.executable, "-c", code], text=True, stdout=subprocess.PIPE, **options)


def test_the_end_of_python_is_the_end_of_its_clusters(home):
    ran = script("Cluster(n=1, profile='local', cluster_id='a').start(); print('up')")
    out, _ = ran.communicate(timeout=60)
    assert (out, ran.returncode) == ("up\n", 0)
    assert record.read(home / "clusters/local/a") is None


def test_detached_it_lives_on(home):
    ran = script("Cluster(n=1, profile='local', cluster_id='a', shutdown_atexit=False).start()")
    assert ran.communicate(timeout=60)[0] == ""
    assert ran.returncode == 0
    cluster = Cluster(profile="local", cluster_id="a")
    try:
        assert cluster.status().running
        with cluster.connect_client() as rc:
            assert rc[0].apply_sync(abs, -1) == 1
    finally:
        cluster.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_python_takes_its_clusters_along(home, number):
    ran = script(
        "Cluster(n=2, profile='local', cluster_id='a').start(); print('up', flush=True); time.sleep(60)"
    )
    assert ran.stdout is not None
    assert ran.stdout.readline() == "up\n"
    ran.send_signal(number)
    ran.wait()
    ran.stdout.close()
    wait_for(lambda: record.read(home / "clusters/local/a") is None)
    wait_for(lambda: running(home) == [])


def test_a_stubborn_engine_is_killed():
    with Cluster(n=1, profile="local", stop_timeout=0.5) as rc:
        pid = rc[0].apply_sync(os.getpid)
        rc[0].apply_async(stubborn)
    assert files.process_start(pid) is None


def stubborn() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(0.1)


def test_a_killed_controller_leaves_a_broken_cluster_that_can_be_stopped(home):
    cluster = Cluster(n=1, profile="local", cluster_id="a").start()
    found = record.read(home / "clusters/local/a")
    assert found is not None
    assert found.controller is not None
    os.kill(found.controller.pid, signal.SIGKILL)
    wait_for(lambda: cluster.status().condition == "broken")
    cluster.stop()
    assert process.marked(found.mark) == []


def test_a_dead_predecessor_is_replaced(home):
    cluster = Cluster(n=1, profile="local", cluster_id="a").start()
    before = cluster.status()
    for pid in before.processes:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: cluster.status().condition == "stale")
    with Cluster(n=1, profile="local", cluster_id="a") as rc:
        assert rc[0].apply_sync(abs, -1) == 1
    cluster.stop()
