"""What users install: an sdist, the wheel made from it, and what is in there when no checkout is near.

Launchers and profiles are looked up beside the package too, for checkouts; only an installation far
from one shows whether the wheel carries them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling builds the wheel; it is in the dependency group 'test'")

ROOT = Path(__file__).parents[1]
LAUNCHERS = {path.name for path in (ROOT / "launchers").iterdir() if path.is_file()}
PROFILES = {path.name for path in (ROOT / "profiles").glob("*.yaml")}

LOAD_EVERYTHING = """
import hpcremote
from hpcremote import files, profile
from hpcremote.launch import catalog

print(hpcremote.__file__)
for name in files.available("launchers"):
    found = catalog.read(name)
    print("launcher", found.name)
    if isinstance(found, catalog.Scheduler):
        catalog.template(f"{name}.sh.in")
for name in files.available("profiles"):
    print("profile", profile.load(name).name)
"""


def run(*command: str | Path, cwd: Path | str = "/", **variables: str) -> str:
    """Run a command with a clean environment and return what it printed."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "HPCREMOTE"))}
    done = subprocess.run(
        command, check=False, cwd=cwd, env=env | variables, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder, cwd=ROOT)
    (path,) = folder.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=source)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and, by a path, what it depends on; gives its ``bin``."""
    folder = tmp_path_factory.mktemp("env")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--no-deps", "--no-index", wheel)
    # Through a .pth file only the folder itself counts: the editable hpcremote in it stays invisible.
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def test_the_sdist_has_what_a_checkout_has(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "Makefile", "tests/test_packaging.py"} <= names
    assert {f"launchers/{name}" for name in LAUNCHERS} | {f"profiles/{name}" for name in PROFILES} <= names
    assert not [name for name in names if name.startswith((".venv", "build/", ".git/"))]


def test_the_wheel_has_the_package_and_its_data_only(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(next(name for name in names if name.endswith("METADATA"))).decode()
    shipped = {f"hpcremote/_shipped/launchers/{name}" for name in LAUNCHERS}
    shipped |= {f"hpcremote/_shipped/profiles/{name}" for name in PROFILES}
    assert shipped <= names
    assert "hpcremote/py.typed" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"hpcremote"}
    required = [
        line for line in metadata.splitlines() if line.startswith("Requires-Dist") and "extra" not in line
    ]
    assert not [line for line in required if "mpich" in line or "openmpi" in line], (
        "would hide the site's MPI"
    )


def test_every_launcher_and_profile_loads_from_an_installation(installed: Path, tmp_path: Path) -> None:
    where, *loaded = run(
        installed / "python", "-c", LOAD_EVERYTHING, HPCREMOTE_DIR=str(tmp_path)
    ).splitlines()
    assert Path(where).is_relative_to(installed.parent)
    expected = [f"launcher {Path(name).stem}" for name in LAUNCHERS if name.endswith(".yaml")]
    assert sorted(loaded) == sorted(expected + [f"profile {Path(name).stem}" for name in PROFILES])


@pytest.mark.parametrize("command", [["hpcremote"], ["python", "-m", "hpcremote"]])
def test_the_command_is_there(installed: Path, command: list[str]) -> None:
    assert "start" in run(installed / command[0], *command[1:], "--help")
