"""HTCondor's parallel universe, against commands that speak as its manual says: two machines that are one.

That mpiexec really reaches the second one by HTCondor's own ssh is seen by what that was asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcremote
from hpcremote.errors import LaunchError
from tests.integration.support import eventually

pytestmark = pytest.mark.mpi


@pytest.fixture
def batch(fake: Callable[[str], Path]) -> Path:
    """The folder of a fake HTCondor."""
    return fake("htcondor")


def _size() -> tuple[int, int]:
    from mpi4py import MPI

    return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.allreduce(1)


@pytest.mark.parametrize("controller", ["here", "job"])
def test_ranks_on_two_machines_are_one_job(batch: Path, controller: str) -> None:
    keys = {"nodes": 2, "ranks_per_node": 1, "controller": controller}
    with hpcremote.Cluster(profile="htcondor-parallel", cluster_id="pair", **keys) as rc:
        assert rc[:].apply_sync(_size) == [(0, 2), (1, 2)]
        (job,) = (path.parent for path in batch.glob("*/job.json"))
        machines = [line.split()[1] for line in (job / "contact").read_text().splitlines()]
        assert sorted(machines) == ["127.0.0.2", "127.0.0.3"]
        assert set((job / "reached").read_text().split()) == set(machines)
        assert (job / "0" / "machines").read_text() == "127.0.0.2:1\n127.0.0.3:1\n"
    eventually((job / "ended").exists, why="the job has not ended")


def test_a_pool_without_what_mpi_needs(batch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lacking = tmp_path / "bin"
    lacking.mkdir()
    (lacking / "condor_config_val").write_text("#!/bin/sh\necho /usr/libexec/no-condor\n")
    (lacking / "condor_config_val").chmod(0o755)
    monkeypatch.setenv("PATH", f"{lacking}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(LaunchError, match="`scheduler: htcondor` in profile htcondor-parallel") as caught:
        hpcremote.Cluster(profile="htcondor-parallel", cluster_id="pair", nodes=2, n=2).start()
    assert "sshd.sh: No such file" in str(caught.value)
