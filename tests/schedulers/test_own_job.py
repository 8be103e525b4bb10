"""The controller in a job of its own, its engines in others: on real batch systems."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hpcremote import files
from tests.integration.support import eventually
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.slurm import Slurm

pytestmark = pytest.mark.mpi

#: Two ranks, and a controller whose limit is shorter than theirs.
KEYS: dict[str, Any] = {
    "n": 2,
    "controller": "own-job",
    "walltime": "0:20:00",
    "controller_job": {"walltime": "0:09:00", "job_name": "helm"},
}


class User:
    """Somebody at the head."""

    def __init__(self, lab: Slurm | GridEngine, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.profile = "slurm" if isinstance(lab, Slurm) else "sge"

    def command(self, *words: str, **keys: Any) -> subprocess.CompletedProcess[str]:
        return self.lab.hosts.head.run(self.words(*words, **keys), cwd=self.folder, seconds=110)

    def words(self, *words: str, **keys: Any) -> list[str]:
        given = [word for key, value in keys.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        return [sys.executable, "-m", "hpcremote", *words, "-p", self.profile, *given]

    def python(self, code: str) -> str:
        begin = f"import hpcremote, os\nrc = hpcremote.Client(profile={self.profile!r})\n"
        words = [sys.executable, "-c", begin + code]
        done = self.lab.hosts.head.run(words, cwd=self.folder, seconds=110)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.command("status", "--json").stdout))

    def jobs(self) -> list[str]:
        """Return the names of the jobs that there are."""
        if isinstance(self.lab, Slurm):
            return sorted(self.lab.run("squeue", "-h", "-o", "%j", check=True).stdout.split())
        rows = self.lab.run("qstat", "-u", "*", check=True).stdout.splitlines()[2:]
        return sorted(row.split()[2] for row in rows)

    def left(self) -> list[str]:
        found = [p.cmdline() for host in self.lab.hosts for p in host.processes("hpcremote")]
        return [*map(str, found), *self.jobs()]


@pytest.fixture(params=["slurm", "sge"])
def user(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[User]:
    yield from _user(request.getfixturevalue(request.param), tmp_path)


@pytest.fixture
def on_slurm(slurm: Slurm, tmp_path: Path) -> Iterator[User]:
    yield from _user(slurm, tmp_path)


def _user(lab: Slurm | GridEngine, folder: Path) -> Iterator[User]:
    lab.clear()
    made = User(lab, folder)
    try:
        yield made
    finally:
        made.command("stop", "--all")
        lab.clear()
        eventually(lambda: not made.left(), why="something is left")
        assert not list((files.user_dir() / "clusters").glob("*/*/cluster.json"))


def test_two_jobs_are_one_cluster(user: User) -> None:
    started = user.command("start", **KEYS)
    assert started.returncode == 0, started.stderr
    assert (
        ": the controller's job " in started.stderr
    )  # submitted or, when the machine is busy, already started
    assert user.jobs() == ["helm", "hpcremote"]
    found = user.status()
    assert found["condition"] == "running"
    assert [job["brings"] for job in found["jobs"]] == ["controller", "engines"]
    assert [job["state"].partition(" on ")[0] for job in found["jobs"]] == ["running", "running"]
    assert 0 < found["time_left"] <= 540  # all is over when the controller's job is
    shown = user.command("status").stdout
    assert f"  controller  job {found['jobs'][0]['id']} ({user.profile}) running on node" in shown
    assert "has started on node" in user.command("logs", "--controller").stdout
    said = user.python("print(rc.link.connection.host, rc[:].apply_sync(lambda: os.uname().nodename))")
    assert said.startswith("node")
    stopped = user.command("stop")
    assert stopped.returncode == 0, stopped.stderr
    assert user.jobs() == []


def test_sets_come_and_are_restarted(on_slurm: User) -> None:
    assert on_slurm.command("start", **KEYS).returncode == 0
    said = on_slurm.python(f"""
