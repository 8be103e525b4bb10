"""What users import: the names are there, documented, and typed for those who check types."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import hpcremote

PUBLIC = sorted(hpcremote.__all__)
CLASSES = [name for name in PUBLIC if inspect.isclass(getattr(hpcremote, name))]


def test_all_has_no_name_twice() -> None:
    assert len(hpcremote.__all__) == len(set(hpcremote.__all__))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there_and_listed(name: str) -> None:
    assert getattr(hpcremote, name) is not None
    assert name in dir(hpcremote)


def test_every_public_attribute_is_in_all() -> None:
    hidden = {"annotations", "Any", "TYPE_CHECKING"}  # what the module itself uses
    found = {
        name
        for name in dir(hpcremote)
        if not name.startswith("_") and not isinstance(getattr(hpcremote, name), ModuleType)
    }
    assert found - hidden <= set(hpcremote.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        hpcremote.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", [name for name in PUBLIC if callable(getattr(hpcremote, name))])
def test_every_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(getattr(hpcremote, name)), f"hpcremote.{name} has no docstring"


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_has_a_docstring(name: str) -> None:
    cls = getattr(hpcremote, name)
    bare = [
        attribute
        for attribute, value in inspect.getmembers(cls)
        if not attribute.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
        and not inspect.getdoc(value)
    ]
    assert bare == []


def test_types_are_seen_from_outside(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(
        "import hpcremote as parallel\n"
        "rc = parallel.Client(profile='mpi')\n"
        "reveal_type(rc.ids)\n"
        "reveal_type(rc[:])\n"
        "reveal_type(rc[:].apply_async(abs, 1))\n"
        "rc[:].no_such_method()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "user.py"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert '"DirectView" has no attribute "no_such_method"' in done.stdout, done.stdout + done.stderr
    revealed = [line.split("Revealed type is ")[1] for line in done.stdout.splitlines() if "Revealed" in line]
    assert len(revealed) == 3
    assert "list[" in revealed[0] and "int" in revealed[0]
    assert "DirectView" in revealed[1]
    assert "AsyncResult" in revealed[2]


def test_every_error_is_public_under_both_names() -> None:
    from hpcremote import error, errors

    kinds = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.HPCRemoteError)
    }
    assert kinds <= set(hpcremote.__all__)
    for module in (hpcremote, error):
        assert all(getattr(module, name) is getattr(errors, name) for name in kinds)


def test_every_error_is_in_the_drawing() -> None:
    from hpcremote import errors

    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    kinds = {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.HPCRemoteError) and name == value.__name__
    }
    assert set(drawn) == kinds - {"HPCRemoteError"}
