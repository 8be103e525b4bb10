"""Sessions as jobs of a real Slurm and a real Grid Engine: started, used, ended, and all that goes wrong."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from hpcremote import files
from tests.integration.support import eventually
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.hosts import Host, Hosts
from tests.schedulers.lab.slurm import Slurm

pytestmark = pytest.mark.mpi

#: What each session begins with: ``cluster()`` starts one, ``say`` writes a value for the test to read.
_BEGIN = """
import os, signal, sys, time
import hpcremote
from hpcremote.errors import EngineError, HPCRemoteError, LaunchError

def say(name, value):
    print(f"{name}={value!r}", flush=True)

def cluster(cluster_id=None, **more):
    def tell(now):
        print("progress:", now.phase, now.detail)
    return hpcremote.Cluster(profile=PROFILE, cluster_id=cluster_id, progress=tell, **{**KEYS, **more})

def where():
    from mpi4py import MPI
    return MPI.COMM_WORLD.rank, os.uname().nodename, MPI.COMM_WORLD.allreduce(1)
"""


class System(NamedTuple):
    """A batch system, and the keys that give a session four ranks on at least two hosts."""

    name: str
    lab: Slurm | GridEngine
    keys: dict[str, object]
    cwd: Path

    @property
    def head(self) -> Host:
        return self.lab.hosts.head

    def words(self, code: str, keys: dict[str, object]) -> list[str]:
        head = f"PROFILE, KEYS = {self.name!r}, { ({**self.keys, **keys})!r}\n{_BEGIN}\n"
        return [sys.executable, "-c", head + textwrap.dedent(code)]

    def session(self, code: str, host: Host | None = None, **keys: object) -> Said:
        """Run a session on the head to its end."""
        done = (host or self.head).run(self.words(code, keys), cwd=self.cwd, seconds=110)
        assert done.returncode == 0, done.stdout + done.stderr
        return Said(done.stdout + done.stderr)

    def command(self, *words: str, host: Host | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``hpcremote`` on the head."""
        return (host or self.head).run([sys.executable, "-m", "hpcremote", *words], cwd=self.cwd, seconds=110)

    def jobs(self) -> list[str]:
        """Return the jobs that the batch system has."""
        if isinstance(self.lab, Slurm):
            return self.lab.jobs()
        rows = self.lab.run("qstat", "-u", "*", check=True).stdout.splitlines()
        return [line.split()[0] for line in rows[2:]]

    def cancel(self, job: str) -> None:
        self.lab.run("scancel" if self.name == "slurm" else "qdel", job, check=True)

    def left(self) -> list[str]:
        """Return what runs of hpcremote on any host, and jobs."""
        found = [
            f"{host.name}: {p.cmdline()}" for host in self.lab.hosts for p in host.processes("hpcremote")
        ]
        return [*found, *(f"job {job}" for job in self.jobs())]


class Said(str):
    """What a session printed."""

    def __getitem__(self, name: object) -> object:  # type: ignore[override]
        line = next(line for line in self.splitlines() if line.startswith(f"{name}="))
        return ast.literal_eval(line.partition("=")[2])


