"""One worker script run from start to end: bounded in time, and nothing of it left behind.

A session starts its own engines, measures, and stops them, so peers are never on the machine
together; ``run.py`` lets them take turns.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PEERS = Path(__file__).parent / "peers"
ROOT = Path(__file__).parent.parent
DEADLINE = 300.0
GRACE = 3.0
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Session:
    """What to start: a script, with how many engines. ``peer`` names the environment ('' is this one)."""

    name: str
    script: str
    n: int = 4
    peer: str = ""
    flags: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ()


SESSIONS = (
    Session("floor", "floor.py"),
    Session("hpcremote", "hpcremote_engines.py"),
    Session("hpcremote-tcp", "hpcremote_engines.py", flags=("--tcp",)),
    Session("hpcremote-8", "hpcremote_engines.py", n=8),
    Session("hpcremote-tcp-8", "hpcremote_engines.py", n=8, flags=("--tcp",)),
    Session("bare", "bare_mpi.py"),
    Session("hpcremote-16", "hpcremote_engines.py", n=16),
    Session("imports", "imports.py"),
    Session("ipyparallel", "ipyparallel_engines.py", peer="ipyparallel"),
    Session("ipyparallel-16", "ipyparallel_engines.py", n=16, peer="ipyparallel"),
    Session("dask", "dask_workers.py", peer="dask"),
    Session(
        "futures",
        "mpi4py_futures.py",
        peer="futures",
        launcher=("mpiexec", "-n", "5"),
        flags=("-m", "mpi4py.futures"),
    ),
)


@dataclass
class Outcome:
    """What a session said: samples by metric, versions, and a sentence if it went wrong."""

    samples: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    trouble: str = ""


def adopt_orphans() -> None:
    """Have processes whose parent ended become children of this one (Linux), so that none can get away."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def run(session: Session, python: Path, metrics: list[str], quick: bool) -> Outcome:
    """Run one session and gather what it printed."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        said, complained = Path(folder, "stdout"), Path(folder, "stderr")
        with said.open("wb") as stdout, complained.open("wb") as stderr:
            process = subprocess.Popen(
                _words(session, python, metrics, quick),
                cwd=folder,
                env=_environment(python, folder),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
            )
            trouble = _finish(process)
        outcome = _read(said.read_text(errors="replace"))
        if trouble:
            lines = [line for line in complained.read_text(errors="replace").splitlines() if line.strip()]
            outcome.trouble = "\n    ".join([f"{session.name}: {trouble}", *lines[-12:]])
        return outcome


def _words(session: Session, python: Path, metrics: list[str], quick: bool) -> list[str]:
    """The command line of a session."""
    script = str(PEERS / session.script)
    options = ["--n", str(session.n), "--metrics", ",".join(metrics), *(["--quick"] if quick else [])]
    if session.launcher:
        return [*session.launcher, str(python), *session.flags, script, *options]
    return [str(python), script, *options, *session.flags]


def _environment(python: Path, folder: str) -> dict[str, str]:
    """Its own mpiexec first, its own home for settings, bytecode caches as users have them."""
    environment = dict(os.environ)
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH"):
        environment.pop(name, None)
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment.get('PATH', '')}"
    environment["IPYTHONDIR"] = str(Path(folder, "ipython"))
    environment["HPCREMOTE_DIR"] = str(Path(folder, "hpcremote"))
    if python == Path(sys.executable):
        environment["PYTHONPATH"] = str(ROOT)
    return environment


def _finish(process: subprocess.Popen[bytes]) -> str:
    """Wait for a session; end what is left of it; say what was wrong."""
    try:
        code = process.wait(DEADLINE)
        trouble = f"ended with exit code {code}" if code else ""
    except subprocess.TimeoutExpired:
        trouble = f"was not done after {DEADLINE:.0f} s"
    finally:
        left = _sweep(process)
    if left and not trouble:
        trouble = f"left processes behind: {', '.join(left)}"
    return trouble


def _sweep(process: subprocess.Popen[bytes]) -> list[str]:
    """Wait a moment for descendants to end by themselves, kill the rest, name them."""
    _, alive = psutil.wait_procs(
        psutil.Process().children(recursive=True), GRACE if process.poll() is not None else 0
    )
    names = []
    for straggler in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            names.append(f"{straggler.name()} ({straggler.pid})")
            straggler.send_signal(signal.SIGKILL)
    psutil.wait_procs(alive, GRACE)
    process.wait(GRACE)
    return names


def _read(text: str) -> Outcome:
    """Take the JSON lines out of whatever else a peer prints."""
    outcome = Outcome()
    for line in text.splitlines():
        if line.startswith('{"metric"'):
            said = json.loads(line)
            outcome.samples[said["metric"]] = {"unit": said["unit"], "samples": said["samples"]}
        elif line.startswith('{"versions"'):
            outcome.versions.update(json.loads(line)["versions"])
    return outcome
