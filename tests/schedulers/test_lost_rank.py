"""A job of Slurm that has lost a rank: the others live on, and end when they are told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcremote import files
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.sites import site

pytestmark = pytest.mark.mpi


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