@pytest.fixture(params=["slurm", "sge"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    """Each batch system, in which nothing waits or runs; after the test nothing does again."""
    yield from _system(request.param, request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
def on_slurm(slurm: Slurm, tmp_path: Path) -> Iterator[System]:
    """The same for what every scheduler does alike, or only Slurm does."""
    yield from _system("slurm", slurm, tmp_path)


def _system(name: str, lab: Slurm | GridEngine, cwd: Path) -> Iterator[System]:
    lab.clear()
    # UCX's addresses name all interfaces; a busy Slurm does not always read such long ones whole.
    short = {"environment": {"UCX_NET_DEVICES": "eth0"}, "nodes": 2}
    made = System(name, lab, {"n": 4, **(short if name == "slurm" else {})}, cwd)
    yield made
    eventually(lambda: not made.left(), why=f"something is left: {made.left()}")
    assert not list((files.user_dir() / "clusters").glob("*/*/cluster.json"))


# ---------------------------------------------------------------- from start to stop


def test_the_controller_in_the_job_of_nodes_that_do_not_all_reach_the_head(
    system: System, hosts: Hosts
) -> None:
    """With Slurm one node is cut off from the head; Grid Engine cannot have jobs on such."""
    keys = {**system.keys, "controller": "job"}
    words = [word for key, value in keys.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    if system.name == "slurm":
        hosts.cut(hosts.head, hosts["node2"])
    started = system.command("start", "-p", system.name, *words)
    assert started.returncode == 0, started.stderr
    said = system.session("""
        with hpcremote.Client(profile=PROFILE) as rc:
            say("ranks", rc[:].apply_sync(where))
            say("controller", rc.link.connection.host)
    """)
    hosts.join(hosts.head, hosts["node2"])  # Slurm itself cannot end jobs where it gets no answer
    stopped = system.command("stop", "-p", system.name)
    assert stopped.returncode == 0, stopped.stderr
    assert [rank for rank, _, _ in said["ranks"]] == [0, 1, 2, 3]
    nodes = {node for _, node, _ in said["ranks"]}
    assert len(nodes) > 1
    assert said["controller"] in nodes
    assert system.name != "slurm" or "node2" in nodes - {said["controller"]}


def test_what_would_be_submitted(system: System) -> None:
    keys = [word for key, value in system.keys.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    dry = system.command("start", "-p", system.name, *keys, "--dry-run")
    assert "hpcremote ranks -n 4" in dry.stdout
    assert not system.jobs()


def test_engine_sets_come_go_and_are_restarted(on_slurm: System) -> None:
    said = on_slurm.session("""
        one = cluster("sets", n=2).start()
        try:
            rc = one.connect_client()
            one.start_engines(2)
            say("more", (rc.ids, [len(each) for each in rc.engine_sets]))
            pids = rc.set(0).apply_sync(os.getpid)
            rc.set(0).restart()
            say("again", (rc.ids, rc.set(0).apply_sync(os.getpid) != pids))
            one.stop_engines(1)
            rc.link.wait(lambda: len(rc.link.engines) == 2, 30)
            say("fewer", rc.ids)
            rc.close()
        finally:
            one.stop()
    """)
    assert said["more"] == ([0, 1, 2, 3], [2, 2])
    assert said["again"] == ([0, 1, 2, 3], True)
    assert said["fewer"] == [0, 1]


@pytest.mark.slow
def test_a_job_that_is_queued_again_brings_its_engines_back(on_slurm: System) -> None:
    """Slurm starts it again when its credentials have expired, some ten seconds later."""
    said = on_slurm.session("""
        with cluster() as rc:
            before = rc[:].apply_sync(os.getpid)
            os.system("scontrol requeue $(squeue -h -o %A)")
            gone = rc.link.wait(lambda: not rc.link.engines, 60)
            say("cause", sorted({one.cause for one in rc.link.gone.values()}))
            say("back", gone and rc.link.wait(lambda: len(rc.link.engines) == 4, 90))
            say("again", (rc.ids, rc[:].apply_sync(os.getpid) != before))
    """)
    assert said["back"] is True
    assert said["again"] == ([0, 1, 2, 3], True)


# ---------------------------------------------------------------- what goes wrong


def test_a_job_that_dies_before_its_ranks(system: System) -> None:
    said = system.session("""
        try:
            cluster().start()
        except LaunchError as error:
            say("error", str(error))
    """, setup=["echo module: no such module >&2", "exit 7"])  # fmt: skip
    assert "ended before all engines were there: exit code 7" in said["error"]
    assert "module: no such module" in said["error"]


@pytest.mark.parametrize(("mpi", "remedy"), [("none", "srun_mpi: pmi2"), ("pmix", "srun_mpi: pmi2")])
def test_the_wrong_mpi_for_srun(on_slurm: System, mpi: str, remedy: str) -> None:
    said = on_slurm.session("""
        try:
            cluster().start()
        except LaunchError as error:
            say("error", str(error))
    """, srun_mpi=mpi)  # fmt: skip
    assert remedy in said["error"]
    if mpi == "none":
        assert "srun started 4 single ranks instead of one job of 4" in said["error"]


def test_a_job_that_is_cancelled_while_it_waits(on_slurm: System) -> None:
    program = on_slurm.head.popen(
        on_slurm.words("""
            try:
                cluster().start()
            except LaunchError as error:
                say("error", str(error))
        """, {"queue": "closed"}), cwd=on_slurm.cwd,
    )  # fmt: skip
    eventually(on_slurm.jobs, why="it was not submitted")
    on_slurm.cancel(on_slurm.jobs()[0])
    done = program.finish(None, 60)
    said = Said(done.stdout)
    assert "never started: it was cancelled" in said["error"]


def test_ctrl_c_while_it_waits_cancels_the_job(on_slurm: System) -> None:
    words = [sys.executable, "-m", "hpcremote", "start", "-p", "slurm", "-n", "2", "--set", "queue=closed"]
    program = on_slurm.head.popen(words, cwd=on_slurm.cwd)
    assert program.stderr is not None
    assert next((line for line in program.stderr if "queued: job" in line), None), program.finish(None, 60)
    status = ""

    def waits() -> bool:
        nonlocal status
        status = on_slurm.command("status", "-p", "slurm").stdout
        return "queued: PartitionDown" in status

    eventually(waits, why="it does not wait")
    program.send_signal(signal.SIGINT)
    done = program.finish(None, 60)
    assert done.returncode == 130
    assert "interrupted" in done.stderr
    assert not on_slurm.jobs()


@pytest.mark.parametrize(
    ("controller", "stopped_from"),
    [("here", "head"), ("here", "node3"), ("job", "head"), ("own-job", "head")],
)
def test_stop_cancels_what_waits(on_slurm: System, controller: str, stopped_from: str) -> None:
    words = [sys.executable, "-m", "hpcremote", "start", "-p", "slurm", "-n", "2", "--set", "queue=closed"]
    words += ["--set", f"controller={controller}"]
    program = on_slurm.head.popen(words, cwd=on_slurm.cwd)
    assert program.stderr is not None
    assert next((line for line in program.stderr if "queued: " in line), None), program.finish(None, 60)
    stopped = on_slurm.command("stop", "-p", "slurm", host=on_slurm.lab.hosts[stopped_from])
    assert stopped.returncode == 0, stopped.stderr
    assert not on_slurm.jobs()
    done = program.finish(None, 60)
    assert done.returncode == 5, done.stderr
    *_, said = done.stderr.splitlines()
    assert said == "hpcremote: cluster 'default' of profile 'slurm' was stopped while it started"
    assert "there is no cluster" in on_slurm.command("status", "-p", "slurm").stderr


def _stop_has_open(path: Path) -> bool:
    """Say whether a `hpcremote stop` has that file open."""
    opened = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if b"\0hpcremote\0stop\0" in (folder / "cmdline").read_bytes():
                opened += [os.readlink(one) for one in (folder / "fd").iterdir()]
    return str(path) in opened


@pytest.mark.parametrize("controller", ["here", "own-job"])
def test_a_stop_while_the_job_is_being_submitted_waits_for_that(on_slurm: System, controller: str) -> None:
    """Else it would say that all has ended, and then the job would come."""
    slow = on_slurm.cwd / "sbatch"
    wait = "while [ ! -e goes-on ]; do sleep 0.05; done"
    slow.write_text(f'#!/bin/sh\n/usr/bin/sbatch "$@" || exit\n{wait}\n')
    slow.chmod(0o755)
    words = [sys.executable, "-m", "hpcremote"]
    keys = ["-n", "1", "--set", f"controller={controller}"]
    env = {"PATH": f"{on_slurm.cwd}:{os.environ['PATH']}"}
    start = on_slurm.head.popen([*words, "start", "-p", "slurm", *keys], cwd=on_slurm.cwd, env=env)
    eventually(on_slurm.jobs, why="it was not submitted")
    stop = on_slurm.head.popen([*words, "stop", "-p", "slurm"], cwd=on_slurm.cwd)
    eventually(
        lambda: _stop_has_open(files.cluster_dir("slurm", "default") / ".lock"), why="the stop does not wait"
    )
    (on_slurm.cwd / "goes-on").touch()
    stopped, started = stop.finish(None, 60), start.finish(None, 60)
    assert stopped.returncode == 0, stopped.stderr
    assert started.returncode == 5, started.stderr
    assert started.stderr.endswith(
        "hpcremote: cluster 'default' of profile 'slurm' was stopped while it started\n"
    )
    assert not on_slurm.jobs()


def test_doctor_tries_a_job(system: System) -> None:
    key = {"slurm": "nodes=2", "sge": "n=2"}[system.name]
    done = system.command("doctor", "-p", system.name, "--set", key, "--trial")
    said = re.search(r"ok +trial +2 ranks answered from (.*), ", done.stdout)
    assert said, done.stdout + done.stderr
    if system.name == "slurm":  # in Grid Engine it is the parallel environment that spreads them
        assert said[1] == "node1, node2"
    assert not system.jobs()


def test_run_in_a_job_uses_that_job(on_slurm: System) -> None:
    program = on_slurm.cwd / "program.py"
    program.write_text("import hpcremote, os, sys\n"
                       "rc = hpcremote.Client()\n"
                       "print(rc[:].apply_sync(lambda: os.environ['SLURM_JOB_ID']))\n"
                       "sys.exit(len(rc))\n")  # fmt: skip
    run = [sys.executable, "-m", "hpcremote", "run", "-q", "-p", "slurm", str(program)]
    done = on_slurm.lab.run(
        "salloc", "-Q", "-N2", "-n4", "--ntasks-per-node=2", *run, cwd=on_slurm.cwd, seconds=90
    )
    assert done.returncode == 4, done.stdout + done.stderr
    assert len(set(ast.literal_eval(done.stdout))) == 1
    assert os.path.exists(program)
