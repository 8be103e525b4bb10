"""What it costs that blocking MPI operations can be left: interruptible against plain mpi4py.

    mpiexec -n 2 python benchmarks/interruptible.py [bytes ...]

Times are of one operation in microseconds, the best of many rounds, the kinds in turn: ``plain`` is
mpi4py's operation, ``ours`` that of ``hpcremote.comm()``, and ``floor`` its non-blocking form and ``Wait``
with plain mpi4py, which is what MPI itself asks for an operation that can be left (for objects: that, and
the pickling, written by hand). The aim is ours at most 1.3 times plain over 64 KiB, and 2 times for tiny
messages at one rank a core.
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

from hpcremote.engine.comm.base import Base
from hpcremote.engine.comm.requests import Request
from hpcremote.engine.comm.world import World

ROUNDS = 30
SIZES = (8, 1024, 65536, 1 << 20, 8 << 20)
HEAD = 256  # of an object that is sent by hand
Works = dict[str, Callable[[], Any]]


def clock(plain: Any, work: Callable[[], Any], times: int) -> float:
    plain.Barrier()
    begun = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - begun) / times * 1e6


def pings(rank: int, send: Callable[[], Any], receive: Callable[[], Any]) -> Callable[[], None]:
    """There and back, between this rank and its neighbour."""

    def ping() -> None:
        if rank % 2:
            receive()
            send()
        else:
            send()
            receive()

    return ping


def arrays(comm: Any, size: int) -> Works:
    a, b = np.ones(size // 8), np.empty(size // 8)
    whole = np.empty(size // 8 * comm.size)
    peer = comm.rank ^ 1
    kind = Request if isinstance(comm, Base) else MPI.Request
    return {
        "Send+Recv": pings(comm.rank, lambda: comm.Send(a, peer), lambda: comm.Recv(b, peer)),
        "Isend+Irecv": pings(
            comm.rank, lambda: comm.Isend(a, peer).Wait(), lambda: comm.Irecv(b, peer).Wait()
        ),
        "Waitall": lambda: kind.Waitall([comm.Irecv(b, peer), comm.Isend(a, peer)]),
        "Sendrecv": lambda: comm.Sendrecv(a, peer, 0, b, peer),
        "Bcast": lambda: comm.Bcast(a),
        "Allreduce": lambda: comm.Allreduce(a, b),
        "Reduce": lambda: comm.Reduce(a, b),
        "Allgather": lambda: comm.Allgather(a, whole),
        "Scatter": lambda: comm.Scatter(whole, b),
        "Gather": lambda: comm.Gather(a, whole),
        **({"Barrier": comm.Barrier} if size == min(SIZES) else {}),
    }


def arrays_at_least(comm: Any, size: int) -> Works:
    a, b = np.ones(size // 8), np.empty(size // 8)
    whole = np.empty(size // 8 * comm.size)
    peer = comm.rank ^ 1
    return {
        "Send+Recv": pings(comm.rank, lambda: comm.Isend(a, peer).Wait(), lambda: comm.Irecv(b, peer).Wait()),
        "Bcast": lambda: comm.Ibcast(a).Wait(),
        "Allreduce": lambda: comm.Iallreduce(a, b).Wait(),
        "Reduce": lambda: comm.Ireduce(a, b).Wait(),
        "Allgather": lambda: comm.Iallgather(a, whole).Wait(),
        "Scatter": lambda: comm.Iscatter(whole, b).Wait(),
        "Gather": lambda: comm.Igather(a, whole).Wait(),
        "Barrier": lambda: comm.Ibarrier().Wait(),
    }


def first(one: Any, _other: Any) -> Any:
    return one


def objects(comm: Any, size: int) -> Works:
    value = bytes(size)
    peer = comm.rank ^ 1
    return {
        "send+recv": pings(comm.rank, lambda: comm.send(value, peer), lambda: comm.recv(source=peer)),
        "isend+irecv": pings(
            comm.rank, lambda: comm.isend(value, peer).wait(), lambda: comm.irecv(size + 64, peer).wait()
        ),
        "sendrecv": lambda: comm.sendrecv(value, peer, source=peer),
        "bcast": lambda: comm.bcast(value),
        "gather": lambda: comm.gather(value),
        "scatter": lambda: comm.scatter([value] * comm.size),
        "allgather": lambda: comm.allgather(value),
        "allreduce": lambda: comm.allreduce(value, op=first),
    }


def objects_at_least(comm: Any, size: int) -> Works:
    if size > HEAD // 2:
        return {}
    value = bytes(size)
    dumps, loads = MPI.pickle.dumps, MPI.pickle.loads
    head, heads = bytearray(HEAD), bytearray(HEAD * comm.size)
    parts = [memoryview(heads)[i * HEAD : (i + 1) * HEAD] for i in range(comm.size)]
    for part in (memoryview(head), *parts):
        part[: len(dumps(value))] = dumps(value)
    root = comm.rank == 0

    def bcast() -> None:
        if root:
            dumps(value)
        comm.Ibcast(head).Wait()
        loads(head)

    def gather() -> None:
        dumps(value)
        comm.Igather(head, heads).Wait()
        if root:
            list(map(loads, parts))

    def scatter() -> None:
        if root:
            [dumps(value) for _ in parts]
        comm.Iscatter(heads, head).Wait()
        loads(head)

    def allgather() -> None:
        dumps(value)
        comm.Iallgather(head, heads).Wait()
        list(map(loads, parts))

    return {"bcast": bcast, "gather": gather, "scatter": scatter, "allgather": allgather}


def compare(
    plain: Any, ours: Any, sizes: tuple[int, ...], kinds: Callable[[Any, int], Works], least: Any
) -> None:
    for size in sizes:
        times = 500 if size <= 1024 else 100 if size <= 65536 else 5
        mine, floors = kinds(ours, size), least(plain, size)
        for name, work in kinds(plain, size).items():
            works = [work, mine[name], *([floors[name]] if name in floors else [])]
            rounds = [[clock(plain, one, times) for one in works] for _ in range(ROUNDS)]
            found = [plain.allreduce(min(column), MPI.MAX) for column in zip(*rounds, strict=True)]
            if plain.rank == 0:
                show(size, name, *found)


def show(size: int, name: str, plain: float, ours: float, floor: float | None = None) -> None:
    least = "" if floor is None else f"{floor:.2f}"
    print(f"{size:>9} {name:<12} {plain:>10.2f} {least:>10} {ours:>10.2f} {ours / plain:>7.2f}", flush=True)


def main() -> None:
    sizes = tuple(map(int, sys.argv[1:])) or SIZES
    plain = MPI.COMM_WORLD.Dup()
    if plain.size % 2:
        sys.exit("an even number of ranks, please: they play ping-pong")
    world = World(MPI.COMM_WORLD.Dup(), replace=False)
    world.begin(1, tuple(range(plain.size)))
    if plain.rank == 0:
        print(MPI.Get_library_version().splitlines()[0].replace("\0", ""), f"{plain.size} ranks")
        print(
            f"{'bytes':>9} {'operation':<12} {'plain us':>10} {'floor us':>10} {'ours us':>10} {'ratio':>7}"
        )
    compare(plain, world.comm(), sizes, arrays, arrays_at_least)
    compare(plain, world.comm(), sizes, objects, objects_at_least)
    begun = time.perf_counter()
    for seq in range(10_000):
        world.begin(seq, (0, 1))
    if plain.rank == 0:
        print(f"begin(): {(time.perf_counter() - begun) / 10_000 * 1e6:.2f} us")


if __name__ == "__main__":
    main()
