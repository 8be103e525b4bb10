"""MPI for the engine: who am I, who is with me. The only module that imports mpi4py.

Importing mpi4py.MPI calls MPI_Init, in the main thread, with the highest thread level. COMM_WORLD
belongs to the user: what the engine has to say to the other ranks at the start goes through a
duplicate.
"""

from __future__ import annotations

import os
import socket
import sys
from collections import Counter
from typing import Any, NamedTuple

from hpcremote._version import __version__
from hpcremote.errors import LaunchError
from hpcremote.ids import new_uid
from hpcremote.wire.messages import Member

#: Set by launchers: how many ranks they started.
EXPECT = "HPCREMOTE_EXPECT"
#: What MPI launchers tell their processes: how many they are.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PALS_SIZE", "MV2_COMM_WORLD_SIZE")


class Place(NamedTuple):
    """This process' place in its engine set. ``members`` is filled on rank 0."""

    set_id: str
    rank: int
    size: int
    members: list[Member]


def alone(uid: str) -> Place:
    """Return the place of an engine without MPI: a set of one."""
    return Place(new_uid(), 0, 1, [_member(uid, 0, "")])


def join_world(uid: str, expect: int | None) -> Place:
    """Call MPI_Init and find out our place among the ranks.

    Raises:
        LaunchError: there is no MPI library, or *expect* ranks were started and are not one job.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"mpi4py cannot load an MPI library: {error}. Load the site's MPI module, or "
            "`pip install 'hpcremote[mpich]'`; engines without MPI: `--profile local`"
        ) from None
    world = MPI.COMM_WORLD
    rank, size = world.Get_rank(), world.Get_size()
    library = _library(MPI)
    _check_size(size, expect, library)
    internal = world.Dup()
    set_id = internal.bcast(new_uid() if rank == 0 else None, 0)
    rows = internal.gather(_row(uid, rank, library), 0)
    internal.Free()
    return Place(set_id, rank, size, _members(rows) if rows else [])


def _check_size(size: int, expect: int | None, library: str) -> None:
    if expect is None:
        expect = next((int(os.environ[name]) for name in _SIZES if os.environ.get(name, "").isdigit()), size)
    if expect == size:
        return
    raise LaunchError(
        f"{expect} ranks were started, but MPI sees {size}: the mpiexec that started this process does not "
        f"belong to the MPI library that mpi4py loaded ({library}). Set `mpiexec:` in the profile to that "
        f"library's own, or make mpi4py load the other library (`module load`, MPI4PY_LIBMPI)"
    )


def _library(mpi: Any) -> str:
    first = str(mpi.Get_library_version()).replace("\0", "").strip().splitlines()[0]
    return (
        " ".join(first.replace("\t", " ").split()).replace("MPICH Version: ", "MPICH ").split(", package")[0]
    )


def _row(uid: str, rank: int, library: str) -> tuple[Any, ...]:
    return (uid, rank, socket.gethostname(), os.getpid(), library, _cores())


def _members(rows: list[tuple[Any, ...]]) -> list[Member]:
    on_host: Counter[str] = Counter()
    members = []
    for uid, rank, host, pid, library, cores in rows:
        members.append(_member(uid, rank, library, host=host, pid=pid, local_rank=on_host[host], cores=cores))
        on_host[host] += 1
    return members


def _member(
    uid: str, rank: int, mpi: str, *, host: str = "", pid: int = 0, local_rank: int = 0, cores: str = ""
) -> Member:
    return Member(
        uid=uid,
        rank=rank,
        host=host or socket.gethostname(),
        pid=pid or os.getpid(),
        local_rank=local_rank,
        python=".".join(map(str, sys.version_info[:3])),
        version=__version__,
        mpi=mpi,
        cores=cores or _cores(),
    )


def _cores() -> str:
    """Return the cores this process may run on, as ranges ("0-3,8")."""
    spans: list[list[int]] = []
    for core in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ():
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
