"""Are we inside of a batch system's job? Then its nodes are what engines are started on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from hpcremote import files, profile
from hpcremote.errors import LauncherError
from hpcremote.launch import catalog
from hpcremote.launch.batch.scheduler import Scheduler

#: How many ranks the job was asked for, as the schedulers call it.
_SLOTS = ("SLURM_NTASKS", "PBS_NP", "NSLOTS", "LSB_DJOB_NUMPROC")


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
            slots = next((environ[key] for key in _SLOTS if environ.get(key, "").isdigit()), None)
            return Here(name, environ[found.inside], int(slots) if slots else None)
    return None


def adapt(here: Here, name: str | None, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return profile and settings for engines in the job that we are in.

    Without a profile: ranks by mpiexec. One that would submit a job starts its ranks here instead.
    """
    if name is None:
        return "mpi", dict(settings)
    if profile.load(name, settings).scheduler == "":
        return name, dict(settings)
    return name, {**settings, "scheduler": "", "controller": "here"}
