"""One suite for all launchers: four ranks on two hosts, used, stopped, and struck by what strikes jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.schedulers import sites
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.sites import LAUNCHERS, Site

pytestmark = [pytest.mark.mpi, pytest.mark.slow, pytest.mark.timeout(300)]

#: What all engines say of themselves: id's rank and size where there are ranks, and the host.
_WHO = "def who(): return hpcremote.comm().rank, hpcremote.comm().size, os.uname().nodename"
#: What is too large for one packet goes round all ranks.
_RING = (
    "def ring(): import numpy; comm = hpcremote.comm(); mine = numpy.full(300_000, float(comm.rank)); "
    "got = comm.sendrecv(mine, (comm.rank + 1) % 4, source=(comm.rank - 1) % 4); "
    "return [float(got.min()), float(got.max())]"
)
#: What is told of engines whose job was cancelled. Grid Engine's accounting does not say that one was, nor do
#: Torque's commands over Slurm. A controller in the job goes, too, and calls fail in one of several ways.
_CANCELLED = {
    "slurm-srun": "^EngineError: .*job {job} .slurm. has ended: it was cancelled",
    "slurm-mpiexec": "^EngineError: .*job {job} .slurm. has ended: it was cancelled",
    "slurm-all-in-job": "job was ended by its scheduler|went away",
    "torque": "^EngineError: .*job {job} .torque. has ended",
    "sge": "^EngineError: .*job {job} .sge. has ended",
}
_WHERE = "def where(): return os.uname().nodename"


#: Those that are also tried with Open MPI.
_OPEN_MPI = ("slurm-srun", "slurm-mpiexec", "hosts-mpiexec")
_PARAMS = [pytest.param(one, marks=[pytest.mark.openmpi] * (one in _OPEN_MPI)) for one in LAUNCHERS]


@pytest.fixture(scope="module", params=_PARAMS)
def site(
    request: pytest.FixtureRequest, hosts: Hosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Each of the launchers in turn."""
    with sites.site(request, hosts, tmp_path_factory.mktemp("user"), request.param) as made:
        yield made


@pytest.fixture
def running(site: Site) -> Site:
    """A cluster that runs; the tests of a launcher share it as long as it does."""
    if site.user.hpcremote("status", "--cluster-id", "default").returncode != 0:
        said = site.user.start()
        assert "is ready: 4 engines" in said
    return site


def test_engines_on_two_hosts_and_what_they_print(running: Site) -> None:
    """Ids are ranks, ranks reach each other across hosts, and all output arrives."""
    with running.prompt() as prompt:
        assert prompt("rc.ids") == [0, 1, 2, 3]
        prompt(_WHERE)
        hosts = prompt("view.apply_sync(where)")
        assert set(hosts) == {"node1", "node2"}
        assert prompt("[info.host for info in rc.link.engines.values()]") == hosts
        prompt("def say(): print('here'); os.system('echo a child; echo trouble >&2')")
        prompt("ar = view.apply_async(say); ar.get(60)")
        assert prompt("ar.stdout") == ["here\na child\n"] * 4
        assert prompt("ar.stderr") == ["trouble\n"] * 4
        if running.launcher.mpi:
            prompt(_WHO)
            assert prompt("view.apply_sync(who)") == [[rank, 4, host] for rank, host in enumerate(hosts)]
            prompt("def total(n): return hpcremote.comm().allreduce(n * hpcremote.comm().rank)")
            assert prompt("view.apply_sync(total, 10)") == [60] * 4
            prompt(_RING)
            assert prompt("view.apply_sync(ring)") == [[3.0, 3.0], [0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]


def test_a_client_on_another_host_and_a_second_cluster(running: Site) -> None:
    """They have what the first has, the second is another one, and its end does not touch the first."""
    other, parts = running.hosts["node3"], [[0, 1], [2, 3], [4, 5], [6, 7]]
    with running.prompt() as here, running.prompt(other) as there:
        here("view.scatter('part', list(range(8)), block=True)")
        assert there("view['part']") == parts
        assert there("os.uname().nodename") == "node3"
        jobs = running.jobs()
        running.start_two("second")
        try:
            with running.prompt(other, cluster_id="second") as second:
                assert second("rc.ids") == [0, 1]
                assert second("rc.link.connection.cluster_uid") != here("rc.link.connection.cluster_uid")
                second("view.push({'part': 'mine'}, block=True); call = view.apply_async(time.sleep, 600)")
                assert here("view['part']") == parts
                if running.queue is not None:
                    (job,) = set(running.jobs()) - set(jobs)
                    running.queue.cancel(job)
                    for said in second("fate(call)"):
                        assert re.search(_CANCELLED[running.name].format(job=job), said), said
        finally:
            running.user.stop("--cluster-id", "second", host=other)
        assert running.jobs() == jobs
        assert here("view['part']") == parts


def test_stop_from_another_host_leaves_nothing(running: Site) -> None:
    with running.prompt() as prompt:
        prompt("calls = [view.apply_async(time.sleep, 600) for _ in range(2)]")
        running.user.stop(host=running.hosts["node3"])
        running.is_empty()
        for said in prompt("fate(calls[0])"):
            assert "Error: " in said, said
    assert running.user.hpcremote("status").returncode == 3


def test_a_killed_rank(running: Site) -> None:
    with running.prompt() as prompt:
        host, pid = prompt("[(one.host, one.pid) for one in rc.link.engines.values()][3]")
        prompt("call = rc[3].apply_async(time.sleep, 600)")
        running.hosts[host].run(["kill", "-KILL", str(pid)], check=True)
        (said,) = prompt("fate(call)")
        assert said.startswith("EngineError: engine 3 "), said
        assert f"on {host})" in said, said
        assert "killed by SIGKILL" in said, said
    running.user.stop("--timeout", "2")  # under Slurm the others live on, and MPI does not let them go
    running.is_empty()
