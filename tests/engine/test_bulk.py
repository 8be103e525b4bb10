"""Bulk data between real ranks, and reductions, by plain MPI (in calls: tests/integration/test_bulk.py)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.integration.support import MANNERS, environment

pytestmark = pytest.mark.mpi


@pytest.fixture(scope="module")
def run() -> Callable[..., None]:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        pytest.skip("there is no mpiexec")

    def run(what: str, ranks: int, seconds: float = 90) -> None:
        script = Path(__file__).with_name("bulk_ranks.py")
        words = [found, "-n", str(ranks), sys.executable, str(script), what]
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            env=environment(**MANNERS),
        )
        assert (done.returncode, done.stdout.strip()) == (0, f"{what} ok"), done.stderr

    return run


@pytest.mark.parametrize("ranks", [1, pytest.param(3, marks=pytest.mark.openmpi), 4])
@pytest.mark.parametrize("what", ["spread", "deal", "collect", "reduce"])
def test_it_arrives_as_it_was(run: Callable[..., None], what: str, ranks: int) -> None:
    run(what, ranks)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_more_than_two_gigabytes_arrive_as_they_were(run: Callable[..., None]) -> None:
    need = 4 * (2200 << 20)
    if psutil.virtual_memory().available < need:
        pytest.skip(f"needs {need >> 30} GiB of memory")
    run("huge", 2, seconds=580)
