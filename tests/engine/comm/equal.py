"""Every operation gives what plain mpi4py's gives: ``mpiexec -n N python equal.py equal``."""

from __future__ import annotations

import operator
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcremote.engine.comm.world import World
from hpcremote.wire.messages import OWN_COMM, WORLD

PLAIN = MPI.COMM_WORLD.Dup()
RANK, SIZE = PLAIN.rank, PLAIN.size
SUM = list(range(1, SIZE + 1))
DISPLACEMENTS = [sum(SUM[:i]) for i in range(SIZE)]

Operation = Callable[[Any], Any]


def block(seed: int, n: int, dtype: str = "d") -> Any:
    """The same random numbers on every run, others on every rank."""
    return (np.random.default_rng(1000 * seed + RANK).random(n) * 100).astype(dtype)


def into(n: int, dtype: str, work: Callable[[Any], Any]) -> Any:
    """Return what *work* left in an array."""
    array = np.full(n, 7, dtype)
    work(array)
    return array


def typed(dtype: str, root: int) -> dict[str, Operation]:
    """Uppercase collectives on one dtype."""
    one, many = block(1, 5, dtype), block(2, 5 * SIZE, dtype)
    return {
        "Bcast": lambda c: into(5, dtype, lambda b: (np.copyto(b, one), c.Bcast(b, root=root))),
        "Gather": lambda c: into(5 * SIZE, dtype, lambda b: c.Gather(one, b if root == RANK else None, root)),
        "Scatter": lambda c: into(5, dtype, lambda b: c.Scatter(many if root == RANK else None, b, root)),
        "Allgather": lambda c: into(5 * SIZE, dtype, lambda b: c.Allgather(one, b)),
        "Alltoall": lambda c: into(5 * SIZE, dtype, lambda b: c.Alltoall(many, b)),
    }


def reductions(root: int) -> dict[str, Operation]:
    # Whole numbers: in which order an MPI library adds is its own affair, and Open MPI's non-blocking
    # operations add in another order than its blocking ones.
    one, many = np.floor(block(3, 6)), np.floor(block(4, 2 * SIZE))
    return {
        "Reduce": lambda c: into(6, "d", lambda b: c.Reduce(one, b if root == RANK else None, MPI.MAX, root)),
        "Reduce sum": lambda c: into(6, "d", lambda b: c.Reduce(one, b, root=root)),
        "Allreduce": lambda c: into(6, "d", lambda b: c.Allreduce(one, b, op=MPI.PROD)),
        "Allreduce in place": lambda c: into(6, "d", lambda b: c.Allreduce(MPI.IN_PLACE, b)),
        "Reduce in place": lambda c: into(
            6,
            "d",
            lambda b: c.Reduce(*((MPI.IN_PLACE, b) if root == RANK else (b, None)), root=root),
        ),
        "Scan": lambda c: into(6, "d", lambda b: c.Scan(one, b)),
        "Exscan": lambda c: into(6, "d", lambda b: c.Exscan(one, b, MPI.MIN)),
        "Reduce_scatter_block": lambda c: into(2, "d", lambda b: c.Reduce_scatter_block(many, b)),
        "Reduce_scatter": lambda c: into(
            RANK + 1, "d", lambda b: c.Reduce_scatter(np.floor(block(5, sum(SUM))), b, recvcounts=SUM)
        ),
    }  # fmt: skip


