"""One suite for all launchers: four ranks on two hosts, used, stopped, and struck by what strikes jobs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.integration.support import eventually
from tests.schedulers import sites
from tests.schedulers.lab.hosts import DEAD_END, Hosts
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
#: What a start goes through, in this order; a job's before the engines'.
_PHASES = ("submitted", "queued", "started", "launch", "MPI_Init", "register")
#: What is refused to begin with, by what a launcher needs, and what is said of it.
_REFUSED = {
    "slurm": [
        (
            {"queue": "nosuch"},
            "Invalid partition name specified",
            "`sinfo -s` lists them, `queue:` in profile {name}",
        )
    ],
    "torque": [
        (
            {"queue": "nosuch"},
            "torque did not take the job (qsub ",
            "`qstat -q` lists them, `queue:` in profile {name}",
        )
    ],
    "sge": [
        ({"queue": "nosuch.q"}, "unknown queue", "`qconf -sql` lists them, `queue:` in profile {name}"),
        (
            {"parallel_environment": "nosuch"},
            'parallel environment "nosuch" does not exist',
            "`qconf -spl` lists them",
        ),
    ],
    "ssh": [({"hosts": ["node1:2", "nowhere:2"]}, "nowhere: nowhere has no such name here", "")],
}
_WHERE = "def where(): return os.uname().nodename"


#: Where a rank's end is that of all others: mpiexec sees to that, and writes which one ended first.
_BY_MPIEXEC_IN_A_JOB = ("slurm-mpiexec", "torque", "sge")
#: Those that are also tried with Open MPI.
_OPEN_MPI = ("slurm-srun", "slurm-mpiexec", "hosts-mpiexec")
_PARAMS = [pytest.param(one, marks=[pytest.mark.openmpi] * (one in _OPEN_MPI)) for one in LAUNCHERS]


@pytest.fixture(scope="module", params=_PARAMS)
def site(
    request: pytest.FixtureRequest, hosts: Hosts, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Each of the launchers in turn, on hosts with an interface that leads nowhere."""
    folder = tmp_path_factory.mktemp("user")
    with hosts.dead_ends(), sites.site(request, hosts, folder, request.param) as made:
        yield made


@pytest.fixture
def running(site: Site) -> Site:
    """A cluster that runs; the tests of a launcher share it as long as it does."""
    if site.user.hpcremote("status", "--cluster-id", "default").returncode != 0:
        said = site.start(interface="all")
        assert "is ready: 4 engines" in said
        told = list(dict.fromkeys(re.findall(rf"^({'|'.join(_PHASES)})\b", said, re.MULTILINE)))
        assert told == [phase for phase in _PHASES if phase in told]
        assert ("up to parallel environment mpi (" in said) is (site.launcher.part == "sge")
        assert {"register", *(("submitted", "started") if site.queue is not None else ())} <= set(told)
    return site


