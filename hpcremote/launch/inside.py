"""Are we inside of a batch system's job? Then its nodes are what engines are started on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hpcremote import files, profile
from hpcremote.errors import LauncherError
from hpcremote.launch import catalog
from hpcremote.launch.batch.scheduler import Scheduler

#: How many ranks the job was asked for, as the schedulers call it.
_SLOTS = ("SLURM_NTASKS", "PBS_NP", "NSLOTS", "LSB_DJOB_NUMPROC")
#: The file that has a line for each of them, where no variable has the number: PBS Pro.
_NODES = "PBS_NODEFILE"


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


def adapt(here: Here, name: str | None, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return profile and settings for engines in the job that we are in.

    Without a profile: ranks by mpiexec. One that would submit a job starts its ranks here instead.
    """
    if name is None:
        return "mpi", dict(settings)
    if profile.load(name, settings).scheduler == "":
        return name, dict(settings)
    return name, {**settings, "scheduler": "", "controller": "here"}
