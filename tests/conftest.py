"""What all tests share: a home of their own, MPI clusters, and a look at what clusters leave behind."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcremote
from tests.integration.support import Notebook, Running


@pytest.fixture(scope="session", autouse=True)
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test sees, or touches, the clusters and profiles of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("HPCREMOTE_DIR", str(home))
        for name in ("HPCREMOTE_PROFILE", "HPCREMOTE_CLUSTER_ID", "HPCREMOTE_PROFILE_PATH"):
            patch.delenv(name, raising=False)
        yield home


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_works() -> None:
    """A script starts what runs in its background deaf to SIGINT; our children shall not inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="module")
def mpi4(session_home: Path) -> Iterator[Running]:
    """Four MPI engines for the tests of a module; at the end nothing of them is left."""
    with Running(n=4, profile="mpi") as running:
        yield running


@pytest.fixture(scope="module")
def mpi2(session_home: Path) -> Iterator[Running]:
    """Two MPI engines for the tests of a module; at the end nothing of them is left."""
    with Running(n=2, profile="mpi") as running:
        yield running


@pytest.fixture
def start(session_home: Path) -> Iterator[Callable[..., Running]]:
    """Start clusters for one test: ``start(n=2, profile="local")``; at the end nothing of them is left."""
    started: list[Running] = []

    def start_one(**options: Any) -> Running:
        running = Running(**options)
        started.append(running)
        running.start()
        return running

    yield start_one
    for running in reversed(started):
        running.stop()


@pytest.fixture
def rc4(mpi4: Running) -> Iterator[hpcremote.Client]:
    """A client of four MPI engines whose namespaces are empty."""
    mpi4.rc.clear(block=True)
    yield mpi4.rc
    assert mpi4.rc.ids == [0, 1, 2, 3], "the test has cost an engine its life"


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    """What a user types, cell by cell; see :class:`Notebook`."""
    made = Notebook()
    monkeypatch.setitem(sys.modules, "__main__", made.module)
    return made
