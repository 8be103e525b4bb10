"""The essentials on real ranks, under whichever MPI library this environment has.

`make test` runs this with MPICH, and once more with Open MPI (``-m openmpi``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

import hpcremote

pytestmark = [pytest.mark.mpi, pytest.mark.openmpi]
RANKS = 2


@pytest.fixture(scope="module")
def rc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hpcremote.Client]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPCREMOTE_DIR", str(tmp_path_factory.mktemp("home")))
        with hpcremote.Cluster(n=RANKS, profile="mpi") as client:
            yield client


def test_engine_ids_are_mpi_ranks(rc: hpcremote.Client) -> None:
    def who() -> tuple[int, int]:
        from mpi4py import MPI

        return MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size

    assert rc.ids == [0, 1]
    assert rc[:].apply_sync(who) == [(0, RANKS), (1, RANKS)]


def test_ranks_reduce_what_was_scattered(rc: hpcremote.Client) -> None:
    @hpcremote.interactive
    def total() -> float:
        from mpi4py import MPI

        return float(MPI.COMM_WORLD.allreduce(part.sum()))  # type: ignore[name-defined]  # noqa: F821

    view = rc[:]
    view.scatter("part", np.arange(1001.0), block=True)
    assert view.apply_sync(total) == [500500.0] * RANKS
    assert np.array_equal(view.gather("part", block=True), np.arange(1001.0))


def test_neighbours_exchange_arrays(rc: hpcremote.Client) -> None:
    def exchange(value: float) -> float:
        import numpy
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        theirs = numpy.empty(100_000)
        comm.Sendrecv(numpy.full(100_000, value + comm.rank), dest=1 - comm.rank, recvbuf=theirs)
        return float(theirs.mean())

    assert rc[:].apply_sync(exchange, 10.0) == [11.0, 10.0]


def test_an_error_says_which_rank(rc: hpcremote.Client) -> None:
    with pytest.raises(hpcremote.RemoteError, match="ZeroDivisionError") as caught:
        rc[1].execute("1 / 0", block=True)
    assert caught.value.engine_info["engine_id"] == 1
    assert rc[1].apply_sync(abs, -1) == 1


def test_output_belongs_to_its_rank(rc: hpcremote.Client) -> None:
    ar = rc[:].execute("from mpi4py import MPI; print('rank', MPI.COMM_WORLD.rank)")
    ar.get()
    assert [text.strip() for text in ar.stdout] == ["rank 0", "rank 1"]


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path))
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with hpcremote.Cluster(n=RANKS, profile="mpi") as client:
        pids = client[:].apply_sync(__import__("os").getpid)
        assert all(psutil.pid_exists(pid) for pid in pids)
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    left = [child for child in psutil.Process().children(recursive=True) if child.pid not in before]
    assert left == []
