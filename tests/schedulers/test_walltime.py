"""The end of a job, as a real Slurm brings it about: what engines know of it, and what its signals do."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.support import eventually
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm

pytestmark = [pytest.mark.slow, pytest.mark.mpi, pytest.mark.timeout(300)]

_PROGRAM = """
import time
from pathlib import Path
from typing import Any
import hpcremote

rc = hpcremote.Client()
view = rc[:]
view.block = True
print("left", rc.time_left)  # a job that is the user's own, and its limit is known from the first moment on
try:
    view.call(pow, (2, 3), needs=30)
except hpcremote.NotEnoughTime as error:
    print(error)
view.execute('''
import hpcremote
from pathlib import Path
from typing import Any

def last_words():
    global total
    total = hpcremote.comm().allreduce(1)
    Path(f"hook-{hpcremote.comm().rank}").touch()

hpcremote.on_walltime(last_words, before=10)
''')
rc.on_walltime(1, lambda ending: print("heard:", ending.why, flush=True))
Path("ready").touch()
rc.link.wait(lambda: not rc.link.engines, 90)
print(*sorted({gone.cause for gone in rc.link.gone.values()}), sep="\\n")
"""


def test_a_job_knows_its_end_and_uses_its_warning(
    hosts: Hosts, slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")  # what it said counts, however it ends
    (tmp_path / "program.py").write_text(_PROGRAM)
    saved = tmp_path / "saved"
    run = "hpcremote run -n 2 --profile mpi --set launcher=srun"
    script = f"#!/bin/bash\n{run} --set save_on_walltime={saved} program.py\n"
    job = slurm.submit(script, "-N2", "--ntasks-per-node=1", "-t20", "--output=out", cwd=tmp_path)

    def said() -> str:
        return (tmp_path / "out").read_text() if (tmp_path / "out").exists() else ""

    eventually((tmp_path / "ready").exists, 90, lambda: f"the program did not get there: {said()}")
    slurm.run("scancel", "--signal=USR1", job, check=True)
    eventually(
        lambda: (tmp_path / "hook-1").exists() and "heard:" in said(), 90, lambda: f"no hook ran: {said()}"
    )
    slurm.run("scancel", "--signal=TERM", job, check=True)
    slurm.wait_for(job, "COMPLETED", "FAILED", "CANCELLED")
    lines = said().splitlines()
    left = [float(line.split()[1]) for line in lines if re.fullmatch(r"left [\d.]+", line)]
    assert len(left) == 1 and 600 < left[0] <= 1200, lines
    assert any("ends in" in line and "the call needs 30 minutes" in line for line in lines)
    assert "heard: its scheduler is about to end it (SIGUSR1)" in lines
    assert "its job was ended by its scheduler (SIGTERM)" in lines
    assert sorted(path.name for path in saved.iterdir()) == ["rank-0.hpcremote", "rank-1.hpcremote"]
    eventually(lambda: not any(host.processes("-m hpcremote") for host in hosts))


_EXTENDED = """
import os
import hpcremote

rc = hpcremote.Client()
view = rc[:]
view.block = True
view.execute("from mpi4py import MPI; x = MPI.COMM_WORLD.rank; import os")
before = view["os.environ['SLURM_JOB_ID']"]
cluster = hpcremote.Cluster(profile="slurm", cluster_id="default", walltime=30, nodes=2, n=2)
cluster.extend(save="saved")
assert rc.ids == [0, 1], rc.ids
after = view["os.environ['SLURM_JOB_ID']"]
print("x:", view["x"], "another job:", set(before) != set(after))
rc.link.wait(lambda: rc.time_left is not None, 60)
print("left:", 1200 < rc.time_left <= 1800)
"""


def test_a_set_goes_on_in_the_next_job_under_its_ids(
    hosts: Hosts, slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "program.py").write_text(_EXTENDED)
    settings = ["--profile", "slurm", "--set", "nodes=2", "--set", "walltime=20"]
    options: dict[str, Any] = {"cwd": tmp_path, "seconds": 100, "check": True}
    hosts.head.run(["hpcremote", "start", "-n", "2", *settings], **options)
    try:
        env = {"HPCREMOTE_PROFILE": "slurm"}
        said = hosts.head.run(["python", "program.py"], env=env, **options).stdout
        assert said.splitlines() == ["x: [0, 1] another job: True", "left: True"]
        assert len(slurm.jobs()) == 1
        words = ["hpcremote", "start", "--resubmit", "--save", "saved", *settings]
        hosts.head.run(words, **options)
        program = "import hpcremote; print(hpcremote.Client()[:]['x'])"
        assert hosts.head.run(["python", "-c", program], env=env, **options).stdout == "[0, 1]\n"
        (job,) = slurm.jobs()
        slurm.run("scancel", job, check=True)  # what it had saved is put back
        eventually(lambda: not slurm.jobs(), 60, "it is not cancelled")
        hosts.head.run(words, **options)
        assert hosts.head.run(["python", "-c", program], env=env, **options).stdout == "[0, 1]\n"
    finally:
        hosts.head.run(["hpcremote", "stop", "--profile", "slurm"], **options)
    assert slurm.run("squeue", "--noheader").stdout == ""
