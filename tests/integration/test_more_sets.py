"""Engine sets that are added to a cluster of this machine, restarted and ended, apart from the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcremote
from hpcremote.errors import LaunchError
from hpcremote.launch import job, process, record
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


def map_file(path: str) -> None:
    import builtins
    import mmap

    with open(path, "wb+") as file:
        file.truncate(4096)
        builtins.kept = mmap.mmap(file.fileno(), 4096)  # type: ignore[attr-defined]


@pytest.mark.mpi
def test_a_set_has_its_own_shared_memory_and_a_users_file_is_none_of_it(cluster: hpcremote.Cluster) -> None:
    theirs = Path(f"/dev/shm/hpcremote-test-{os.getpid()}")
    folder = cluster._startup.record.folder  # type: ignore[union-attr]

    def noted() -> dict[str, tuple[str, ...]]:
        found = record.read(folder)
        assert found is not None
        return {mark.partition(".")[2]: paths for mark, paths in found.memory.items()}

    try:
        with cluster.connect_client() as rc:
            first = noted()["1"]
            rc[0].apply_sync(map_file, str(theirs))
            cluster.start_engines(2)
            assert rc.link.wait(lambda: len(rc) == 4, SOON)
            former = noted()["2"]
            assert former  # MPICH's ranks of one host share some
            rc.set(1).restart(SOON)
            after = noted()
            assert after["1"] == first
            assert all(os.path.exists(path) for path in first)
            assert set(after["2"]).isdisjoint({*former, *first, str(theirs)})
            assert not any(os.path.exists(path) for path in former)
            for pid in pids(rc, 2, 3):  # what they leave is removed with their set
                os.kill(pid, signal.SIGKILL)
            cluster.stop_engines(1)
            assert noted().keys() == {"1"}
            assert not any(os.path.exists(path) for path in after["2"])
        cluster.stop()
        assert theirs.exists()
    finally:
        theirs.unlink(missing_ok=True)


def test_of_a_set_that_cannot_be_started_whole_nothing_is_left(
    session_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = hpcremote.Cluster(n=1, profile="local", cluster_id="grows")
    with made as rc:
        real, begun = job.Child, []

        def fails(*words: Any, **options: Any) -> process.Child:
            if begun:
                raise LaunchError("cannot start it: Resource temporarily unavailable")
            begun.append(real(*words, **options))
            return begun[0]

        monkeypatch.setattr(job, "Child", fails)
        with pytest.raises(LaunchError, match="temporarily unavailable"):
            made.start_engines(2)
        assert not begun[0].process.alive()
        assert rc.link.wait(lambda: rc.ids == [0], SOON)


@pytest.mark.mpi
def test_in_a_batch_job_one_set_ends_and_the_others_do_not(
    session_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent of a node watches the ranks of all sets: it does not end with that which came first."""
    monkeypatch.setenv("COBALT_JOBID", "7")
    made = hpcremote.Cluster(n=1, profile="mpi", cluster_id="grows")
    with made as rc:
        found = record.read(made._startup.record.folder)  # type: ignore[union-attr]
        assert found is not None
        made.start_engines(1)
        (agent,) = [one for one in process.marked(found.mark) if b"agent" in words_of(one.pid)]
        made.stop_engines(0)
        assert rc.link.wait(lambda: rc.ids == [1], SOON)
        assert agent.alive()
        assert rc[1].apply_sync(pow, 2, 3) == 8


def words_of(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


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
