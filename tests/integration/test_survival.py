"""Ranks that outlive another one of their MPI job: Open MPI with ULFM, the only library that lets them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcremote import CollectiveError, CompositeError, EngineError
from tests.integration.support import PATIENCE, Running, eventually

pytestmark = [pytest.mark.mpi, pytest.mark.openmpi]


def is_open_mpi() -> bool:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        return False
    said = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=PATIENCE).stdout
    return "Open MPI" in said or "PRTE" in said


def ranks_of_comm() -> Any:
    from mpi4py import MPI

    import hpcremote

    return hpcremote.comm().allgather(MPI.COMM_WORLD.rank)


def die_on(rank: int) -> Any:
    import os
    import signal

    import hpcremote

    comm = hpcremote.comm()
    if comm.rank == rank:
        os.kill(os.getpid(), signal.SIGKILL)
    return comm.allreduce(1)


def fail_on(rank: int) -> Any:
    import hpcremote

    comm = hpcremote.comm()
    if comm.rank == rank:
        raise ValueError("not I")
    return comm.allreduce(1)


def test_survivors_have_their_namespaces_and_communicators(start: Callable[..., Running]) -> None:
    if not is_open_mpi():
        pytest.skip("only Open MPI lets ranks outlive another one")
    rc = start(n=4, profile="mpi", mpiexec_args=["--with-ft", "ulfm"], collective_grace=0.3).rc
    everyone = rc[:]
    everyone.execute("import os; pid = os.getpid()", block=True)
    pids = everyone["pid"]
    lost = everyone.apply_async(die_on, 1)
    with pytest.raises(CompositeError) as caught:
        lost.get(timeout=PATIENCE)
    assert EngineError in {type(error) for error in caught.value.errors}
    eventually(lambda: rc.ids == [0, 2, 3])
    assert rc[:]["pid"] == [pids[0], pids[2], pids[3]]
    some = rc[[0, 3]].apply_async(ranks_of_comm).exception(timeout=PATIENCE)
    assert some is None or "make the call on all that are left, or restart the set" in str(some), some
    for _ in range(2):
        assert rc[[2, 3, 0]].apply_async(ranks_of_comm).get(timeout=PATIENCE) == [[2, 3, 0]] * 3
        assert rc[:].apply_async(ranks_of_comm).get(timeout=PATIENCE) == [[0, 2, 3]] * 3
        with pytest.raises(CollectiveError, match="not I"):
            rc[:].apply_async(fail_on, 1).get(timeout=PATIENCE)
