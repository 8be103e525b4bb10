"""Jobs that a real scheduler puts back into the queue: what ran in them comes back under the same ids."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.support import eventually
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.sites import site

pytestmark = [pytest.mark.mpi, pytest.mark.slow]


def test_engines_of_a_job_that_grid_engine_reschedules(
    request: pytest.FixtureRequest, hosts: Hosts, sge: GridEngine, tmp_path: Path
) -> None:
    """The job is held, so that it waits for as long as we look; its engines' end says that it does.

    Its nodes are drained before, as one does who reschedules jobs. Grid Engine may else give a job back to a
    node that has not reaped its last processes, where it stays in transfer.
    """
    with site(request, hosts, tmp_path, "sge") as user:
        user.start_two(directives=["-r y"], queue="all.q")
        (job,) = user.jobs()
        with user.prompt() as prompt:
            prompt("before = view.apply_sync(os.getpid)")
            sge.run("qhold", job, check=True)
            sge.drain(*prompt("sorted(rc.by_host())"))
            sge.run("qmod", "-rj", job, check=True)
            assert prompt("rc.link.wait(lambda: not rc.link.engines, 60)") is True
            for cause in prompt("[one.cause for one in rc.link.gone.values()]"):
                assert f"job {job} (sge) was put back into the queue (queued" in cause
            sge.run("qrls", job, check=True)
            assert prompt("rc.wait_for_engines(2, timeout=90)") is None
            assert prompt("rc.ids, rc[:].apply_sync(os.getpid) != before") == [[0, 1], True]
        assert user.jobs() == [job]
        user.user.stop()
        user.is_empty()


def test_a_controller_in_a_job_that_slurm_requeues(
    request: pytest.FixtureRequest, hosts: Hosts, slurm: Slurm, tmp_path: Path
) -> None:
    """Its clients are told that it went; once the job runs again, new ones find it as they found the first.

    The job is held, so that it waits for as long as we look.
    """
    with site(request, hosts, tmp_path, "slurm-all-in-job") as user:
        user.start_two()
        (job,) = user.jobs()
        with user.prompt() as prompt:
            prompt("before = view.apply_sync(os.getpid)")
            prompt("call = view.apply_async(time.sleep, 1000)")
            slurm.run("scontrol", "requeuehold", job, check=True)
            for said in prompt("fate(call)"):
                assert "the controller's job was ended by its scheduler" in said or "went away" in said, said
            eventually(lambda: "went away" in prompt("rc.ids"), why="the client does not notice")
            slurm.wait_for(job, "PENDING")
            status = user.user.hpcremote("status").stdout
            assert "'slurm-all-in-job': queued\n" in status, status
            assert f"job         {job} (slurm) queued: job requeued in held state" in status, status
            slurm.run("scontrol", "release", job, check=True)
            again = "hpcremote.Client(profile='slurm-all-in-job', timeout=90)"
            eventually(lambda: "2 of 2" in user.user.hpcremote("status").stdout, 90, why="it is not back")
            prompt(f"rc = {again}")
            assert prompt("rc.ids, rc[:].apply_sync(os.getpid) != before") == [[0, 1], True]
        user.user.stop()
        user.is_empty()


def test_a_job_that_slurm_preempts(
    request: pytest.FixtureRequest, hosts: Hosts, slurm: Slurm, tmp_path: Path
) -> None:
    """Its engines' end says so, and they come back when the other job has ended."""
    with site(request, hosts, tmp_path, "slurm-srun") as user:
        user.start_two()
        with user.prompt() as prompt:
            prompt("before = view.apply_sync(os.getpid)")
            other = slurm.submit("#!/bin/sh\nsleep 1000\n", "-p", "high", "-N3", "--exclusive", cwd=tmp_path)
            assert prompt("rc.link.wait(lambda: not rc.link.engines, 60)") is True
            for cause in prompt("[one.cause for one in rc.link.gone.values()]"):
                assert cause.endswith(": it was preempted by another job"), cause
            slurm.cancel(other)
            assert prompt("rc.wait_for_engines(2, timeout=90)") is None
            assert prompt("rc.ids, rc[:].apply_sync(os.getpid) != before") == [[0, 1], True]
        user.user.stop()
        user.is_empty()
