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
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcremote._version import __version__
from hpcremote.errors import LaunchError
from hpcremote.ids import new_uid
from hpcremote.wire.messages import Member

if TYPE_CHECKING:
    from hpcremote.engine.comm.lent import Lent
    from hpcremote.engine.comm.side import Side

#: Set by launchers: how many ranks they started.
EXPECT = "HPCREMOTE_EXPECT"
#: What MPI launchers tell their processes: how many they are.
_SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "PALS_SIZE", "MV2_COMM_WORLD_SIZE")

#: Set for processes that were started as ranks, by mpiexec or by srun.
_RANK = (
    "PMI_RANK",
    "PMIX_RANK",
    "OMPI_COMM_WORLD_RANK",
    "PALS_RANKID",
    "MV2_COMM_WORLD_RANK",
    "SLURM_STEP_ID",
)


class Place(NamedTuple):
    """This process' place in its engine set.

    Attributes:
        set_id: of the set.
        rank: ours.
        size: of the set.
        members: all of its ranks; on rank 0.
        crowded: ranks keep each other from running as they wait in MPI. The set has more of them on this host
            than cores (other sets, and limits of containers, are not seen); its MPI library does not yield.
    """

    set_id: str
    rank: int
    size: int
    members: list[Member]
    crowded: bool = False


def alone(uid: str) -> Place:
    """Return the place of an engine without MPI: a set of one."""
    return Place(new_uid(), 0, 1, [_member(uid, 0, "")])


def join_world(uid: str, expect: int | None) -> tuple[Place, Any]:
    """Call MPI_Init and find out our place among the ranks.

    Returns:
        The place, and a duplicate of COMM_WORLD that nobody else uses.

    Raises:
        LaunchError: there is no MPI library; *expect* ranks were started and are not one job; one was lost.
    """
    comm = world(expect)
    try:
        internal = comm.Dup()
        place = place_in(internal, uid)
    except _mpi4py().Exception as error:  # where MPI goes on after a rank has died (ULFM)
        raise LaunchError(
            f"rank {comm.Get_rank()} of {comm.Get_size()}: another rank of the MPI job ended before all had "
            f"registered ({error}). Its own last words are in its output; start the job again"
        ) from None
    return place, internal


def side_of(internal: Any, place: Place, *, replace: bool) -> Side:
    """Return our MPI side; all ranks call this.

    Args:
        internal: what ``join_world`` returned.
        place: the same.
        replace: bind the name MPI.COMM_WORLD to a duplicate in which waiting can be ended.
    """
    from hpcremote.engine.comm import current
    from hpcremote.engine.comm.side import Side
    from hpcremote.engine.comm.world import World

    made = World(internal, replace=replace, crowded=place.crowded)
    current.install(made)
    return Side(made, place.rank, place.size)


def lend(comm: Any, *, crowded: bool) -> tuple[Side, Lent]:
    """Return the MPI side of a program that lends the ranks of *comm*, and its communicators (collective).

    Args:
        comm: the program's.
        crowded: see :class:`Place`.
    """
    from hpcremote.engine.comm.lent import Lent
    from hpcremote.engine.comm.side import Side

    made = Lent(comm.Dup(), crowded=crowded)
    return Side(made, comm.Get_rank(), comm.Get_size()), made


def world(expect: int | None = None) -> Any:
    """Return COMM_WORLD; calls MPI_Init if nobody has.

    Raises:
        LaunchError: there is no MPI library, or *expect* ranks were started and are not one job.
    """
    mpi = _mpi4py()
    _check_size(mpi.COMM_WORLD.Get_size(), expect, _library(mpi))
    return mpi.COMM_WORLD


def place_in(comm: Any, uid: str) -> Place:
    """Return our place among the ranks of *comm*, all of which call this; it has to be for us alone."""
    rank = comm.Get_rank()
    members = comm.gather(me := _member(uid, rank, _library(_mpi4py())), 0) or []
    set_id, crowded = comm.bcast((new_uid(), _crowded(members)) if rank == 0 else None, 0)
    return Place(set_id, rank, comm.Get_size(), _count_by_host(members), me.host in crowded)


def has_begun() -> bool:
    """Say whether this program has called MPI_Init, and not MPI_Finalize."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized()


def started_as_rank() -> bool:
    """Say whether this process was started as a rank, by mpiexec or by srun (HPCREMOTE_MPI overrules)."""
    if told := os.environ.get("HPCREMOTE_MPI"):
        return told != "0"
    return EXPECT in os.environ or any(name in os.environ for name in _RANK)


def _mpi4py() -> Any:
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise LaunchError(
            f"mpi4py: {_why(error)}. Load the site's MPI module, or "
            "`pip install 'hpcremote[mpich]'`; engines without MPI: `--profile local`"
        ) from None
    return MPI


def _why(error: Exception) -> str:
    """Return mpi4py's words without the names of files that are not there."""
    first, *tried = str(error).splitlines() or [type(error).__name__]
    return "; ".join([first, *(line for line in tried if not line.endswith("No such file or directory"))])


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


def _member(uid: str, rank: int, mpi: str) -> Member:
    """Return what this process is; nodes may differ in all of it."""
    return Member(
        uid=uid,
        rank=rank,
        host=socket.gethostname(),
        pid=os.getpid(),
        python=".".join(map(str, sys.version_info[:3])),
        version=__version__,
        mpi=mpi,
        cores=_cores(),
    )


def _count_by_host(members: list[Member]) -> list[Member]:
    """Give *members*, which are in order of their ranks, the numbers that they have on their hosts."""
    on_host: Counter[str] = Counter()
    for member in members:
        member.local_rank = on_host[member.host]
        on_host[member.host] += 1
    return members


def _crowded(members: list[Member]) -> set[str]:
    """Return the hosts that have more of these ranks than cores for them. Open MPI yields there of itself."""
    ranks = Counter(member.host for member in members if not member.mpi.startswith("Open MPI"))
    cores: dict[str, set[int]] = {host: set() for host in ranks}
    for host, spans in {(member.host, member.cores) for member in members if member.host in ranks}:
        for first, _, last in (span.partition("-") for span in spans.split(",") if span):
            cores[host].update(range(int(first), int(last or first) + 1))
    return {host for host, count in ranks.items() if 0 < len(cores[host]) < count}


def _cores() -> str:
    """Return the cores this process may run on, as ranges ("0-3,8")."""
    spans: list[list[int]] = []
    for core in sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ():
        if spans and core == spans[-1][1] + 1:
            spans[-1][1] = core
        else:
            spans.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
