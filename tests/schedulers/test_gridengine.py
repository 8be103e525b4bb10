"""The Grid Engine that tests use is a real one on several hosts, and recovers from what tests do to it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from hpcremote.launch import catalog
from hpcremote.launch.batch import spread
from tests.integration.support import eventually
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.hosts import Hosts

_PYTHON = Path(sys.executable)
_RANK = """
from mpi4py import MPI
comm = MPI.COMM_WORLD
print(f"{comm.size} {comm.allreduce(comm.rank)} {MPI.Get_processor_name()}\\n", end="", flush=True)
"""


@pytest.fixture(autouse=True)
def no_jobs(sge: GridEngine) -> None:
    """Each test finds an empty queue, whatever became of the one before."""
    sge.clear()


def test_a_job_and_its_states(sge: GridEngine, tmp_path: Path) -> None:
    (tmp_path / "go").mkdir()
    script = "#!/bin/sh\nhostname\nwhile [ -e go ]; do sleep 0.1; done\nexit 3\n"
    job = sge.submit(script, "-N", "waits", "-o", "out", cwd=tmp_path)
    sge.wait_for(job, "r")
    (tmp_path / "go").rmdir()
    sge.wait_for(job, "")
    known = sge.account(job)
    assert known["exit_status"] == "3"
    assert (tmp_path / "out").read_text().strip() == known["hostname"]
    assert known["hostname"] in {"node1", "node2", "node3"}


def test_a_job_that_cannot_run_says_why(sge: GridEngine, tmp_path: Path) -> None:
    job = sge.submit("#!/bin/sh\ntrue\n", "-N", "big", "-pe", "mpi", "99", cwd=tmp_path)
    eventually(lambda: "only offers" in sge.run("qstat", "-j", job).stdout)
    assert sge.state(job) == "qw"


def test_what_does_not_exist_is_rejected(sge: GridEngine, tmp_path: Path) -> None:
    done = sge.run("qsub", "-q", "none.q", "-b", "y", "-N", "no", "true", cwd=tmp_path)
    assert done.returncode == 1
    assert "none.q" in done.stderr, done


@pytest.mark.mpi
def test_ranks_on_several_hosts_by_mpiexec(sge: GridEngine, tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(_RANK)
    script = f"#!/bin/sh\n{_PYTHON.parent}/mpiexec -n 3 {_PYTHON} rank.py\n"
    job = sge.submit(script, "-N", "ranks", "-pe", "mpi", "3", "-j", "y", "-o", "out", cwd=tmp_path)
    sge.wait_for(job, "")
    assert sorted((tmp_path / "out").read_text().splitlines()) == ["3 3 node1", "3 3 node2", "3 3 node3"]


def test_deleted_jobs_leave_nothing_running(sge: GridEngine, hosts: Hosts, tmp_path: Path) -> None:
    job = sge.submit("#!/bin/sh\nsleep 1006 &\nsleep 1006\n", "-N", "long", cwd=tmp_path)
    sge.wait_for(job, "r")
    eventually(lambda: sum(len(host.processes("sleep 1006")) for host in hosts) >= 2)
    sge.run("qdel", job, check=True)
    sge.wait_for(job, "")
    eventually(lambda: not any(host.processes("sleep 1006") for host in hosts))


def test_a_node_comes_back_after_a_power_failure(sge: GridEngine, hosts: Hosts, tmp_path: Path) -> None:
    hosts["node2"].power_off()
    hosts["node2"].power_on()
    sge.wait_for_nodes()
    options = ("-N", "where", "-q", "all.q@node2", "-o", "out")
    job = sge.submit("#!/bin/sh\nhostname\n", *options, cwd=tmp_path)
    sge.wait_for(job, "")
    assert (tmp_path / "out").read_text() == "node2\n"


def test_who_spreads_ranks_is_read_from_what_it_shows(sge: GridEngine) -> None:
    how = catalog.scheduler("sge").spread
    assert how is not None
    puts = {
        name: spread.contradiction(how, sge.run("qconf", "-sp", name, check=True).stdout, 2, 2)
        for name in ("mpi", "fill", "smp")
    }
    assert puts == {"mpi": "", "fill": "", "smp": "all ranks on one node"}
