"""Torque's commands run jobs in its syntax."""

from __future__ import annotations

from pathlib import Path

from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.lab.torque import Torque

_SCRIPT = """#!/bin/sh
#PBS -N mine
#PBS -l nodes=2:ppn=2,walltime=00:05:00
echo $PBS_JOBID $PBS_JOBNAME $PBS_O_WORKDIR
srun hostname
"""


def test_a_job_in_torques_syntax(torque: Torque, slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "job.pbs").write_text(_SCRIPT)
    job = torque.run("qsub", "job.pbs", cwd=tmp_path, check=True).stdout.strip()
    known = slurm.wait_for(job, "COMPLETED")
    assert known["TimeLimit"] == "00:05:00"
    first, *others = (tmp_path / f"job.pbs.o{job}").read_text().splitlines()
    assert first == f"{job} mine {tmp_path}"
    assert (len(others), set(others)) == (4, {"node1", "node2"})  # Slurm deals them out 3 + 1
    assert "job_state = C" in torque.run("qstat", "-f", job, check=True).stdout


def test_qdel(torque: Torque, slurm: Slurm, tmp_path: Path) -> None:
    (tmp_path / "job.pbs").write_text("#!/bin/sh\nsleep 1007\n")
    job = torque.run("qsub", "job.pbs", cwd=tmp_path, check=True).stdout.strip()
    slurm.wait_for(job, "RUNNING")
    torque.run("qdel", job, check=True)
    slurm.wait_for(job, "CANCELLED")


def test_jobs_look_like_those_of_pbs_only_as_long_as_it_is_there(torque: Torque, slurm: Slurm) -> None:
    assert "PBS_JOBID=" in slurm.run("srun", "env", check=True).stdout
    torque.close()
    assert "PBS_JOBID=" not in slurm.run("srun", "env", check=True).stdout