cluster = hpcremote.Cluster(profile="slurm", cluster_id="default", **{KEYS!r})
cluster.start_engines(1)
print(rc.ids)
before = rc.set(0).apply_sync(os.getpid)
rc.set(0).restart()
print(rc.ids, before != rc.set(0).apply_sync(os.getpid))
cluster.stop_engines(1)
rc.link.wait(lambda: len(rc.link.engines) == 2, 30)
print(rc.ids)
""")
    assert said.splitlines()[-3:] == ["[0, 1, 2]", "[0, 1, 2] True", "[0, 1]"]


def test_while_the_controllers_job_waits(on_slurm: User) -> None:
    keys = {**KEYS, "controller_job": {"queue": "closed"}}
    words = on_slurm.words("start", **keys)
    program = on_slurm.lab.hosts.head.popen(words, cwd=on_slurm.folder)
    try:
        eventually(lambda: len(on_slurm.jobs()) == 2, why="they were not submitted")
        eventually(lambda: "queued: PartitionDown" in on_slurm.command("status").stdout)
        found = on_slurm.status()
        assert found["condition"] == "queued"
        assert found["jobs"][1]["state"] == "queued: Dependency"  # engines do not wait on nodes of theirs
    finally:
        program.send_signal(signal.SIGINT)
        done = program.finish(None, 60)
    assert done.returncode == 130
    assert on_slurm.jobs() == []


def test_a_controller_that_cannot_start_ends_both(user: User) -> None:
    failed = user.command("start", **{**KEYS, "interface": "ib9"})
    assert failed.returncode == 5
    assert "Traceback" not in failed.stderr
    first = next(line for line in failed.stderr.splitlines() if line.startswith("hpcremote: "))
    assert first.startswith("hpcremote: the controller's job ")
    assert "interface: 'ib9' is neither an address nor an interface" in first
    eventually(lambda: user.jobs() == [], why="the engines' job is left")


_RESTART = """
import ctypes, time

def stuck():
    import ctypes, os
    open(f"stuck-{os.getpid()}", "w").close()
    ctypes.PyDLL(None).sleep(1000)

def pids():
    return rc[:].apply_sync(lambda: (os.uname().nodename, os.getpid()))

before = pids()
rc.set(0).restart(90)
second = pids()
print(rc.ids, not set(before) & set(second))
rc[:].apply_async(stuck)
while len([name for name in os.listdir() if name.startswith("stuck-")]) < 2:
    time.sleep(0.1)
rc.set(0).restart(90)
print(rc.ids, not set(second) & set(pids()))
try:
    hpcremote.Cluster(profile=PROFILE, cluster_id="default").stop_engines(0)
except hpcremote.errors.LaunchError as error:
    print(error)
"""


def test_engines_are_restarted_in_the_job_that_the_controller_is_in(user: User) -> None:
    """Also such that are stuck; the job stays the same, and is not ended by its engines' end."""
    assert user.command("start", **{**KEYS, "controller": "job"}).returncode == 0
    jobs = user.status()["jobs"]
    said = user.python(_RESTART.replace("PROFILE", repr(user.profile))).splitlines()
    assert said[-3:-1] == ["[0, 1] True", "[0, 1] True"]
    assert said[-1].startswith(f"the controller is in job {jobs[0]['id']} ({user.profile}), too")
    assert [job["id"] for job in user.status()["jobs"]] == [jobs[0]["id"]]


_HOOK = """
rc[:].execute('''
import hpcremote, time
from pathlib import Path

def last_words():
    rank = hpcremote.comm().rank
    hpcremote.comm().barrier()
    time.sleep(1)  # the work that a hook has: it goes on after the job was told
    Path(f"hook-{rank}").touch()

hpcremote.on_walltime(last_words)
''', block=True)
"""


_ALL: list[str] = []  # SIGTERM to all of the job's processes, as at its time limit
_SHELL = ["--batch", "--signal=TERM"]


@pytest.mark.parametrize(("where", "whom"), [("own-job", _ALL), ("job", _ALL), ("job", _SHELL)])
def test_the_controllers_job_is_cancelled(on_slurm: User, where: str, whom: list[str]) -> None:
    """Hooks run, engines end and say why, and nothing of any job is left."""
    assert on_slurm.command("start", **{**KEYS, "controller": where}).returncode == 0
    on_slurm.python(_HOOK)
    (job, *_) = on_slurm.status()["jobs"]
    on_slurm.lab.run("scancel", *whom, job["id"], check=True)
    eventually(lambda: not on_slurm.jobs(), seconds=60, why="a job is left")
    assert sorted(path.name for path in on_slurm.folder.glob("hook-*")) == ["hook-0", "hook-1"]
    found = on_slurm.status()
    assert found["condition"] == "stale"
    assert all(job["state"].startswith("ended: ") for job in found["jobs"])
