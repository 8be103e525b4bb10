"""What a view's calls have as ``hpcremote.comm()``, as far as that can be told without asking the engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcremote.errors import EngineError, HPCRemoteError, spans
from hpcremote.wire.messages import EngineInfo


@dataclass(frozen=True)
class CommInfo:
    """The communicator of a view.

    Attributes:
        ids: the engines in view order: engine ``ids[i]`` is rank i in it.
        ranks: their ranks in COMM_WORLD.
        set_id: their engine set.
        whole: whether they are the whole set in order of its ranks.
        mpi: the MPI library.
    """

    ids: tuple[int, ...]
    ranks: tuple[int, ...]
    set_id: str
    whole: bool
    mpi: str

    @property
    def size(self) -> int:
        """How many ranks it has."""
        return len(self.ids)


def base_of(info: EngineInfo) -> int:
    """Return the lowest id of an engine's set."""
    return info.id - max(info.rank, 0)


def comm_of(ids: Sequence[int], engines: Mapping[int, EngineInfo]) -> CommInfo:
    """Describe the communicator over *ids*.

    Raises:
        HPCRemoteError: they are of two sets, or are not MPI ranks, so there is none.
    """
    infos = []
    for number in ids:
        if number not in engines:
            raise EngineError(f"there is no engine {number} (any more)", engine_id=number)
        infos.append(engines[number])
    sets: dict[str, list[int]] = {}
    for info in infos:
        sets.setdefault(info.set_id, []).append(info.id)
    without = [info.id for info in infos if not info.mpi]
    if without:
        said = spans(sorted(without))
        which = f"engine {said} is no MPI rank" if len(without) == 1 else f"engines {said} are no MPI ranks"
        raise HPCRemoteError(
            f"{which}: "
            "there is no communicator. Start engines with MPI (profile mpi, or mpiexec -n 4 hpcremote engine)"
        )
    if len(sets) > 1:
        which = " and ".join(spans(sorted(each)) for each in list(sets.values())[:4])
        raise HPCRemoteError(
            f"this view is over {len(sets)} engine sets, which are separate MPI jobs (engines {which}): no "
            "communicator is over both. Use a view of one of them, such as Client.set(0)"
        )
    ranks = tuple(info.rank for info in infos)
    whole = ranks == tuple(range(infos[0].size))
    return CommInfo(tuple(ids), ranks, infos[0].set_id, whole, infos[0].mpi.partition("\n")[0])
