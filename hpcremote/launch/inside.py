"""Are we inside of a batch system's job? Then its nodes are what engines are started on."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcremote import files, profile
from hpcremote.errors import LauncherError
from hpcremote.launch import catalog
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.wire.walltime import ENDS, answer, question

#: How many ranks the job was asked for, as the schedulers call it.
_SLOTS = ("SLURM_NTASKS", "PBS_NP", "NSLOTS", "LSB_DJOB_NUMPROC")
#: The file that has a line for each of them, where no variable has the number: PBS Pro.
_NODES = "PBS_NODEFILE"
#: How long a scheduler may take to say when the job ends, in seconds: engines hear of it later as well.
_PATIENCE = 5.0


class Here(NamedTuple):
    """The job that we are in: which scheduler's, its id, and how many slots it has, as far as is known."""

    scheduler: str
    id: str
    slots: int | None


def job(environ: Mapping[str, str] = os.environ) -> Here | None:
    """Return the job that this process is in, or None."""
    for name in files.available("launchers"):
        try:
            found = catalog.read(name)
        except LauncherError:
            continue  # one that is wrong is told when it is used
        if isinstance(found, Scheduler) and environ.get(found.inside):
            return Here(name, environ[found.inside], _slots(environ))
    return None


def _slots(environ: Mapping[str, str]) -> int | None:
    said = next((environ[key] for key in _SLOTS if environ.get(key, "").isdigit()), None)
    if said is not None:
        return int(said)
    try:
        return len(Path(environ[_NODES]).read_text().split()) or None
    except (KeyError, OSError, UnicodeDecodeError):
        return None  # not that kind of job, or a file that is on the job's first node only


def ends(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variable that tells engines from their first moment on when the job that we are in ends.

    It is empty where nobody can be asked. What the environment has may be of the job that submitted this one.
    """
    words = question(environ)
    if not words:
        return {}
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "timeout": _PATIENCE}
    try:
        said = subprocess.run(words, check=False, text=True, **how).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}  # agents ask later
    left = answer(said)
    return {} if left is None or left < 0 else {ENDS: str(int(time.time() + left))}


def adapt(here: Here, name: str | None, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return profile and settings for engines in the job that we are in.

    Without a profile: ranks by mpiexec. One that would submit a job starts its ranks here instead.
    """
    if name is None:
        return "mpi", dict(settings)
    if profile.load(name, settings).scheduler == "":
        return name, dict(settings)
    return name, {**settings, "scheduler": "", "controller": "here"}
