"""Engine sets that are added to a cluster of this machine, restarted and ended, apart from the others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcremote
from hpcremote.errors import LaunchError
from hpcremote.launch import process, record
from tests.integration.support import eventually

pytestmark = pytest.mark.timeout(120)
SOON = 60.0


def pids(rc: hpcremote.Client, *ids: int) -> list[int]:
    return [rc.link.engines[one].pid for one in ids]


def gone(numbers: list[int]) -> bool:
    return not any(process.of_pid(number).alive() for number in numbers)


@pytest.fixture
def cluster(session_home: Path) -> Iterator[hpcremote.Cluster]:
    made = hpcremote.Cluster(n=2, profile="mpi", cluster_id="grows")
    made.start()
    mark = record.read(made._startup.record.folder).mark  # type: ignore[union-attr]
    try:
        yield made
    finally:
        made.stop()
    assert process.marked(mark) == []


def total() -> tuple[int, int]:
    return int(hpcremote.comm().allreduce(1)), os.getpid()


def stuck(folder: str) -> None:
    import ctypes
    import os

    open(os.path.join(folder, str(os.getpid())), "w").close()
    ctypes.PyDLL(None).sleep(1000)  # holds the GIL: only a signal that kills ends it


@pytest.mark.mpi
def test_a_set_is_added_restarted_and_ended(cluster: hpcremote.Cluster) -> None:
    with cluster.connect_client() as rc:
        cluster.start_engines(2)
        assert rc.link.wait(lambda: len(rc) == 4, SOON)
        assert [one.size for one in rc.engine_sets] == [2, 2]
        assert [size for size, _ in rc.set(1).apply_sync(total)] == [2, 2]  # an MPI job of its own
        first, second = pids(rc, 0, 1), pids(rc, 2, 3)
        rc.set(1).restart(SOON)
        assert gone(second)
        assert pids(rc, 0, 1) == first
        second = pids(rc, 2, 3)
        rc.set(0).restart(SOON)
        assert gone(first)
        assert pids(rc, 2, 3) == second
        cluster.stop_engines(1)
        assert rc.link.wait(lambda: rc.ids == [0, 1], SOON)
        assert gone(second)
        assert [size for size, _ in rc[:].apply_sync(total)] == [2, 2]


@pytest.mark.mpi
def test_a_set_that_is_stuck_is_ended_all_the_same(cluster: hpcremote.Cluster, tmp_path: Path) -> None:
    with cluster.connect_client() as rc:
        cluster.start_engines(2)
        assert rc.link.wait(lambda: len(rc) == 4, SOON)
        second = pids(rc, 2, 3)
        calls = rc.set(1).apply_async(stuck, str(tmp_path))
        eventually(lambda: len(list(tmp_path.iterdir())) == 2, SOON)
        cluster.profile = hpcremote.Cluster(profile="mpi", stop_timeout=0.5).profile
        cluster.stop_engines(1)
        assert gone(second)
        with pytest.raises(hpcremote.CompositeError, match="engine"):
            calls.get(SOON)
        assert rc.ids == [0, 1]


@pytest.mark.mpi
def test_the_first_set_can_be_ended_too(cluster: hpcremote.Cluster) -> None:
    with cluster.connect_client() as rc:
        cluster.start_engines(1)
        assert rc.link.wait(lambda: len(rc) == 3, SOON)
        cluster.stop_engines(0)
        assert rc.link.wait(lambda: rc.ids == [2], SOON)
        assert rc[2].apply_sync(pow, 2, 3) == 8


@pytest.mark.mpi
def test_a_set_that_does_not_start_leaves_the_others(cluster: hpcremote.Cluster) -> None:
    broken = hpcremote.Cluster(profile="mpi", cluster_id="grows", python="/bin/false", n=2)
    with cluster.connect_client() as rc:
        before = pids(rc, 0, 1)
        with pytest.raises(LaunchError, match="ended before all engines were there"):
            broken.start_engines(2)
        assert pids(rc, 0, 1) == before
        assert [size for size, _ in rc[:].apply_sync(total)] == [2, 2]


def test_engines_without_mpi_come_and_go_one_by_one(session_home: Path) -> None:
    made = hpcremote.Cluster(n=2, profile="local", cluster_id="grows")
    with made as rc:
        made.start_engines(2)
        assert rc.link.wait(lambda: rc.ids == [0, 1, 2, 3], SOON)
        doomed = pids(rc, 2)
        others = pids(rc, 0, 1, 3)
        made.stop_engines(2)
        assert rc.link.wait(lambda: rc.ids == [0, 1, 3], SOON)
        assert gone(doomed)
        assert pids(rc, 0, 1, 3) == others
        assert rc[:].apply_sync(time.time)


def test_a_cluster_that_does_not_run_gets_no_engines(session_home: Path) -> None:
    with pytest.raises(hpcremote.HPCRemoteError, match="does not run"):
        hpcremote.Cluster(profile="local", cluster_id="nobody").start_engines(1)
