"""Waits in MPI can be left, and the communicators work again: on real ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcremote
from tests.integration.support import MANNERS

HERE = Path(__file__).parent
ROOT = Path(hpcremote.__file__).parents[1]
pytestmark = pytest.mark.mpi


@pytest.fixture
def ranks() -> Callable[[str, int], None]:
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("there is no mpiexec")

    def run(scenario: str, n: int, script: str = "scenarios.py", **more: str) -> None:
        env = {**os.environ, **MANNERS, "PYTHONPATH": str(ROOT), **more}
        command = ["timeout", "-k", "5", "90", mpiexec, "-n", str(n), sys.executable, HERE / script, scenario]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count(f"{scenario} ok") == n, done.stdout + done.stderr

    return run


ESSENTIALS = [
    "released",
    "subsets",
    "creation_race",
    "renewed",
    "spares",
    "derived",
    "neighbours",
    "requests",
]


@pytest.mark.openmpi
@pytest.mark.parametrize("scenario", ESSENTIALS)
def test_essentials(ranks: Callable[..., None], scenario: str) -> None:
    ranks(scenario, 3)


@pytest.mark.parametrize("scenario", [*ESSENTIALS, "interrupted", "requests_interrupted", "held"])
def test_where_ranks_share_cores(ranks: Callable[..., None], scenario: str) -> None:
    ranks(scenario, 3, CROWDED="1")


@pytest.mark.parametrize(
    "scenario",
    [
        "late_release",
        "interrupted",
        "where",
        "one_broken",
        "limit",
        "kept_buffers",
        "threads",
        "requests_interrupted",
        "requests_forgotten",
        "requests_outdated",
        "counted",
        "lent",
        "held",
        "not_renewed",
        "left_and_over",
        "received_wrongly",
        "no_room",
        "withdrew_long_ago",
    ],
)
def test_details(ranks: Callable[..., None], scenario: str) -> None:
    ranks(scenario, 3)


@pytest.mark.openmpi
@pytest.mark.parametrize("n", [2, 4])
def test_failure_after_failure(ranks: Callable[..., None], n: int) -> None:
    ranks("many_failures", n)


@pytest.mark.openmpi
def test_a_receive_whose_message_is_half_sent(ranks: Callable[..., None]) -> None:
    # Libraries that read large messages out of the sender's memory need nothing of it: not so here.
    ranks("half_sent", 2, MPIR_CVAR_CH4_CMA_ENABLE="0", OMPI_MCA_pml="ob1", OMPI_MCA_btl="self,tcp")


def test_without_thread_support(ranks: Callable[..., None]) -> None:
    ranks("no_threads", 2)


@pytest.mark.openmpi
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_results_are_those_of_plain_mpi4py(ranks: Callable[..., None], n: int) -> None:
    ranks("equal", n, "equal.py")
