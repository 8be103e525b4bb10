"""The job scripts of slurm_examples/, as a user submits them."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.support import ROOT, environment, eventually
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.lab.torque import Torque

#: Seconds that one of them may take on a busy machine.
PATIENCE = 100.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder; `hpcremote` and `python` are on the PATH as after an installation."""
    folder = tmp_path / "slurm_examples"
    shutil.copytree(ROOT / "slurm_examples", folder)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return folder


def nothing_left(hosts: Hosts) -> bool:
    return not any(host.processes("hpcremote") for host in hosts)


def test_one_job_with_everything_in_it(hosts: Hosts, slurm: Slurm, examples: Path) -> None:
    job = slurm.submit((examples / "one_job.sbatch").read_text(), cwd=examples)
    slurm.wait_for(job, "COMPLETED", seconds=PATIENCE)
    said = (examples / f"heat-{job}.out").read_text()
    assert "4 ranks: {'node1': 2, 'node2': 2}; rows: [50, 50, 50, 50]" in said
    assert "settled; mean temperature by rank: [5.83, 6.56, 6.56, 5.83]" in said
    assert nothing_left(hosts)


def test_a_program_that_fails_fails_its_job(hosts: Hosts, slurm: Slurm, examples: Path) -> None:
    (examples / "heat.py").write_text("import hpcremote\nhpcremote.Client()[:].apply_sync(int, 'x')\n")
    job = slurm.submit((examples / "one_job.sbatch").read_text(), cwd=examples)
    slurm.wait_for(job, "FAILED", seconds=PATIENCE)
    assert "invalid literal for int()" in (examples / f"heat-{job}.out").read_text()
    assert nothing_left(hosts)


def test_a_sweep(hosts: Hosts, slurm: Slurm, examples: Path) -> None:
    job = slurm.submit((examples / "sweep.sbatch").read_text(), cwd=examples)
    slurm.wait_for(job, "COMPLETED", seconds=PATIENCE)
    with (examples / "sweep.csv").open() as file:
        rows = {round(float(rate), 3): float(mean) for rate, mean in csv.reader(file)}
    assert len(rows) == 40
    assert rows[2.5] == pytest.approx(0.6, abs=1e-3)  # the fixed point of that rate


def test_what_the_readme_says_of_clusters(hosts: Hosts, slurm: Slurm, examples: Path) -> None:
    part = (ROOT / "README.md").read_text().partition("## On a cluster")[2]
    block = part.partition("```console\n")[2].partition("```")[0]
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    assert len(commands) == 6
    said = [
        hosts.head.run(["bash", "-c", command], cwd=examples, seconds=PATIENCE, check=True).stdout
        for command in commands
    ]
    assert "#SBATCH --ntasks-per-node=2" in said[1]
    assert re.search(r"^ *3 .*node2", said[3], re.MULTILINE), said[3]
    assert "running on node[1-2]" in said[4] and "1 h 59 min" in said[4], said[4]
    assert slurm.run("squeue", "--noheader").stdout == ""
    assert nothing_left(hosts)


def test_a_session_from_the_login_node(hosts: Hosts, slurm: Slurm, examples: Path) -> None:
    done = hosts.head.run(
        ["./interactive.sh", "heat.py", "100", "0.1"], cwd=examples, seconds=PATIENCE, check=True
    )
    assert "#SBATCH --ntasks-per-node=2" in done.stdout
    assert "(slurm) running on node[1-2]" in done.stdout
    assert "4 ranks: {'node1': 2, 'node2': 2}" in done.stdout
    assert slurm.run("squeue", "--noheader").stdout == ""
    assert nothing_left(hosts)


def test_a_session_in_an_allocation(hosts: Hosts, slurm: Slurm, examples: Path) -> None:
    words = ["salloc", "--nodes=2", "--ntasks-per-node=2", "./salloc.sh", "heat.py", "100", "0.1"]
    done = hosts.head.run(words, cwd=examples, seconds=PATIENCE, check=True)
    assert "4 ranks: {'node1': 2, 'node2': 2}" in done.stdout
    assert nothing_left(hosts)


def test_one_job_of_grid_engine(hosts: Hosts, sge: GridEngine, examples: Path) -> None:
    folder = examples / "grid_engine"
    job = hosts.head.run(["qsub", "-terse", "one_job.qsub"], cwd=folder, check=True).stdout.strip()
    assert sge.account(job)["exit_status"] == "0"
    said = (folder / "heat.out").read_text()
    assert "4 ranks: " in said
    assert "settled; mean temperature by rank: [5.83, 6.56, 6.56, 5.83]" in said


def test_a_session_of_grid_engine(hosts: Hosts, sge: GridEngine, examples: Path) -> None:
    folder = examples / "grid_engine"
    words = ["hpcremote", "start", "--profile", "interactive.yaml"]
    hosts.head.run(words, cwd=folder, seconds=PATIENCE, check=True)
    env = {"HPCREMOTE_PROFILE": "interactive"}
    done = hosts.head.run(
        ["python", "../heat.py", "100", "0.1"], env=env, cwd=folder, seconds=PATIENCE, check=True
    )
    assert "settled" in done.stdout
    hosts.head.run(
        ["hpcremote", "stop", "--profile", "interactive"], cwd=folder, seconds=PATIENCE, check=True
    )
    assert nothing_left(hosts)


def test_a_sweep_of_grid_engine(hosts: Hosts, sge: GridEngine, examples: Path) -> None:
    folder = examples / "grid_engine"
    job = hosts.head.run(["qsub", "-terse", "sweep.qsub"], cwd=folder, check=True).stdout.strip()
    assert sge.account(job)["exit_status"] == "0"
    assert "40 of 40 runs are in sweep.csv" in (folder / "sweep.out").read_text()