def uneven(root: int) -> dict[str, Operation]:
    total = sum(SUM)
    mine, everything = block(6, RANK + 1), block(7, total)
    spec = [SUM, DISPLACEMENTS, MPI.DOUBLE]
    square = [[RANK + 1] * SIZE, [i * (RANK + 1) for i in range(SIZE)], MPI.DOUBLE]
    byte = [1] * SIZE, list(range(SIZE)), [MPI.BYTE] * SIZE
    return {
        "Gatherv": lambda c: into(
            total, "d", lambda b: c.Gatherv(mine, [b, *spec] if root == RANK else None, root=root)
        ),
        "Scatterv": lambda c: into(
            RANK + 1, "d", lambda b: c.Scatterv([everything, *spec] if root == RANK else None, b, root=root)
        ),
        "Allgatherv": lambda c: into(total, "d", lambda b: c.Allgatherv(mine, [b, *spec])),
        "Alltoallv": lambda c: into(
            total, "d", lambda b: c.Alltoallv([block(8, SIZE * (RANK + 1)), *square], [b, *spec])
        ),
        "Alltoallw": lambda c: into(
            SIZE, "B", lambda b: c.Alltoallw([block(9, SIZE, "B"), *byte], [b, *byte])
        ),
    }


def objects(root: int) -> dict[str, Operation]:
    values: list[Any] = [None, RANK, "x" * (400 * RANK), {"a": block(10, 1000)}, b""]
    made: dict[str, Operation] = {}
    for i, value in enumerate(values):
        row = [(value, i, RANK, dest) for dest in range(SIZE)]
        made |= {
            f"bcast {i}": lambda c, v=value: c.bcast(v if root == RANK else None, root),
            f"gather {i}": lambda c, v=value: c.gather(v, root),
            f"scatter {i}": lambda c, r=row: c.scatter(r if root == RANK else None, root),
            f"allgather {i}": lambda c, v=value: c.allgather(v),
            f"alltoall {i}": lambda c, r=row: c.alltoall(r),
        }
    return made


def longer(a: Any, b: Any) -> Any:
    """Not commutative, not even associative."""
    return f"({a}{b})"


def in_place(a: Any, b: Any) -> Any:
    a += b
    return a


def folds(root: int) -> dict[str, Operation]:
    value = float(block(11, 1)[0])
    operators: list[Any] = [MPI.SUM, MPI.MAX, operator.add, lambda a, b: a * b - a]
    made: dict[str, Operation] = {
        "reduce default": lambda c: c.reduce(value, root=root),
        "allreduce default": lambda c: c.allreduce([RANK]),
        "allreduce maxloc": lambda c: c.allreduce((value, RANK), op=MPI.MAXLOC),
        "allreduce order": lambda c: c.allreduce(str(RANK), op=longer),
        "allreduce big": lambda c: c.allreduce(block(12, 5000)),
        "reduce big": lambda c: c.reduce(block(12, 5000), root=root),
        "scan big": lambda c: c.scan("x" * 300 + str(RANK)),
        "reduce in place": lambda c: c.reduce([RANK], op=in_place, root=root),
    }
    for i, op in enumerate(operators):
        made |= {
            f"reduce {i}": lambda c, o=op: c.reduce(value, o, root),
            f"allreduce {i}": lambda c, o=op: c.allreduce(value, o),
            f"scan {i}": lambda c, o=op: c.scan(value, o),
            f"exscan {i}": lambda c, o=op: c.exscan(value, o),
        }
    return made | {"scan order": lambda c: c.scan(str(RANK)), "exscan order": lambda c: c.exscan(str(RANK))}


def seen(status: Any) -> tuple[int, ...]:
    return (status.source, status.tag, status.Get_count(MPI.BYTE), status.error)


