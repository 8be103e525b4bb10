"""Which job this process is in, and how many slots that has, from what the batch systems tell their jobs."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcremote.launch import inside
from hpcremote.launch.inside import Here


@pytest.mark.parametrize(
    ("environ", "here"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8"}, Here("slurm", "7", 8)),
        ({"SLURM_JOB_ID": "7"}, Here("slurm", "7", None)),
        ({"JOB_ID": "7", "NSLOTS": "3"}, Here("sge", "7", 3)),
        ({"LSB_JOBID": "7", "LSB_DJOB_NUMPROC": "6"}, Here("lsf", "7", 6)),
        ({"FLUX_BATCH_JOB_ID": "f7"}, Here("flux", "f7", None)),
    ],
)
def test_the_job_that_we_are_in(environ: dict[str, str], here: Here | None) -> None:
    assert inside.job(environ) == here


def test_in_a_job_of_pbs_the_lines_of_its_node_file_are_counted(tmp_path: Path) -> None:
    """PBS Pro has a line for each MPI process, and Torque one for each, and their number."""
    nodes = tmp_path / "nodes"
    nodes.write_text("node1\nnode1\nnode2\nnode2\n")
    pbs = {"PBS_JOBID": "7.server", "PBS_NODEFILE": str(nodes)}
    assert inside.job(pbs) == ("pbs", "7.server", 4)
    found = inside.job({**pbs, "PBS_NP": "6"})
    assert found is not None
    assert found.slots == 6
    nodes.write_text("")
    assert inside.job(pbs) == ("pbs", "7.server", None)
    nodes.unlink()
    assert inside.job(pbs) == ("pbs", "7.server", None)


def squeue(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    command = folder / "squeue"
    command.write_text(f"#!/bin/sh\n{does}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_engines_know_from_their_first_moment_on_when_the_job_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, monkeypatch, "echo 1:00:00")
    for inherited in ({}, {"HPCREMOTE_ENDS": "1"}):  # from the job that has submitted this one
        ends = inside.ends({"SLURM_JOB_ID": "7", **inherited})
        assert 3500 < float(ends["HPCREMOTE_ENDS"]) - time.time() <= 3600
    assert inside.ends({}) == inside.ends({"HPCREMOTE_ENDS": "1"}) == {}


@pytest.mark.parametrize("does", ["echo UNLIMITED", "echo INVALID", "exit 1"])
def test_where_the_scheduler_does_not_tell_when_the_job_ends_nobody_does(
    does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    squeue(tmp_path, monkeypatch, does)
    assert inside.ends({"SLURM_JOB_ID": "7"}) == {}