def test_engines_on_two_hosts_and_what_they_print(running: Site) -> None:
    """Ids are ranks, ranks reach each other across hosts, and all output arrives."""
    with running.prompt() as prompt:
        assert prompt("rc.ids") == [0, 1, 2, 3]
        prompt(_WHERE)
        hosts = prompt("view.apply_sync(where)")
        assert set(hosts) == {"node1", "node2"}
        assert running.launcher.places in ([], hosts if running.launcher.mpi else sorted(hosts))
        assert prompt("set(view.apply_sync(os.getcwd)) == {os.getcwd()}") is True
        assert prompt("[info.host for info in rc.link.engines.values()]") == hosts
        assert any(DEAD_END[1].partition("/")[0] in one for one in prompt("rc.link.connection.addresses"))
        assert prompt("rc.link.connection.host") in (hosts if running.all_in_job else ["head"])
        if running.queue is not None:
            (job,) = running.jobs()
            said = running.user.hpcremote("status").stdout
            kind = running.launcher.keys["extends"]
            row = rf"^  job +{job} \({kind}\) running on node(\[1-2\]$|1\b.*node2)"
            assert re.search(row, said, re.MULTILINE), said
        prompt("def say(): print('on', os.uname().nodename); os.system('echo a child; echo trouble >&2')")
        prompt("ar = view.apply_async(say); ar.get(60)")
        assert prompt("ar.stdout") == [f"on {host}\na child\n" for host in hosts]
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
                if running.launcher.mpi:
                    assert second("view.apply_sync(lambda: hpcremote.comm().allreduce(1))") == [2, 2]
                assert second("rc.link.connection.cluster_uid") != here("rc.link.connection.cluster_uid")
                second("view.push({'part': 'mine'}, block=True); call = view.apply_async(time.sleep, 600)")
                assert here("view['part']") == parts
                if running.queue is not None:
                    (job,) = set(running.jobs()) - set(jobs)
                    running.queue.cancel(job)
                    fates = second("fate(call)")
                    for said in fates:
                        assert re.search(_CANCELLED[running.name].format(job=job), said), said
                    if not running.all_in_job:
                        assert len(fates) == 2
                        assert second("rc.ids") == []
        finally:
            running.user.stop("--cluster-id", "second", host=other)
        eventually(lambda: running.jobs() == jobs)  # Slurm clears a job away for some time after its end
        assert here("view['part']") == parts


def test_stop_from_another_host_leaves_nothing(running: Site) -> None:
    with running.prompt() as prompt:
        prompt("calls = [view.apply_async(time.sleep, 600) for _ in range(2)]")
        running.user.stop(host=running.hosts["node3"])
        running.is_empty()
        for said in prompt("fate(calls[0])"):
            assert re.match(r"(\w+Error|NotConnected): ", said), said
    assert running.user.hpcremote("status").returncode == 3


def test_a_start_that_cannot_succeed_says_what_to_set(site: Site) -> None:
    jobs = site.jobs()
    for keys, words, remedy in _REFUSED[site.launcher.part]:
        said = site.user.fail("--cluster-id", "wrong", **keys)
        assert words in said
        assert remedy.format(name=site.name) in said
        _is_told_later(site, words)
    said = site.user.fail("--cluster-id", "wrong", **{**site.launcher.two, "interface": "127.0.0.1"})
    assert "cannot reach the controller of cluster 'wrong'" in said
    assert re.search(r"tcp://127.0.0.1:\d+: connection refused", said), said
    whose = "(head|the controller's host)"
    wanted = rf"[Ss]et `interface:` in profile '?{site.name}'? to a name or address of {whose} that "
    assert re.search(wanted, said), said
    _is_told_later(site, "cannot reach the controller of cluster 'wrong'")
    eventually(lambda: site.jobs() == jobs)


def _is_told_later(site: Site, words: str) -> None:
    told = site.user.hpcremote("status", "--cluster-id", "wrong")
    assert told.returncode == 3
    assert "its last start failed" in told.stdout
    assert words in told.stdout
    assert words in site.user.hpcremote("logs", "--cluster-id", "wrong").stdout


def test_a_killed_rank(running: Site) -> None:
    with running.prompt() as prompt:
        host, pid = prompt("[(one.host, one.pid) for one in rc.link.engines.values()][3]")
        prompt("calls = [one.apply_async(time.sleep, 600) for one in rc]")
        running.hosts[host].run(["kill", "-KILL", str(pid)], check=True)
        (said,) = prompt("fate(calls[3])")
        who = f"rank 3 on {host}" if running.launcher.mpi else f"on {host}"
        assert said.startswith(f"EngineError: engine 3 ({who})"), said
        assert "killed by SIGKILL" in said, said
        if running.name in _BY_MPIEXEC_IN_A_JOB:
            for number in range(3):
                (other,) = prompt(f"fate(calls[{number}])")
                assert ", after engine 3 of the same MPI job: killed by SIGKILL" in other, other
    running.user.stop("--timeout", "2")  # under Slurm the others live on, and MPI does not let them go
    running.is_empty()
