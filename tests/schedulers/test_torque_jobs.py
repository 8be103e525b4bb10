"""The launcher for Torque with Torque's commands for real, over Slurm: two nodes, four ranks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.support import eventually
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.lab.torque import Torque

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(300)]

_SESSION = """
import os, sys, hpcremote
from hpcremote.errors import LaunchError

keys = eval(sys.argv[1])
def where():
    from mpi4py import MPI
    return MPI.COMM_WORLD.rank, os.uname().nodename, os.environ["PBS_JOBID"]

def told(now):
    print("progress:", now.phase, now.detail, flush=True)

try:
    with hpcremote.Cluster(profile="torque", progress=told, **keys) as rc:
        print("ranks:", rc[:].apply_sync(where), flush=True)
except LaunchError as error:
    print("error:", error, flush=True)
"""


def session(torque: Torque, cwd: Path, **keys: object) -> str:
    words = [sys.executable, "-c", _SESSION, repr(keys)]
    done = torque.slurm.hosts.head.run(words, env=torque.env, cwd=cwd, seconds=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_session_on_two_nodes(torque: Torque, slurm: Slurm, tmp_path: Path) -> None:
    said = session(torque, tmp_path, nodes=2, ranks_per_node=2, walltime="5 min", job_name="ice")
    ranks = eval(said.partition("ranks: ")[2].splitlines()[0])
    assert [rank for rank, _, _ in ranks] == [0, 1, 2, 3]
    assert {node for _, node, _ in ranks} == {"node1", "node2"}  # Slurm deals them out 3 + 1
    (job,) = {job for _, _, job in ranks}
    assert f"progress: started job {job} (torque) running on " in said
    known = slurm.job(job)
    assert (known["JobName"], known["TimeLimit"]) == ("ice", "00:05:00")
    assert known["JobState"] in ("COMPLETED", "CANCELLED", "FAILED")
    eventually(lambda: not any(node.processes("hpcremote engine") for node in slurm.hosts.nodes))


def test_a_job_that_fails(torque: Torque, tmp_path: Path) -> None:
    said = session(torque, tmp_path, n=2, setup=["echo no such module >&2; exit 3"])
    assert "ended before all engines were there" in said
    assert "no such module" in said
