"""Namespaces in files: saved whole or not at all, put back, and what is said when that cannot be."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import hpcremote
from hpcremote.errors import RemoteError, SaveError
from tests.integration.support import Running

pytestmark = pytest.mark.mpi

SETUP = """
import math
import numpy as np
from mpi4py import MPI
rank = MPI.COMM_WORLD.rank
a = np.arange(100_000.0) + rank
part = a[10:20]
scale = 2
class Cell:
    def __init__(self, value):
        self.value = value
    def double(self):
        return self.value * scale
cells = [Cell(rank), Cell(7)]
def area(r):
    return math.pi * r ** 2 * scale
"""


@pytest.fixture
def view(rc4: hpcremote.Client) -> Iterator[hpcremote.DirectView]:
    view = rc4[:]
    view.block = True
    view.clear()
    yield view
    view.clear()


def failure(excinfo: pytest.ExceptionInfo[RemoteError], number: int = 0) -> str:
    error = excinfo.value
    error = error.errors[number] if isinstance(error, hpcremote.CompositeError) else error
    assert isinstance(error, SaveError), error
    return str(error)


def test_a_namespace_is_put_back_as_it_was(view: hpcremote.DirectView, tmp_path: Path) -> None:
    view.execute(SETUP)
    saved = view.save(tmp_path / "deep" / "down")
    assert [record.engine for record in saved] == view.targets
    names = {"math", "np", "MPI", "rank", "a", "part", "scale", "Cell", "cells", "area"}
    assert set(saved[0].names) == names
    assert saved[0].left_out == {}
    sizes = [Path(record.path).stat().st_size for record in saved]
    assert sizes == [record.bytes for record in saved]
    assert min(sizes) > 800_000
    assert sorted(os.listdir(tmp_path / "deep" / "down")) == [f"rank-{n}.hpcremote" for n in view.targets]

    view.clear()
    back = view.load(tmp_path / "deep" / "down")
    assert [record.names for record in back] == [record.names for record in saved]
    assert view["rank"] == view.targets
    assert view["(float(a[3]), a.flags.writeable, cells[0].double(), cells[1].value)"] == [
        (3.0 + rank, True, 2 * rank, 7) for rank in view.targets
    ]
    # What a function reads is the namespace, as before.
    view["scale"] = 0
    assert view["(area(1), cells[1].double())"] == [(0.0, 0)] * 4


def test_only_some_names_and_a_pattern(view: hpcremote.DirectView, tmp_path: Path) -> None:
    view.execute("x, y, z = 1, 2, 3")
    saved = view.save(tmp_path / "state-{rank}.bin", names=["x", "y"])
    assert saved[2].path == str(tmp_path / "state-2.bin")
    view.clear()
    assert view.load(tmp_path / "state-{rank}.bin", "y")[0].names == ("y",)
    assert view["'x' in globals(), y"] == [(False, 2)] * 4
    with pytest.raises(RemoteError) as told:
        view.load(tmp_path / "state-{rank}.bin", "q")
    assert "state-0.bin has no 'q'; it has: x, y" in failure(told)


def test_what_cannot_be_pickled_is_left_out_and_named(view: hpcremote.DirectView, tmp_path: Path) -> None:
    view.execute("import threading; lock = threading.Lock(); x = [1]; y = x")
    with pytest.warns(RuntimeWarning, match=r"lock \(lock: cannot pickle '_thread.lock'.*on engines 0-3"):
        saved = view.save(tmp_path)
    assert set(saved[0].names) == {"threading", "x", "y"}
    assert list(saved[0].left_out) == ["lock"]
    view.clear()
    view.load(tmp_path)
    assert view["x is y"] == [True] * 4
    view.execute("lock = threading.Lock()")
    with pytest.raises(RemoteError, match="lock"):
        view.save(tmp_path, names="lock")
    with pytest.raises(RemoteError, match="NameError"):
        view.save(tmp_path, names="nothing_of_that_name")


def limit_files(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_where_one_rank_cannot_write_all_keep_the_old_files(
    view: hpcremote.DirectView, rc4: hpcremote.Client, tmp_path: Path
) -> None:
    view.execute(SETUP)
    view.save(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    view.execute("a[:] = -1")
    rc4[2].apply_sync(limit_files, 300_000)
    try:
        with pytest.raises(RemoteError) as told:
            view.save(tmp_path)
    finally:
        rc4[2].apply_sync(limit_files, resource.RLIM_INFINITY)
    assert "rank-2.hpcremote cannot be written: File too large; what was there is as it was" in failure(
        told, 2
    )
    assert "rank-0.hpcremote is as it was: 1 other engines of this call could not save" in failure(told)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    view.load(tmp_path)
    assert view["float(a[0])"] == [float(rank) for rank in view.targets]


def test_files_that_are_missing_damaged_or_not_ours(view: hpcremote.DirectView, tmp_path: Path) -> None:
    view["x"] = 5
    with pytest.raises(RemoteError) as told:
        view.load(tmp_path)
    assert f"there is no file {tmp_path}/rank-0.hpcremote" in failure(told)
    view.save(tmp_path)
    file = tmp_path / "rank-1.hpcremote"
    whole = file.read_bytes()
    cases = {
        whole[:-3]: "is damaged: it has",
        b"something else": "is not a namespace that was saved",
        whole[:40]: "is damaged",
    }
    view["x"] = 6
    for content, words in cases.items():
        file.write_bytes(content)
        with pytest.raises(RemoteError) as told:
            view.load(tmp_path)
        assert str(file) in failure(told)
        assert words in failure(told)
    file.write_bytes(whole)
    file.chmod(0o666)
    with pytest.raises(RemoteError) as told:
        view.load(tmp_path)
    assert "can be written by others" in failure(told)
    with pytest.raises(RemoteError) as told:
        view.save(file)
    assert "is a file: name a folder" in failure(told)
    file.unlink()
    with pytest.raises(RemoteError) as told:
        view.load(tmp_path)
    assert "there are rank-0.hpcremote, rank-2.hpcremote, rank-3.hpcremote" in failure(told)
    assert view["x"] == [6] * 4, "nothing was put back anywhere"


def test_files_of_different_saves_are_not_mixed(
    view: hpcremote.DirectView, rc4: hpcremote.Client, tmp_path: Path
) -> None:
    view["x"] = 1
    view.save(tmp_path)
    rc4[3].save(tmp_path, block=True)
    with pytest.raises(SaveError, match=r"not saved together.*engines 0-2 at .*engines 3 at"):
        view.load(tmp_path)
    assert rc4[:3].load(tmp_path, block=True)[0].names == ("x",)


def test_fewer_ranks_than_saved_are_told(session_home: Path, tmp_path: Path) -> None:
    with Running(n=3, profile="mpi") as running:
        view = running.rc[:]
        view.block = True
        view["x"] = np.arange(3)
        view.save(tmp_path)
    with Running(n=2, profile="mpi") as running:
        view = running.rc[:]
        with pytest.raises(
            SaveError, match=r"saved by 3 engines, and there are 2: engines 2 are missing. Start 3"
        ):
            view.load(tmp_path)


def test_engines_without_mpi_save_each_for_itself(session_home: Path, tmp_path: Path) -> None:
    with Running(n=2, profile="local") as running:
        view = running.rc[:]
        view.block = True
        view.scatter("x", range(4))
        view.save(tmp_path)
        view.clear()
        view.load(tmp_path)
        assert view["x"] == [range(2), range(2, 4)]
        assert running.rc[1].save(tmp_path / "one", block=True).engine == 1


def test_a_function_on_the_engines_saves(view: hpcremote.DirectView, tmp_path: Path) -> None:
    view["x"] = 3
    view.execute(f"import hpcremote; done = hpcremote.save_namespace({str(tmp_path)!r}, 'x').names")
    view.clear()
    view.execute(f"import hpcremote; hpcremote.load_namespace({str(tmp_path)!r})")
    assert view["x"] == [3] * 4
    with pytest.raises(hpcremote.HPCRemoteError, match="works inside a call"):
        hpcremote.save_namespace(tmp_path)
