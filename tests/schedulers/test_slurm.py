"""The Slurm that tests use is a real one on several hosts, and recovers from what tests do to it."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm

# One write a rank, or lines of several ranks run into each other.
_RANK = """
from mpi4py import MPI
comm = MPI.COMM_WORLD
print(f"{comm.size} {comm.allreduce(comm.rank)} {MPI.Get_processor_name()}\\n", end="", flush=True)
"""
_PYTHON = Path(sys.executable)
_TWO_BY_TWO = ("-N2", "-n4", "--ntasks-per-node=2")


@pytest.fixture(autouse=True)
def no_jobs(slurm: Slurm) -> None:
    """Each test finds an empty queue, whatever became of the one before."""
    slurm.clear()


def test_srun_on_two_hosts(slurm: Slurm) -> None:
    done = slurm.run("srun", "-N2", "-n2", "hostname", check=True)
    assert sorted(done.stdout.split()) == ["node1", "node2"]


def test_a_job_and_its_states(slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "go").mkdir()
    script = "#!/bin/sh\nhostname\nwhile [ -e go ]; do sleep 0.1; done\nexit 3\n"
    job = slurm.submit(script, "--output=out", cwd=tmp_path)
    known = slurm.wait_for(job, "RUNNING")
    assert slurm.jobs() == [job]
    (tmp_path / "go").rmdir()
    assert slurm.wait_for(job, "FAILED")["ExitCode"] == "3:0"
    assert (tmp_path / "out").read_text().strip() == known["BatchHost"]


def test_jobs_see_the_environment_that_a_user_has(slurm: Slurm, tmp_path: Path) -> None:
    """Commands work inside of jobs as well, also where nothing is passed on from outside."""
    job = slurm.submit("#!/bin/bash -l\nsqueue -h -o %A\n", "--export=NONE", "--output=out", cwd=tmp_path)
    slurm.wait_for(job, "COMPLETED")
    assert (tmp_path / "out").read_text().split() == [job]


@pytest.fixture(scope="module")
def library() -> str:
    """The MPI library of this environment: MPICH or Open MPI."""
    code = "from mpi4py import MPI; print(MPI.get_vendor()[0])"
    return subprocess.run([_PYTHON, "-c", code], text=True, capture_output=True, check=True).stdout.strip()


@pytest.mark.mpi
@pytest.mark.openmpi
def test_ranks_on_two_hosts_by_srun(slurm: Slurm, library: str) -> None:
    mpi = "--mpi=pmix" if library == "Open MPI" else "--mpi=pmi2"
    done = slurm.run("srun", mpi, *_TWO_BY_TWO, _PYTHON, "-c", _RANK, check=True)
    assert Counter(done.stdout.splitlines()) == {"4 6 node1": 2, "4 6 node2": 2}


@pytest.mark.mpi
@pytest.mark.openmpi
def test_ranks_on_two_hosts_by_mpiexec(slurm: Slurm) -> None:
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    mpiexec = [_PYTHON.parent / "mpiexec", "-n", "4", _PYTHON, "-c", _RANK]
    done = slurm.run("salloc", *_TWO_BY_TWO, *mpiexec, env=root, check=True)
    assert Counter(done.stdout.splitlines()) == {"4 6 node1": 2, "4 6 node2": 2}


@pytest.mark.mpi
def test_without_the_right_mpi_each_rank_is_alone(slurm: Slurm) -> None:
    """What users meet most: `srun` without --mpi starts n programs of one rank."""
    done = slurm.run("srun", *_TWO_BY_TWO, _PYTHON, "-c", _RANK, check=True)
    assert Counter(done.stdout.splitlines()) == {"1 0 node1": 2, "1 0 node2": 2}


def test_a_node_loses_power(slurm: Slurm, hosts: Hosts, tmp_path: Path) -> None:
    job = slurm.submit("#!/bin/sh\nsleep 1000\n", "--no-requeue", "-w", "node3", cwd=tmp_path)
    slurm.wait_for(job, "RUNNING")
    hosts["node3"].power_off()
    slurm.lose(hosts["node3"])
    slurm.wait_for(job, "NODE_FAIL")
    hosts["node3"].power_on()
    slurm.wait_for_nodes()
    assert slurm.run("srun", "-w", "node3", "hostname", check=True).stdout == "node3\n"


def test_cancelled_jobs_leave_nothing_running(slurm: Slurm, hosts: Hosts, tmp_path: Path) -> None:
    job = slurm.submit("#!/bin/sh\nsrun sleep 1005\n", "-N2", cwd=tmp_path)
    slurm.wait_for(job, "RUNNING")
    slurm.clear()
    assert slurm.job(job)["JobState"] == "CANCELLED"
    assert [host.processes("sleep 1005") for host in hosts] == [[], [], [], []]


def test_what_can_never_run_is_rejected(slurm: Slurm) -> None:
    done = slurm.run("sbatch", "-N99", "--wrap", "true")
    assert done.returncode == 1
    assert "Batch job submission failed" in done.stderr


def test_a_closed_partition_says_why_a_job_waits(slurm: Slurm, tmp_path: Path) -> None:
    job = slurm.submit("#!/bin/sh\ntrue\n", "-p", "closed", cwd=tmp_path)
    assert slurm.wait_for(job, "PENDING")["Reason"] == "PartitionDown"
    slurm.clear()