def requests() -> dict[str, Operation]:  # noqa: C901
    """Waiting for requests in every way that there is."""
    right, left = (RANK + 1) % SIZE, (RANK - 1) % SIZE

    def all_of(c: Any, name: str) -> Any:
        statuses: list[MPI.Status] = []
        got = np.zeros(9)
        made = [c.Irecv(got, left, 1), MPI.REQUEST_NULL, c.Isend(block(20, 9), right, 1)]
        return (
            getattr(MPI.Request, name)(made, statuses),
            got,
            seen(statuses[0]),
            len(statuses),
            made[0] == made[1],
        )

    def objects_of(c: Any, name: str) -> Any:
        made = [c.isend([RANK] * 9, right, 2), c.irecv(source=left, tag=2)]
        return getattr(MPI.Request, name)(made)

    def one_by_one(c: Any, name: str) -> Any:
        status, found = MPI.Status(), []
        made = [c.irecv(source=left, tag=tag) for tag in (3, 4)]
        for tag in (4, 3):
            request = c.isend(f"{tag} of {RANK}", right, tag)
            found.append((getattr(MPI.Request, name)(made, status), status.Get_tag()))
            request.wait()
        return sorted(found), getattr(MPI.Request, name)(made)

    def some(c: Any, name: str) -> Any:
        statuses, got = [MPI.Status()], np.zeros(3)
        made = [c.Irecv(np.zeros(3), left, 6), c.Irecv(got, left, 5)]
        request = c.Isend(block(21, 3), right, 5)
        found = getattr(MPI.Request, name)(made, statuses), got, statuses[0].Get_tag()
        request.Wait()
        c.Barrier()
        c.Send(got, right, 6)
        made[0].Wait()
        return found, getattr(MPI.Request, name)(made)

    def persistent(c: Any) -> Any:
        got, sums = np.zeros(4), []
        made = [c.Recv_init(got, left, 8), c.Send_init(block(22, 4), right, 8)]
        for _ in range(3):
            MPI.Prequest.Startall(made)
            MPI.Request.Waitall(made)
            sums.append(got.copy())
            made[0].Start(), made[1].Start()
            made[1].Wait(), made[0].wait(), made[0].Wait()
        return sums, [request.Free() for request in made], isinstance(made[0], MPI.Prequest)

    def collective(c: Any) -> Any:
        total = np.zeros(3)
        c.Iallreduce(np.floor(block(23, 3)), total).Wait()
        made = [c.Ibarrier(), c.Ibcast(got := block(24, 3), 0)]
        return total, MPI.Request.Waitall(made), got, isinstance(made[0], MPI.Request)

    def again(c: Any) -> Any:
        request = c.isend(RANK, right, 7)
        asked = c.irecv(source=left, tag=7)
        found = asked.wait(), asked.wait(), asked.Wait(), asked.test(), bool(asked), request.wait()
        return found, MPI.Request.Waitall([]), MPI.Request.Waitany([asked]), MPI.Request.Waitsome([asked])

    def collective_again(c: Any) -> Any:
        total, found = np.zeros(3), []
        request = c.Allreduce_init(np.floor(block(25, 3)), total)
        for _ in range(3):
            request.Start()
            request.Wait()
            found.append(total.copy())
        return found, request.Free(), c.Barrier_init().Free()

    checks: dict[str, Operation] = {
        "persistent": persistent,
        "again and again": collective_again,
        "non-blocking": collective,
        "again": again,
    }
    for name in ("Waitall", "Waitany", "Waitsome"):
        work = {"Waitall": all_of, "Waitany": one_by_one, "Waitsome": some}[name]
        for called in (name, name.lower()):
            checks[called] = lambda c, work=work, called=called: work(c, called)
    return checks | {"objects": lambda c: objects_of(c, "waitall")}


