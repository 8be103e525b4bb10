"""What a collective costs where ranks share cores: ``mpiexec -n 4 python benchmarks/sharing.py`` on two.

Times are of one operation in milliseconds, the median of many: ``plain`` is mpi4py's, ``in MPI`` that of
``hpcremote.comm()`` as it waits at one rank a core, in ``MPI_Waitany``, and ``ours`` as it waits where
an engine finds more ranks than cores on its host, by polling. The kinds take turns.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))

from hpcremote.engine.comm.world import World

ROUNDS = 15
TIMES = 10


def operations(comm: Any) -> dict[str, Callable[[], Any]]:
    """Return what is measured, on one communicator."""
    tiny, other = np.ones(1), np.ones(1)
    large, many = np.ones(1 << 17), np.ones(1 << 17)
    return {
        "Barrier": comm.Barrier,
        "Allreduce 8 B": lambda: comm.Allreduce(tiny, other),
        "Allreduce 1 MiB": lambda: comm.Allreduce(large, many),
        "Alltoall 1 MiB": lambda: comm.Alltoall(large, many),
        "allreduce(1)": lambda: comm.allreduce(1),
    }


def main() -> None:
    plain = MPI.COMM_WORLD.Dup()
    worlds = [World(MPI.COMM_WORLD.Dup(), replace=False, crowded=crowded) for crowded in (False, True)]
    for world in worlds:
        world.begin(1, tuple(range(plain.size)))
    kinds = [operations(comm) for comm in (plain, *(world.comm() for world in worlds))]
    if plain.rank == 0:
        print(MPI.Get_library_version().splitlines()[0].replace("\0", ""), f"{plain.size} ranks")
        print(f"{'operation':<16} {'plain':>8} {'in MPI':>8} {'ours':>8}")
    for name in kinds[0]:
        found: list[list[float]] = [[] for _ in kinds]
        for _ in range(ROUNDS):
            for times, kind in zip(found, kinds, strict=True):
                plain.Barrier()
                begun = time.perf_counter()
                for _ in range(TIMES):
                    kind[name]()
                times.append((time.perf_counter() - begun) / TIMES * 1e3)
        if plain.rank == 0:
            print(f"{name:<16}", *(f"{statistics.median(times):8.2f}" for times in found), flush=True)


if __name__ == "__main__":
    main()
