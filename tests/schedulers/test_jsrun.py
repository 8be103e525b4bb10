"""Ranks under jsrun in a job of LSF, against commands that speak as its manual says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcremote
from hpcremote import files
from hpcremote.errors import LaunchError
from hpcremote.launch import catalog, text

FAKES = Path(__file__).with_name("fakes") / "lsf"


@pytest.fixture
def batch(fake: Callable[[str], Path]) -> Path:
    """The folder of a fake LSF."""
    return fake("lsf")


def _log() -> str:
    return (files.user_dir() / "clusters" / "lsf" / "jsm" / "logs" / "engines.log").read_text()


@pytest.mark.mpi
def test_a_session(batch: Path) -> None:
    with hpcremote.Cluster(n=2, profile="lsf", cluster_id="jsm", launcher="jsrun", threads_per_rank=2) as rc:
        assert rc.ids == [0, 1]
        assert rc[:].apply_sync(lambda: __import__("mpi4py.MPI").MPI.COMM_WORLD.allreduce(1)) == [2, 2]
        said = _log()
    assert f"$ {FAKES}/jsrun --nrs=2 --tasks_per_rs=1 --cpu_per_rs=2 " in said
    assert "hpcremote engine --file " in said
    assert [json.loads(path.read_text())["how"] for path in batch.glob("*/ended")] in (["exit"], ["cancel"])


@pytest.mark.mpi
def test_arguments_of_the_profile_come_before_the_engine_and_what_is_refused_is_told(batch: Path) -> None:
    with pytest.raises(LaunchError, match="jsrun: unrecognized arguments|invalid int value") as caught:
        hpcremote.Cluster(
            n=2, profile="lsf", cluster_id="jsm", launcher="jsrun", mpiexec_args=["--gpu_per_rs=many"]
        ).start()
    assert "ended before all engines were there" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "flavour", "version"),
    [
        ("IBM Spectrum MPI, version 10.3.1.2", "Spectrum MPI", "10.3.1.2"),
        ("Open MPI v4.0.1rc1, package: IBM Spectrum MPI 10.3 Distribution", "Spectrum MPI", "4.0.1rc1"),
        ("MPICH Version: 4.1", "an unknown MPI", ""),
    ],
)
def test_the_library(said: str, flavour: str, version: str) -> None:
    found = text.library(catalog.load("jsrun").flavours, said)
    assert found is not None
    assert (found[0].name, found[1]) == (flavour, version)


def test_outside_of_a_job() -> None:
    said = text.explain(catalog.load("jsrun").hints, "Error initializing RM connection. Exiting.", {})
    assert said.startswith("jsrun is not in a job of LSF")
