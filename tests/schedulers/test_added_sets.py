"""Engine sets on hosts that are reached by ssh: started, restarted, and ended without a trace."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.integration.support import eventually
from tests.schedulers.lab.ssh import Ssh

pytestmark = pytest.mark.mpi

_SESSION = """
import os
import hpcremote

def where():
    return os.uname().nodename, os.getpid(), hpcremote.comm().allreduce(1)

keys = dict(profile="mpi", cluster_id="hosts", n=2, hosts=["node1", "node2"], interface="eth0")
cluster = hpcremote.Cluster(**keys)
with cluster as rc:
    cluster.start_engines(2)
    rc.link.wait(lambda: len(rc) == 4, 60)
    print([one[0] for one in rc.set(1).apply_sync(where)], [one[2] for one in rc.set(1).apply_sync(where)])
    cluster.stop_engines(1)
    rc.link.wait(lambda: len(rc) == 2, 60)
    print(rc.ids, [one[2] for one in rc[:].apply_sync(where)])
"""


_RESTART = """
import os, time
import hpcremote

def where():
    return os.uname().nodename, os.getpid()

def stuck():
    import ctypes
    open("stuck", "w").close()
    ctypes.PyDLL(None).sleep(1000)

keys = dict(profile="mpi", launcher="ssh", n=4, hosts=["node1:2", "node2:2"], interface="eth0")
with hpcremote.Cluster(**keys) as rc:
    before = rc[:].apply_sync(where)
    chosen = [host for host, _ in before].index("node2")
    rc[chosen].apply_async(stuck)
    while not os.path.exists("stuck"):
        time.sleep(0.05)
    rc.set(chosen).restart(60)
    after = rc[:].apply_sync(where)
    print(rc.ids, [one for one in range(4) if before[one] != after[one]] == [chosen], after[chosen][0])
"""


def test_one_of_the_engines_without_mpi_on_other_hosts_is_restarted(ssh: Ssh, tmp_path: Path) -> None:
    """It comes back where it was, also if it was stuck; the others, which carry the same mark, live on."""
    hosts = ssh.hosts
    done = hosts.head.run([sys.executable, "-c", _RESTART], cwd=tmp_path, seconds=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["[0, 1, 2, 3] True node2"]
    eventually(lambda: not any(host.processes("-m hpcremote") for host in hosts), why="something is left")


def test_a_set_on_other_hosts_comes_and_goes(ssh: Ssh, tmp_path: Path) -> None:
    hosts = ssh.hosts
    done = hosts.head.run([sys.executable, "-c", _SESSION], cwd=tmp_path, seconds=110)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == ["['node1', 'node2'] [2, 2]", "[0, 1] [2, 2]"]
    eventually(lambda: not any(host.processes("-m hpcremote") for host in hosts), why="something is left")