def test_a_session_in_slots_of_grid_engine(hosts: Hosts, sge: GridEngine, examples: Path) -> None:
    words = ["qrsh", "-now", "no", "-pe", "mpi", "4", "-cwd", "-V", "./qrsh.sh", "../heat.py", "100", "0.1"]
    done = hosts.head.run(words, cwd=examples / "grid_engine", seconds=PATIENCE, check=True)
    assert "settled; mean temperature by rank: [8.57, 10.28, 10.28, 8.57]" in done.stdout
    eventually(lambda: nothing_left(hosts))


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one_job.pbs"], "settled; mean temperature by rank: [6.2, 6.2]"),
        (["sweep.pbs"], "40 of 40 runs are in sweep.csv"),
        (["session.sh", "../heat.py", "100", "0.1"], "settled; mean temperature by rank: "),
    ],
)
def test_a_job_script_of_pbs_with_its_variables(examples: Path, words: list[str], said: str) -> None:
    # There is no PBS server to be had: what it gives to a script are variables and a file of nodes.
    nodes = examples / "nodes"
    nodes.write_text("localhost\n" * 2)
    done = subprocess.run(
        ["bash", *words],
        cwd=examples / "pbs", capture_output=True, text=True, timeout=PATIENCE, check=False,
        env=environment(PBS_O_WORKDIR=str(examples / "pbs"), PBS_NODEFILE=str(nodes), PBS_JOBID="1.server"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout


@pytest.mark.mpi
def test_a_program_of_pbs_that_takes_longer_than_a_job(
    hosts: Hosts, torque: Torque, slurm: Slurm, examples: Path
) -> None:
    """With Torque's commands, which know no ``-l select=``, and give their jobs no file of nodes.

    What a login shell has on a cluster, hpcremote on its PATH for one, each job has by ``-V`` here.
    """
    script = examples / "pbs" / "long_heat.pbs"
    nodes = "export PBS_NODEFILE=$PWD/nodes; for n in $(scontrol show hostnames); do echo $n; echo $n; done"
    text = script.read_text().replace("select=2:ncpus=2:mpiprocs=2", "nodes=2:ppn=2")
    text = (
        text.replace("+ 1800", "+ 180")
        .replace("walltime=0:30:00", "walltime=0:03:00")
        .replace("-v CELLS", "-V -v CELLS")
    )
    script.write_text(text.replace("state=", f"{nodes} > nodes\nstate=", 1))
    path = {"PATH": f"{torque.env['PATH']}:{os.environ['PATH']}", "CELLS": "600"}
    hosts.head.run(["qsub", "-V", script.name], cwd=script.parent, env=path, check=True)

    def said() -> str:
        return "".join(one.read_text() for one in sorted(script.parent.glob("long_heat.pbs.[eo]*")))

    try:
        eventually(lambda: goes_on(said()), 2 * PATIENCE, why=said)
    finally:
        slurm.clear()


def goes_on(said: str) -> bool:
    """Say whether a program that was saved goes on where it was, and is further now."""
    again = re.search(r"goes on after step (\d+)", said)
    if again is None:
        return False
    assert re.search(rf"saved after step {again[1]}\b", said), said
    assert "Traceback" not in said, said
    return f"after {int(again[1]) + 100:5} steps: largest change" in said


def test_programs_that_take_longer_than_a_job(
    hosts: Hosts, slurm: Slurm, sge: GridEngine, examples: Path
) -> None:
    # On both at once, with fewer ranks: what never settles, as no change is below 0. A job has 120 seconds,
    # of which a call needs 75.
    folder, words = examples / "grid_engine", ["300", "-1", "1.25"]
    late = "--set walltime_warning=20 --set save_on_walltime"  # not as soon as such a short job begins
    changes = {"--time=30": "--time=2", "per-node=2": "per-node=1", "--set save_on_walltime": late}
    replace(examples / "long_heat.sbatch", changes)
    replace(folder / "long_heat.qsub", {"+ 1800": "+ 120", "-pe mpi 4": "-pe mpi 2"})
    first = hosts.head.run(["sbatch", "--parsable", "long_heat.sbatch", *words], cwd=examples, check=True)
    queued = hosts.head.run(["qsub", "-terse", "long_heat.qsub", *words], cwd=folder, check=True)
    try:
        goes_on_in_another_job(slurm, first.stdout.strip(), examples)
        out = folder / "long-heat.out"
        eventually(lambda: out.exists() and goes_on(out.read_text()), 2 * PATIENCE, "it does not go on")
    finally:
        sge.cancel(queued.stdout.strip())
    sge.wait_for(queued.stdout.strip(), "")  # and it is not queued again
    eventually(lambda: nothing_left(hosts))
    eventually(lambda: slurm.jobs() == [])  # what was cancelled is not taken up again


def replace(script: Path, changes: dict[str, str]) -> None:
    text = script.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    script.write_text(text)


def goes_on_in_another_job(slurm: Slurm, first: str, folder: Path) -> None:
    """See that a job submits the next one when its own time does not suffice, and cancel that."""
    slurm.wait_for(first, "COMPLETED", seconds=PATIENCE)
    said = (folder / f"long-heat-{first}.out").read_text()
    assert "and the call needs 75 s: it was not begun on any engine" in said, said
    saved = re.search(r"saved after step (\d+)", said)
    assert saved is not None and int(saved[1]) > 0
    (second,) = slurm.jobs()
    out = folder / f"long-heat-{second}.out"
    eventually(
        lambda: out.exists() and goes_on(f"{said}\n{out.read_text()}"),
        PATIENCE,
        lambda: f"it does not go on: {out.exists() and out.read_text()}",
    )
    slurm.cancel(second)
    slurm.wait_for(second, "CANCELLED")
