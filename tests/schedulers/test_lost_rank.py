"""Ranks that are lost: under Slurm the others live on; while they start, nobody waits for long."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcremote import files
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.sites import site

pytestmark = pytest.mark.mpi

_RANK_1_ENDS = """
import os, signal, sys
if "1" in (os.environ.get("PMI_RANK"), os.environ.get("SLURM_PROCID")):
    print("no room on the disk of rank one", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_other_ranks_do_not_wait_for_it_in_mpi_finalize(
    request: pytest.FixtureRequest, hosts: Hosts, slurm: Slurm, tmp_path: Path
) -> None:
    """The job ends by itself: nobody has to cancel it."""
    with site(request, hosts, tmp_path, "slurm-srun") as user:
        user.start_two()
        with user.prompt() as prompt:
            host, pid = prompt("[(one.host, one.pid) for one in rc.link.engines.values()][1]")
            user.hosts[host].run(["kill", "-KILL", str(pid)], check=True)
            assert prompt("rc.link.wait(lambda: len(rc.link.engines) == 1, 60)") is True
            assert prompt("rc[0].apply_sync(pow, 2, 5)") == 32
        user.user.stop("--timeout", "60")
        log = (files.cluster_dir("slurm-srun", "default") / "logs" / "engines.log").read_text()
        assert "hpcremote: the ranks have ended" in log, log
        assert "CANCELLED" not in log, log
        user.is_empty()


@pytest.mark.parametrize(("launcher", "who"), [("slurm-srun", "rank 1"), ("sge", r"process \d+ on node\d")])
def test_a_start_does_not_wait_for_a_rank_that_has_ended(
    request: pytest.FixtureRequest, hosts: Hosts, tmp_path: Path, launcher: str, who: str
) -> None:
    """It ends before it has reached the controller. What started it may stay (Hydra does, at times)."""
    (tmp_path / "sitecustomize.py").write_text(_RANK_1_ENDS)
    with site(request, hosts, tmp_path, launcher) as user:
        settings = user.launcher.keys.get("environment", {})
        said = user.user.fail(environment={**settings, "PYTHONPATH": str(tmp_path)}, start_timeout=600)
        assert "no room on the disk of rank one" in said, said
        first = said.split("hpcremote: ", 1)[1].splitlines()[0]
        by_itself = r"job \d+ \(sge\) ended before all engines were there"
        assert re.match(rf"{who} ended before all engines were there|{by_itself}", first), said
        user.is_empty()


def test_the_controller_that_ends_with_its_ranks_tells_how_they_ended_first(
    request: pytest.FixtureRequest, hosts: Hosts, tmp_path: Path
) -> None:
    """mpiexec ends them all, the script ends, and would end the controller while that asks for the reason."""
    with site(request, hosts, tmp_path, "sge") as user:
        user.start_two(controller="job")
        with user.prompt() as prompt:
            host, pid = prompt("[(one.host, one.pid) for one in rc.link.engines.values()][1]")
            prompt("call = view.apply_async(time.sleep, 600)")
            user.hosts[host].run(["kill", "-KILL", str(pid)], check=True)
            other, killed = prompt("fate(call)")
            assert "killed by SIGKILL" in killed and "after engine" not in killed, killed
            assert ", after engine 1 of the same MPI job: killed by SIGKILL" in other, other
        user.user.stop()
        user.is_empty()