def neighbours() -> dict[str, Operation]:
    def of(made: Any) -> Any:
        got = [np.zeros(2), np.zeros(2)]
        made.Neighbor_allgather(block(30, 1), got[0])
        made.Neighbor_alltoallv([got[0], [1, 1]], [got[1], [1, 1]])
        request = made.Ineighbor_allgather(block(32, 1), more := np.zeros(2))
        request.Wait()
        found = got, more, made.neighbor_allgather(RANK), made.neighbor_alltoall([RANK, "x"]), made.topology
        made.Free()
        return found

    def to_each(made: Any) -> Any:
        ins, outs = len(made.inedges), len(made.outedges)
        small = [(RANK, slot) for slot in range(outs)]
        mixed = [[RANK, slot, "x" * 5000 * (slot + RANK)] for slot in range(outs)]
        found = [made.neighbor_allgather(one) for one in (RANK, "y" * 3000 * RANK, None)]
        found += [made.neighbor_alltoall(several) for several in (small, mixed)]
        found += [outcome(lambda made: made.neighbor_alltoall([1] * (outs + 1)), made)]
        if made.topology == MPI.CART:  # Open MPI's own have errors in some graphs
            made.Neighbor_alltoall(block(31, outs), numbers := np.zeros(ins))
            found.append(numbers)
        made.Free()
        return found

    right, left = (RANK + 1) % SIZE, (RANK - 1) % SIZE
    one, others = RANK == 0, list(range(1, SIZE))
    spokes = list(range(SIZE - 1, 2 * SIZE - 1)), [*others, *[0] * (SIZE - 1)]
    checks: dict[str, Operation] = {
        "edges": lambda c: to_each(c.Create_cart([SIZE], [False])),
        "ring": lambda c: to_each(c.Create_cart([SIZE], [True])),
        "both ways": lambda c: to_each(c.Create_cart([1, SIZE, 1], [True, True, False])),
        "rows": lambda c: to_each(c.Create_cart([SIZE, 1], [True, True]).Sub([False, True])),
        "one way": lambda c: to_each(c.Create_dist_graph_adjacent([left], [right])),
        "often": lambda c: to_each(
            c.Create_dist_graph_adjacent([left, right, left, RANK], [right, left, right, RANK])
        ),
        "from one": lambda c: to_each(
            c.Create_dist_graph_adjacent([] if one else [0], others if one else [])
        ),
        "to one": lambda c: to_each(c.Create_dist_graph_adjacent(others if one else [], [] if one else [0])),
        "nobody": lambda c: to_each(c.Create_dist_graph_adjacent([], [])),
        "star": lambda c: to_each(c.Create_graph(*spokes)),
        "cart": lambda c: of(c.Create_cart([SIZE], [True])),
        "adjacent": lambda c: of(c.Create_dist_graph_adjacent([left, right], [left, right], reorder=False)),
    }
    return checks | ({"square": lambda c: to_each(c.Create_cart([2, 2], [True, True]))} if SIZE == 4 else {})


