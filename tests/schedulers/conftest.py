"""The hosts and batch systems that these tests share. Each is brought up when the first test asks for it.

Tests leave them as they found them: queues empty, clusters stopped. What a test has cut, unplugged or
switched off is mended after it. Where packages or rights are missing, tests are skipped and say so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.support import ROOT, eventually
from tests.schedulers.lab import needs
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.lab.ssh import Ssh
from tests.schedulers.lab.torque import Torque

_PARTS = set(needs.NEEDS)
_FAKES = Path(__file__).with_name("fakes")
#: MPICH over Slurm's PMI2: in one of some hundred starts ranks read each other's addresses wrongly. That is
#: not ours, nor to be mended here; launchers/srun.yaml tells users what it is. Nothing else is tried again.
_MISREAD = "MPIDI_UCX_comm_addr_exchange"


def asked_for(item: pytest.Item) -> set[str]:
    """The names of the fixtures that a test uses, and of the batch system that is the parameter of one."""
    names = set(getattr(item, "fixturenames", ()))
    called = getattr(item, "callspec", None)
    for fixture in names & {"system", "user"} if called else ():
        names.add(called.params[fixture])
    return names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = asked_for(item)
        if names & (_PARTS | {"running"}):  # "running": of test_launchers.py
            item.add_marker(pytest.mark.schedulers)
        if names & {"slurm", "running"}:
            item.add_marker(pytest.mark.flaky(reruns=2, only_rerun=[_MISREAD]))


def require(part: str) -> None:
    if why := needs.missing(part):
        pytest.skip(why)


@pytest.fixture(scope="session")
def hosts(session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """A head and three nodes. What is in ``tmp_path`` and in hpcremote's folder is the same on all."""
    require("hosts")
    shared = [tmp_path_factory.getbasetemp(), ROOT, Path(sys.prefix), Path(sys.base_prefix)]
    with Hosts(share=shared) as made:
        yield made


@pytest.fixture(scope="session")
def slurm(hosts: Hosts) -> Slurm:
    """Slurm on these hosts."""
    require("slurm")
    return Slurm(hosts)


@pytest.fixture(scope="session")
def sge(hosts: Hosts) -> GridEngine:
    """Grid Engine on these hosts."""
    require("sge")
    return GridEngine(hosts)


@pytest.fixture(scope="session")
def ssh(hosts: Hosts) -> Ssh:
    """An SSH server on each of these hosts."""
    require("ssh")
    return Ssh(hosts)


@pytest.fixture
def torque(slurm: Slurm) -> Iterator[Torque]:
    """Torque's commands over Slurm, for one test: as long as they are there, Slurm's jobs look like PBS's."""
    require("torque")
    with Torque(slurm) as made:
        yield made


@pytest.fixture
def fake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, session_home: Path
) -> Iterator[Callable[[str], Path]]:
    """What has the commands of a batch system in ``fakes/`` at hand, and returns the folder of its jobs.

    All of them have ended when the test has.
    """
    folder = tmp_path / "batch"

    def have(name: str) -> Path:
        monkeypatch.setenv("PATH", f"{_FAKES / name}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("FAKE_BATCH", str(folder))
        return folder

    yield have
    jobs = [file.parent for file in folder.glob("*/job.json")]
    for job in jobs:
        (job / "told").write_text("cancel")
    eventually(lambda: all((job / "ended").exists() for job in jobs), why="a job is left")


@pytest.fixture(autouse=True)
def short_addresses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks under Slurm have the address of one interface to tell.

    With those of all, MPICH's addresses are so long that a start by PMI2 fails now and then;
    launchers/srun.yaml tells users the same.
    """
    if "slurm" in asked_for(request.node) | set(request.fixturenames):
        monkeypatch.setenv("UCX_NET_DEVICES", "eth0")


@pytest.fixture(autouse=True)
def no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that leaves jobs behind fails itself, rather than those after it."""
    own = asked_for(request.node)  # not what a module's fixture asked for: its jobs live on
    slurm = request.getfixturevalue("slurm") if "slurm" in own else None
    yield
    if slurm is not None:
        try:
            eventually(lambda: not slurm.jobs(), why="jobs are left")
        finally:
            slurm.clear()


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest, no_jobs_left: None) -> Iterator[None]:
    """After each test hosts have power, and reach each other."""
    made = request.getfixturevalue("hosts") if "hosts" in request.fixturenames else None
    yield
    if made is not None:
        made.mend()
