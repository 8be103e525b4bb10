"""``import hpcremote`` is cheap: what it must not load, checked in a fresh process."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    "mpi4py",
    "yaml",
    "numpy",
    "IPython",
    "asyncio",
    "hpcremote.launch",
    "hpcremote.controller",
    "hpcremote.engine",
    "hpcremote.cli",
)


def loaded_by(code: str) -> set[str]:
    """Run *code* in a fresh interpreter and return the modules that it has loaded then."""
    script = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*set(sys.modules) - before)"
    command = [sys.executable, "-c", script]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split())


def heavy_in(modules: set[str]) -> list[str]:
    return sorted(name for name in modules if f"{name}.".startswith(tuple(f"{heavy}." for heavy in HEAVY)))


def test_the_package_is_light() -> None:
    loaded = loaded_by("import hpcremote")
    assert "hpcremote" in loaded
    assert heavy_in(loaded) == []


def test_the_client_is_light() -> None:
    loaded = loaded_by("import hpcremote; hpcremote.Client")
    assert "hpcremote.client" in loaded
    assert [name for name in heavy_in(loaded) if not name.startswith("yaml")] == []


def test_the_check_sees_what_it_should() -> None:
    assert "asyncio" in heavy_in(loaded_by("import asyncio"))