def points() -> dict[str, Operation]:
    right, left = (RANK + 1) % SIZE, (RANK - 1) % SIZE
    strided = MPI.DOUBLE.Create_vector(4, 1, 2).Commit()

    def arrays(c: Any, n: int, post: str = "Isend") -> Any:
        status, got = MPI.Status(), np.zeros(n)
        request = getattr(c, post)(block(13, n), right, 4)
        c.Recv(got, MPI.ANY_SOURCE, MPI.ANY_TAG, status)
        request.Wait()
        return got, seen(status)

    def sends(c: Any, name: str, n: int) -> Any:
        request = c.Irecv(got := np.zeros(n), left, 6)
        getattr(c, name)(block(14, n), right, 6)
        request.Wait()
        return got

    def pickles(c: Any, value: Any, name: str) -> Any:
        status = MPI.Status()
        request = c.isend(value, right, 3)
        got = c.recv(source=MPI.ANY_SOURCE, tag=3, status=status)
        request.wait()
        request = c.irecv(source=left, tag=9)
        getattr(c, name)(value, right, 9)
        return got, seen(status), request.wait()

    def derived(c: Any) -> Any:
        got = np.zeros(8)
        c.Sendrecv([block(15, 8), 1, strided], right, 1, [got, 1, strided], left, 1)
        return got

    def exchange(c: Any, big: int) -> Any:
        status, got = MPI.Status(), np.zeros(big)
        c.Sendrecv(block(16, big), right, 2, recvbuf=got, source=left, recvtag=2, status=status)
        return got, seen(status), c.sendrecv(["x" * big, RANK], right, 5, source=left, recvtag=5)

    def replaced(c: Any, big: int) -> Any:
        status, gaps, ends, none = MPI.Status(), np.arange(8.0 * big), block(18, big), np.zeros(0)
        c.Sendrecv_replace([gaps, big, strided], right, 8, left, 8, status)
        c.Sendrecv_replace(ends, right if RANK else MPI.PROC_NULL, 9, left or MPI.PROC_NULL, 9)
        c.Sendrecv_replace(none, right, 8, left, 8)
        return gaps, status.Get_count(strided), seen(status), ends, none

    def probes(c: Any) -> Any:
        status, found = MPI.Status(), []
        for name in ("Probe", "probe"):
            request = c.isend(RANK, right, 7)
            found.append((getattr(c, name)(tag=7, status=status), seen(status), c.recv(tag=7)))
            request.wait()
        request = c.isend(RANK, right, 7)
        found.append(c.mprobe(tag=7).recv())
        request.wait()
        request = c.Isend(block(18, 2), right, 7)
        c.Mprobe(tag=7).Recv(got := np.zeros(2))
        request.Wait()
        return found, got

    def nobody(c: Any) -> Any:
        status = MPI.Status()
        c.send(1, MPI.PROC_NULL)
        c.Send(np.ones(1), MPI.PROC_NULL)
        c.Recv(np.ones(1), MPI.PROC_NULL, status=status)
        return c.recv(source=MPI.PROC_NULL), c.sendrecv(1, MPI.PROC_NULL, source=MPI.PROC_NULL), status.source

    return {
        "arrays": lambda c: [arrays(c, n) for n in (0, 1, 3, 100_000)],
        "sends": lambda c: [sends(c, name, n) for name in ("Send", "Ssend", "Rsend") for n in (2, 50_000)],
        "send": lambda c: pickles(c, [RANK], "send"),
        "ssend": lambda c: pickles(c, [RANK], "ssend"),
        "send big": lambda c: [
            c.sendrecv(block(19, 50_000), right, source=left),
            c.sendrecv(None, right, source=left),
        ],
        "derived": derived,
        "exchange": lambda c: [exchange(c, n) for n in (1, 100_000)],
        "replaced": lambda c: [replaced(c, n) for n in (1, 30_000)],
        "probes": probes,
        "nobody": nobody,
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and bool(np.array_equal(a, b))
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def outcome(work: Operation, comm: Any) -> Any:
    try:
        return work(comm)
    except MPI.Exception as error:
        return (type(error), error.Get_error_class())
    except Exception as error:
        return (type(error), str(error))


def wrong_use() -> dict[str, Operation]:
    """What mpi4py refuses is refused in the same words (each on all ranks, before anything is sent)."""
    return {
        "few": lambda c: c.alltoall([1] * (SIZE + 1)),
        "no buffer": lambda c: c.Bcast("text"),
        "none to replace": lambda c: c.Sendrecv_replace("text", RANK, source=RANK),
        "pickle": lambda c: c.allgather(lambda: 0),
        "root": lambda c: c.reduce(1, root=SIZE),
        "rank": lambda c: c.Send(np.ones(1), SIZE),
    }


def equal() -> None:
    world = World(PLAIN.Dup(), replace=True)
    world.begin(1, tuple(range(SIZE)))
    checks: dict[str, Operation] = {"Barrier": lambda c: c.Barrier(), "barrier": lambda c: c.barrier()}
    for root in range(SIZE):
        for dtype in ("d", "f", "i", "B", "D", "?", "q"):
            checks |= {f"{name} {dtype} {root}": work for name, work in typed(dtype, root).items()}
        for kind in (reductions, uneven, objects, folds):
            checks |= {f"{name} root {root}": work for name, work in kind(root).items()}
    checks |= neighbours() | points() | requests() | wrong_use()
    for name, work in checks.items():
        expected = outcome(work, PLAIN)
        for ours in (world.comm(), MPI.COMM_WORLD, world.comm(interruptible=False)):
            got = outcome(work, ours)
            assert same(expected, got), f"{name} on rank {RANK}: {got!r} instead of {expected!r}"
    assert world.end() == WORLD | OWN_COMM


if __name__ == "__main__":
    try:
        {"equal": equal}[sys.argv[1]]()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        PLAIN.Abort(1)
    os.write(1, b"equal ok\n")
