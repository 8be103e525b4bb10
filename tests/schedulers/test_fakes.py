"""Launchers for batch systems that cannot be had here, against commands that speak their language.

The commands in ``fakes/`` run the script for real, as a job of this machine: engines are ranks under
mpiexec, and everything but the scheduler is what users have.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hpcremote
from hpcremote.errors import LaunchError
from hpcremote.launch.watch import Progress
from tests.integration.support import ROOT, eventually

SCHEDULERS = ["pbs", "torque", "lsf", "flux", "htcondor"]

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(300)]


class Batch:
    """The fake batch system of a test: its folder, and its jobs."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.folder = folder

    def close(self, reason: str) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "closed").write_text(reason)

    def open(self) -> None:
        (self.folder / "closed").unlink(missing_ok=True)

    @property
    def jobs(self) -> list[Path]:
        return [file.parent for file in self.folder.glob("*/job.json")]

    def tell(self, what: str) -> None:
        for job in self.jobs:
            (job / "told").write_text(what)

    def how_ended(self) -> list[dict[str, Any]]:
        return [json.loads((job / "ended").read_text()) for job in self.jobs if (job / "ended").exists()]


@pytest.fixture(params=SCHEDULERS)
def batch(request: pytest.FixtureRequest, fake: Callable[[str], Path]) -> Batch:
    return Batch(request.param, fake(request.param))


def test_submitted_queued_running_ready_called_stopped(batch: Batch) -> None:
    batch.close("the nodes are taken")
    seen: list[str] = []
    queued = threading.Event()

    def progress(now: Progress) -> None:
        seen.append(str(now))
        if "queued" in str(now):
            queued.set()

    def let_in() -> None:
        queued.wait(90)
        batch.open()

    opener = threading.Thread(target=let_in)
    opener.start()
    with hpcremote.Cluster(n=2, profile=batch.name, progress=progress) as rc:
        assert rc.ids == [0, 1]
        ranks = rc[:].apply_sync(lambda: __import__("mpi4py.MPI").MPI.COMM_WORLD.allreduce(1))
        assert ranks == [2, 2]
    opener.join()
    told = "\n".join(seen)
    assert "queued" in told
    if batch.name != "htcondor":
        assert "the nodes are taken" in told
    assert [end["how"] for end in batch.how_ended()] in (["exit"], ["cancel"])


def test_the_queue_is_none(batch: Batch) -> None:
    key = {"htcondor": "account"}.get(batch.name, "queue")
    with pytest.raises(LaunchError) as caught:
        hpcremote.Cluster(n=2, profile=batch.name, **{key: "nobody"}).start()
    assert f"{batch.name} did not take the job" in str(caught.value)
    assert f"`{key}:` in profile {batch.name}" in str(caught.value)
    assert batch.jobs == []


#: Of each one; how all of them say each is in tests/launch/batch/test_recorded.py.
ENDS = {"pbs": "cancel", "torque": "walltime", "lsf": "memory", "flux": "walltime", "htcondor": "cancel"}
WORDS = {
    "cancel": "it was cancelled",
    "walltime": "its walltime was over",
    "memory": "it used more memory than it may",
}


def test_ended_by_the_scheduler_before_its_engines_were_there(batch: Batch) -> None:
    what = ENDS[batch.name]

    def end_it() -> None:
        eventually(lambda: any((job / "began").exists() for job in batch.jobs))
        batch.tell(what)

    ending = threading.Thread(target=end_it)
    ending.start()
    with pytest.raises(LaunchError) as caught:
        hpcremote.Cluster(n=2, profile=batch.name, setup=["sleep 1000"]).start()
    ending.join()
    assert "ended before all engines were there" in str(caught.value)
    assert WORDS[what] in str(caught.value)


@pytest.mark.parametrize("batch", ["lsf", "flux"], indirect=True)
def test_ended_by_the_scheduler_while_its_engines_work(batch: Batch) -> None:
    """No real one here ends a job for its memory."""
    with hpcremote.Cluster(n=2, profile=batch.name) as rc:
        call = rc[:].apply_async(time.sleep, 600)
        batch.tell(ENDS[batch.name])
        with pytest.raises(hpcremote.CompositeError) as caught:
            call.get(60)
    for error in caught.value.errors:
        assert isinstance(error, hpcremote.EngineError)
        assert WORDS[ENDS[batch.name]] in str(error)


@pytest.mark.parametrize("batch", ["pbs"], indirect=True)
def test_ranks_that_the_jobs_mpiexec_leaves_lonely_are_told_what_to_set(batch: Batch, tmp_path: Path) -> None:
    """An mpiexec of another MPI starts n ranks that know nothing of each other."""
    other = tmp_path / "mpiexec"
    other.write_text(
        '#!/bin/bash\nif [ "$1" = --version ]; then echo "mpiexec (Open MPI) 4.1.4"; exit; fi\n'
        'n=$2; shift 2; while [[ "$1" == -* ]]; do [ "$1" = -x ] && shift; shift; done\n'
        'for ((i = 0; i < n; i++)); do "$@" & done; wait\n'
    )
    other.chmod(0o755)
    with pytest.raises(LaunchError) as caught:
        hpcremote.Cluster(n=2, profile=batch.name, mpiexec=str(other)).start()
    said = str(caught.value)
    assert f": mpiexec is Open MPI 4.1.4 ({other}), the ranks loaded " in said.splitlines()[0], said
    assert "`mpiexec: /path/to/mpiexec` in profile pbs" in said.splitlines()[0]


def test_a_script_is_not_given_to_the_qsub_of_another_batch_system(fake: Callable[[str], Path]) -> None:
    """It might take it, and nobody would know of that job."""
    folder = fake("torque")
    with pytest.raises(
        LaunchError, match=r"^qsub here is that of torque, and not of pbs, .*`scheduler: torque`"
    ):
        hpcremote.Cluster(n=2, profile="pbs").start()
    assert Batch("torque", folder).jobs == []


class EnoughError(Exception):
    pass


def test_given_up_while_it_is_queued(batch: Batch) -> None:
    batch.close("the nodes are taken")

    def give_up(now: Progress) -> None:
        if now.phase == "queued":
            raise EnoughError

    with pytest.raises(EnoughError):
        hpcremote.Cluster(n=2, profile=batch.name, progress=give_up).start()
    assert batch.how_ended() == [{"how": "cancel", "code": None}]


def test_the_profile_of_the_examples_for_a_session_under_pbs(fake: Callable[[str], Path]) -> None:
    fake("pbs")
    with hpcremote.Cluster(profile=str(ROOT / "slurm_examples" / "pbs" / "interactive.yaml")) as rc:
        assert rc.ids == [0, 1, 2, 3]
        assert rc.time_left is not None and 0 < rc.time_left <= 1800
