"""What it costs that blocking MPI operations can be left: interruptible against plain mpi4py.

    mpiexec -n 2 python benchmarks/interruptible.py

Times are of one operation in microseconds, the best of several rounds, the two kinds in turn; the aim is a
ratio of at most 1.3 over 64 KiB, and 2 for tiny messages at one rank a core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

sys.path.insert(0, str(Path(__file__).parents[1]))

from hpcremote.engine.comm.world import World

ROUNDS = 9
SIZES = (8, 1024, 65536, 1 << 20, 8 << 20)


def clock(plain: Any, work: Callable[[], Any], times: int) -> float:
    plain.Barrier()
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times * 1e6


def arrays(comm: Any, size: int) -> dict[str, Callable[[], Any]]:
    a, b = np.ones(size // 8), np.empty(size // 8)
    whole = np.empty(size // 8 * comm.size)
    peer = comm.rank ^ 1

    def ping() -> None:
        if peer >= comm.size:
            return
        if comm.rank % 2 == 0:
            comm.Send(a, peer)
            comm.Recv(b, peer)
        else:
            comm.Recv(b, peer)
            comm.Send(a, peer)

    return {
        "Send+Recv": ping,
        "Bcast": lambda: comm.Bcast(a),
        "Allreduce": lambda: comm.Allreduce(a, b),
        "Reduce": lambda: comm.Reduce(a, b),
        "Allgather": lambda: comm.Allgather(a, whole),
        "Scatter": lambda: comm.Scatter(whole, b),
        **({"Barrier": comm.Barrier} if size == min(SIZES) else {}),
    }


def objects(comm: Any, size: int) -> dict[str, Callable[[], Any]]:
    value = bytes(size)
    peer = comm.rank ^ 1

    def ping() -> None:
        if peer >= comm.size:
            return
        if comm.rank % 2 == 0:
            comm.send(value, peer)
            comm.recv(source=peer)
        else:
            comm.recv(source=peer)
            comm.send(value, peer)

    def first(one: Any, _other: Any) -> Any:
        return one

    return {
        "send+recv": ping,
        "bcast": lambda: comm.bcast(value),
        "gather": lambda: comm.gather(value),
        "scatter": lambda: comm.scatter([value] * comm.size),
        "allgather": lambda: comm.allgather(value),
        "allreduce": lambda: comm.allreduce(value, op=first),
    }


def compare(plain: Any, ours: Any, kinds: Callable[[Any, int], dict[str, Callable[[], Any]]]) -> None:
    for size in SIZES:
        times = 2000 if size <= 1024 else 200 if size <= 65536 else 20
        mine = kinds(ours, size)
        for name, work in kinds(plain, size).items():
            rounds = [(clock(plain, work, times), clock(plain, mine[name], times)) for _ in range(ROUNDS)]
            a, b = (min(column) for column in zip(*rounds, strict=True))
            a, b = plain.allreduce(a, MPI.MAX), plain.allreduce(b, MPI.MAX)
            if plain.rank == 0:
                print(f"{size:>9} {name:<12} {a:>10.2f} {b:>10.2f} {b / a:>7.2f}", flush=True)


def main() -> None:
    plain = MPI.COMM_WORLD.Dup()
    world = World(MPI.COMM_WORLD.Dup(), replace=False)
    world.begin(1, tuple(range(plain.size)))
    if plain.rank == 0:
        print(MPI.Get_library_version().splitlines()[0].replace("\0", ""), f"{plain.size} ranks")
        print(f"{'bytes':>9} {'operation':<12} {'plain us':>10} {'ours us':>10} {'ratio':>7}")
    compare(plain, world.comm(), arrays)
    compare(plain, world.comm(), objects)
    begun = time.perf_counter()
    for seq in range(10_000):
        world.begin(seq, (0, 1))
    if plain.rank == 0:
        print(f"begin(): {(time.perf_counter() - begun) / 10_000 * 1e6:.2f} us")


if __name__ == "__main__":
    main()
