"""Finding mpiexec, and telling whether it fits the MPI library. The fakes are real executables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hpcremote.errors import LaunchError
from hpcremote.launch import catalog, mpi

LAUNCHER = catalog.load("mpiexec")
VALUES = {"profile": "mpi", "python": "/opt/py/bin/python", "n": 2}


@pytest.fixture
def fake(tmp_path):
    """Make an executable that prints *says*; return its path."""

    def make(folder: str, says: str, *, name: str = "mpiexec", code: int = 0) -> str:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\nexit {code}\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """This interpreter's own prefix holds no mpiexec."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))


def find(named: str, python: str | Path, path: str) -> str:
    assert LAUNCHER.program is not None
    return mpi.find(LAUNCHER.program, named, str(python), {"PATH": path}, VALUES)


def test_the_one_beside_the_interpreter_comes_before_path(fake, tmp_path, nowhere):
    beside, on_path = fake("venv", "x"), fake("usr", "y")
    assert find("", tmp_path / "venv" / "python", str(tmp_path / "usr")) == beside
    assert find("", tmp_path / "other" / "python", str(tmp_path / "usr")) == on_path


def test_the_one_in_our_prefix_is_found(fake, tmp_path, monkeypatch):
    ours = fake("bin", "x")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert find("", "/nowhere/python", "") == ours


def test_other_names_are_tried(fake, tmp_path, nowhere):
    path = fake("usr", "x", name="mpirun")
    assert find("", "/nowhere/python", str(tmp_path / "usr")) == path


def test_the_named_one_wins(fake, tmp_path, nowhere):
    fake("venv", "x")
    named = fake("opt", "y", name="my-mpiexec")
    assert find(named, tmp_path / "venv" / "python", "") == named
    assert find("my-mpiexec", tmp_path / "venv" / "python", str(tmp_path / "opt")) == named


def test_the_named_one_is_not_there(tmp_path):
    with pytest.raises(LaunchError, match=r"mpiexec: /opt/none \(from the profile\) is not a program"):
        find("/opt/none", tmp_path / "python", "")
    (tmp_path / "text").write_text("")
    with pytest.raises(LaunchError, match="is not a program that can be run here"):
        find(str(tmp_path / "text"), tmp_path / "python", "")


def test_no_mpiexec_names_the_remedies(tmp_path, nowhere):
    with pytest.raises(LaunchError) as caught:
        find("", tmp_path / "python", str(tmp_path))
    said = str(caught.value)
    assert said.startswith("no mpiexec found: neither beside /opt/py/bin/python nor on PATH")
    assert "pip install 'hpcremote[mpich]'" in said
    assert "module load" in said
    assert "in profile mpi" in said


def test_flavour_and_version_are_asked(fake):
    path = fake("a", "mpiexec (Open MPI) 5.0.11")
    starter = mpi.identify(LAUNCHER, path, "auto", dict(os.environ))
    assert (starter.flavour.key, starter.version) == ("openmpi", "5.0.11")
    assert str(starter) == f"Open MPI 5.0.11 ({path})"


def test_the_profile_may_say_which_flavour_it_is(fake):
    wrapper = fake("a", "the site's wrapper")
    starter = mpi.identify(LAUNCHER, wrapper, "openmpi", dict(os.environ))
    assert (starter.flavour.key, starter.version) == ("openmpi", "")
    assert mpi.identify(LAUNCHER, wrapper, "auto", dict(os.environ)).flavour.key == "unknown"
    with pytest.raises(LaunchError, match="knows only intel, mpich, openmpi, unknown"):
        mpi.identify(LAUNCHER, wrapper, "cray", dict(os.environ))


def test_a_broken_mpiexec_is_quoted(fake):
    path = fake("a", "error while loading shared libraries: libx.so", code=127)
    with pytest.raises(LaunchError, match=r"mpiexec --version fails \(exit code 127\): error while"):
        mpi.identify(LAUNCHER, path, "auto", dict(os.environ))
    with pytest.raises(LaunchError, match=r"cannot be run \((Exec format error|No such file)"):
        mpi.identify(LAUNCHER, str(Path(path).with_name("none")), "auto", dict(os.environ))


@pytest.mark.mpi
def test_the_real_library_is_looked_at_without_mpi_init():
    library = mpi.look(sys.executable, dict(os.environ))
    assert library.trouble == ""
    assert "MPI" in library.said
    assert Path(library.path).name.startswith("libmpi")


@pytest.mark.mpi
def test_a_mismatch_with_the_real_library(fake):
    library = mpi.look(sys.executable, dict(os.environ))
    real = "openmpi" if "Open MPI" in library.said else "mpich"
    other = {"mpich": "mpiexec (Open MPI) 4.1.4", "openmpi": "HYDRA build details:\n    Version:      4.0.2"}[
        real
    ]
    starter = mpi.identify(LAUNCHER, fake("a", other), "auto", dict(os.environ))
    said = mpi.why_lonely(LAUNCHER, starter, library)
    assert said.startswith(f"mpiexec is {starter} but mpi4py loads ")
    assert library.path in said


def test_no_mpi_library_at_all(fake, tmp_path):
    python = fake("py", "RuntimeError: cannot load MPI library", name="python", code=1)
    library = mpi.look(python, dict(os.environ))
    assert library.trouble == f"{python} cannot load MPI by mpi4py: RuntimeError: cannot load MPI library"
    starter = mpi.identify(LAUNCHER, fake("a", "mpiexec (Open MPI) 4.1.4"), "auto", dict(os.environ))
    assert mpi.why_lonely(LAUNCHER, starter, library) == library.trouble


def test_an_mpiexec_that_hangs_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(mpi, "_VERSION_SECONDS", 0.2)
    path = tmp_path / "mpiexec"
    path.write_text("#!/bin/sh\nexec sleep 1000\n")
    path.chmod(0o755)
    said = r"mpiexec --version did not answer within 0.2 s; `mpiexec:` in the profile names another one"
    with pytest.raises(LaunchError, match=said):
        mpi.identify(catalog.load("mpiexec"), str(path), "auto", os.environ)
