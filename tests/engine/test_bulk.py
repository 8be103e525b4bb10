"""Bulk data between real ranks, and reductions, by plain MPI (in calls: tests/integration/test_bulk.py)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.support import environment

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def mpiexec() -> str:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")
    return found


@pytest.mark.parametrize("ranks", [1, 3, 4])
@pytest.mark.parametrize("what", ["spread", "deal", "collect", "reduce"])
def test_it_arrives_as_it_was(mpiexec: str, what: str, ranks: int) -> None:
    script = Path(__file__).with_name("bulk_ranks.py")
    words = [mpiexec, "-n", str(ranks), sys.executable, str(script), what]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=90, stdin=subprocess.DEVNULL, env=environment()
    )
    assert (done.returncode, done.stdout.strip()) == (0, f"{what} ok"), done.stderr
