"""Every way to start four ranks on two hosts, for tests that are the same for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.support import eventually
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.hosts import Host, Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.lab.torque import Torque
from tests.schedulers.users import Prompt, User


class Launcher(NamedTuple):
    """A way to start engines.

    Attributes:
        part: the fixture of what it needs on the hosts.
        keys: of its profile.
        two: those that make it two engines, one a host.
        mpi: whether engines are ranks.
    """

    part: str
    keys: dict[str, Any]
    two: dict[str, Any]
    mpi: bool = True

    @property
    def places(self) -> list[str]:
        """The host of each slot that the profile names; none where a batch system chooses."""
        slots = [word.partition(":") for word in self.keys.get("hosts", ())]
        return [host for host, _, count in slots for _ in range(int(count or 1))]


#: Two nodes with two ranks each, and with one.
_NODES = ({"nodes": 2, "ranks_per_node": 2, "walltime": "10 min"}, {"ranks_per_node": 1})
# UCX's addresses name all interfaces; a busy Slurm does not always read such long ones whole. Open MPI
# takes an interface that leads nowhere for a way to other hosts.
_OPEN_MPI = {"OMPI_MCA_btl_tcp_if_include": "eth0"}
_HOSTS = (
    {"n": 4, "hosts": ["node1:2", "node2:2"], "interface": "eth0", "environment": _OPEN_MPI},
    {"hosts": ["node1", "node2"], "n": 2},
)
_SLURM = {"extends": "slurm", **_NODES[0], "environment": {"UCX_NET_DEVICES": "eth0", **_OPEN_MPI}}
_GRID_ENGINE = {"extends": "sge", "nodes": 2, "ranks_per_node": 2, "queue": "all.q@node1,all.q@node2"}

LAUNCHERS = {
    "slurm-srun": Launcher("slurm", _SLURM, _NODES[1]),
    "slurm-mpiexec": Launcher("slurm", {**_SLURM, "launcher": "mpiexec"}, _NODES[1]),
    "slurm-all-in-job": Launcher("slurm", {**_SLURM, "controller": "job"}, _NODES[1]),
    "torque": Launcher("torque", {**_SLURM, "extends": "torque"}, _NODES[1]),
    "sge": Launcher("sge", _GRID_ENGINE, _NODES[1]),
    "hosts-mpiexec": Launcher("ssh", {"extends": "mpi", **_HOSTS[0]}, _HOSTS[1]),
    "hosts-ssh": Launcher(
        "ssh",
        {"extends": "mpi", "launcher": "ssh", **_HOSTS[0], "hosts": ["node1", "node2:3"]},
        _HOSTS[1],
        mpi=False,
    ),
}


class Site(NamedTuple):
    """A user of one launcher, and the batch system in which that user's jobs are, if there is one."""

    name: str
    launcher: Launcher
    user: User
    queue: Slurm | GridEngine | None

    @property
    def hosts(self) -> Hosts:
        return self.user.hosts

    @property
    def all_in_job(self) -> bool:
        """Whether the controller is in the job, too."""
        return self.launcher.keys.get("controller") == "job"

    def start(self, cluster_id: str = "default", **keys: Any) -> str:
        """Start a cluster, with other keys; return what was said."""
        return self.user.start("--cluster-id", cluster_id, **keys)

    def start_two(self, cluster_id: str = "default", **keys: Any) -> str:
        """Start a cluster of two engines, one on node1 and one on node2; return what was said."""
        return self.start(cluster_id, **{**self.launcher.two, **keys})

    def prompt(self, host: Host | None = None, **options: Any) -> Prompt:
        """Return a prompt of this user; see :meth:`User.prompt`."""
        return self.user.prompt(host, **options)

    def jobs(self) -> list[str]:
        """Return the jobs that wait or run: none where there is no batch system."""
        return self.queue.jobs() if self.queue is not None else []

    def is_empty(self) -> None:
        """See to it that nothing runs on any host, and that nothing is in the queue."""
        self.user.nothing_left()
        eventually(lambda: not self.jobs(), 60, why=lambda: f"jobs are left: {self.jobs()}")


@contextlib.contextmanager
def site(request: pytest.FixtureRequest, hosts: Hosts, folder: Path, name: str) -> Iterator[Site]:
    """A user of launcher *name*; at the end its clusters have been stopped, and its queue is empty.

    Args:
        request: has the fixtures.
        hosts: the hosts.
        folder: the user's.
        name: one of :data:`LAUNCHERS`.
    """
    launcher = LAUNCHERS[name]
    with contextlib.ExitStack() as stack:
        queue, env = None, {}
        if launcher.part == "torque":  # the fixture of that name is for one test
            queue = request.getfixturevalue("slurm")
            env = stack.enter_context(Torque(queue)).env
        elif launcher.part == "ssh":
            request.getfixturevalue("ssh")
        else:
            queue = request.getfixturevalue(launcher.part)
        if queue is not None:
            queue.clear()
            stack.callback(queue.clear)
        user = User(hosts, folder, name, launcher.keys, env)
        stack.callback(user.clear)
        yield Site(name, launcher, user, queue)
