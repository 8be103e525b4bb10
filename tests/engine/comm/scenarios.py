"""What the ranks do in the tests beside: ``mpiexec -n 3 python scenarios.py NAME``; each says "NAME ok"."""

from __future__ import annotations

import faulthandler
import gc
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcremote.engine.comm import current, objects, world
from hpcremote.engine.comm import neighbours as topologies
from hpcremote.engine.comm.communicator import Cart
from hpcremote.engine.comm.lent import Lent
from hpcremote.engine.comm.side import Side
from hpcremote.engine.comm.watch import GATE
from hpcremote.engine.comm.world import World
from hpcremote.errors import HPCRemoteError, Released
from hpcremote.wire.messages import OTHERS, OWN_COMM, WORLD

PLAIN = MPI.COMM_WORLD
RANK, SIZE = PLAIN.rank, PLAIN.size
#: Waits are polls, as where ranks share cores.
CROWDED = "CROWDED" in os.environ
ALL = tuple(range(SIZE))


def line_of(function: Callable[..., Any]) -> int:
    """The line of a one-line function's body."""
    return function.__code__.co_firstlineno


def raises(kind: type[BaseException], work: Callable[[], Any]) -> BaseException:
    try:
        work()
    except kind as error:
        return error
    raise AssertionError(f"rank {RANK}: no {kind.__name__}")


def later(work: Callable[[], Any], seconds: float = 0.1) -> threading.Timer:
    """The I/O thread, which hears of a failure while the main thread waits."""
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


def blocked(w: World, over: Callable[[], Any] = lambda: False) -> None:
    """Return when the main thread is in an operation, or ``over()`` (called in another thread)."""
    while w.where() is None and not over():
        time.sleep(0.001)


def interrupts(w: World, wait: Callable[[], Any]) -> None:
    """Interrupt *wait* by a signal, as an engine does."""

    def interrupt() -> None:
        blocked(w)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        w.ring()

    signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    raises(KeyboardInterrupt, wait)
    thread.join()


WAITS: dict[str, Callable[[Any], Any]] = {
    "Barrier": lambda c: c.Barrier(),
    "Allreduce": lambda c: c.Allreduce(np.ones(9), np.empty(9)),
    "Allgather": lambda c: c.Allgather(np.ones(2), np.empty(2 * SIZE)),
    "Alltoall": lambda c: c.Alltoall(np.ones(SIZE), np.empty(SIZE)),
    "Reduce_scatter_block": lambda c: c.Reduce_scatter_block(np.ones(SIZE), np.empty(1)),
    "barrier": lambda c: c.barrier(),
    "allreduce": lambda c: c.allreduce(1),
    "allgather": lambda c: c.allgather([1] * 1000),
    "alltoall": lambda c: c.alltoall(["x" * 1000] * SIZE),
    "Recv": lambda c: c.Recv(np.empty(3), source=1, tag=5),
    "recv": lambda c: c.recv(source=1),
    "Ssend": lambda c: c.Ssend(np.ones(3), 1),
    "Send": lambda c: c.Send(np.ones(1 << 20), 1),
    "send": lambda c: c.send(np.ones(1 << 20), 1),
    "Sendrecv": lambda c: c.Sendrecv(np.ones(1 << 20), 1, recvbuf=np.empty(1), source=1),
    "sendrecv": lambda c: c.sendrecv("x", 1, source=1),
    "Probe": lambda c: c.Probe(source=1),
    "probe": lambda c: c.probe(source=1),
    "Mprobe": lambda c: c.Mprobe(source=1),
    "mprobe": lambda c: c.mprobe(source=1),
    "Dup": lambda c: c.Dup(),
    "Split": lambda c: c.Split(0, 0),
    "Create_cart": lambda c: c.Create_cart([SIZE]),
}


def released() -> None:
    """Rank 1 fails before each kind of wait; the others come out, and the kept COMM_WORLD works again."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    kept = MPI.COMM_WORLD
    assert kept is not PLAIN
    for number, (name, work) in enumerate(WAITS.items()):
        seq = 10 * number
        w.begin(seq, ALL)
        was_in_one = lambda: w._watch.families  # noqa: E731
        thread = threading.Thread(target=lambda: (blocked(w, was_in_one), w.release(seq, "rank 1 failed")))  # noqa: B023
        if RANK != 1:
            thread.start()
            error = raises(Released, lambda: work(kept))  # noqa: B023
            assert isinstance(error, Released)
            assert (error.operation, error.filename, error.lineno) == (name, __file__, line_of(work)), error
            assert str(error).startswith(f"released from {name} at scenarios.py:{error.lineno}"), error
            thread.join()  # where members agree, another rank's release may have come first
            assert isinstance(raises(Released, kept.Barrier), Released), "the call stays released"
        assert w.end() == (WORLD if RANK != 1 else 0)
        w.renew(seq + 1, ALL)
        w.begin(seq + 2, ALL)
        assert kept.allreduce(RANK) == sum(ALL)
        total = np.empty(4)
        kept.Allreduce(np.ones(4), total)
        assert total.tolist() == [SIZE] * 4
        assert w.comm().bcast("x" * 1000 if RANK == 0 else None) == "x" * 1000
        w.end()


def until(test: Callable[[], Any]) -> None:
    while not test():
        pass


def started(request: Any) -> Any:
    request.Start()
    return request


def asking(name: str, requests: list[Any]) -> None:
    for _ in range(10**9):
        getattr(MPI.Request, name)(requests)


BIG = np.ones(1 << 20)
#: What users do with requests; nobody answers them.
REQUESTS: dict[str, Callable[[Any], Any]] = {
    "Wait": lambda c: c.Irecv(np.empty(3), source=1, tag=5).Wait(),
    "wait": lambda c: c.irecv(source=1).wait(),
    "Wait of a send": lambda c: c.Issend(np.ones(3), 1, 7).Wait(),
    "wait of a send": lambda c: c.issend("x", 1, 7).wait(),
    "Wait of a collective": lambda c: c.Iallreduce(np.ones(9), np.empty(9)).Wait(),
    "Wait of a persistent one": lambda c: started(c.Recv_init(np.empty(3), source=1)).Wait(),
    "Waitall": lambda c: MPI.Request.Waitall([c.Isend(BIG, 1), c.Irecv(np.empty(3), source=1)]),
    "waitall": lambda c: MPI.Request.waitall([c.issend("x", 1), c.irecv(source=1)], []),
    "Waitany": lambda c: MPI.Request.Waitany([MPI.REQUEST_NULL, c.Irecv(np.empty(3), source=1)]),
    "waitany": lambda c: MPI.Request.waitany([c.irecv(source=1), c.Ibarrier()]),
    "Waitsome": lambda c: MPI.Request.Waitsome([c.Irecv(np.empty(3), source=1), c.Issend(BIG, 1)]),
    "waitsome": lambda c: MPI.Request.waitsome([c.irecv(source=1)]),
    "Test": lambda c: until(c.Irecv(np.empty(3), source=1).Test),
    "test": lambda c: [until(lambda: one.test()[0]) for one in [c.irecv(source=1)]],  # noqa: B023
    "Testall": lambda c: asking("Testall", [c.Issend(BIG, 1), c.Irecv(np.empty(3), source=1)]),
    "testall": lambda c: asking("testall", [c.irecv(source=1)]),
    "Testany": lambda c: asking("Testany", [c.Irecv(np.empty(3), source=1)]),
    "testany": lambda c: asking("testany", [c.irecv(source=1)]),
    "Testsome": lambda c: asking("Testsome", [MPI.REQUEST_NULL, c.irecv(source=1)]),
    "testsome": lambda c: asking("testsome", [c.irecv(source=1)]),
    "Iprobe": lambda c: until(lambda: c.Iprobe(source=1, tag=6)),
    "improbe": lambda c: until(lambda: c.improbe(source=1, tag=6)),
}


def requests() -> None:
    """Rank 1 fails; the others come out of waiting for requests of their own, and out of asking for ever."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    kept = MPI.COMM_WORLD
    for number, (name, work) in enumerate(REQUESTS.items()):
        seq = 10 * number
        w.begin(seq, ALL)
        kept.Barrier()
        if RANK != 1:
            timer = later(lambda: w.release(seq, "rank 1 failed"))  # noqa: B023
            error = raises(Released, lambda: work(kept))  # noqa: B023
            assert isinstance(error, Released)
            assert error.operation == name.partition(" ")[0], error
            assert error.filename == __file__ and error.lineno
            timer.join()
            assert isinstance(raises(Released, lambda: kept.Isend(np.ones(1), 0)), Released), name
        gc.collect()
        assert w.end() == WORLD
        w.renew(seq + 1, ALL)
        w.begin(seq + 2, ALL)
        received = np.empty(1)
        request = kept.Irecv(received, source=(RANK - 1) % SIZE)
        kept.Isend(np.full(1, float(RANK)), (RANK + 1) % SIZE).Wait()
        request.Wait()
        assert received[0] == (RANK - 1) % SIZE, name
        assert kept.allreduce(RANK) == sum(ALL)
        w.end()


def requests_forgotten() -> None:
    """A request that nobody waited for keeps its buffer until it is complete."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, peer = MPI.COMM_WORLD, (RANK + 1) % SIZE
    w.begin(1, ALL)
    comm.Irecv(bytearray(9), source=(RANK - 1) % SIZE)
    gc.collect()
    left = w._watch.left.kept
    assert len(left) == 1
    w.end()
    assert len(left) == 1
    comm.Barrier()  # from here on something is on its way
    comm.Isend(bytes(9), peer).Wait()
    comm.Barrier()
    while left:
        w.end()
    w.begin(2, ALL)
    comm.Irecv(bytearray(1), source=(RANK - 1) % SIZE)  # what comes is too long
    gc.collect()
    assert len(left) == 1
    comm.Barrier()
    comm.Isend(bytes(9), peer).Wait()
    while left:
        w.end()
    w.begin(3, ALL)
    vain = [comm.Irecv(bytearray(1), source=(RANK - 1) % SIZE) for _ in range(99)]
    del vain
    gc.collect()
    assert len(left) == 99
    w.end()
    assert len(left) == 99
    w.renew(4, ALL)
    while left:
        w.end()


def left_and_over() -> None:
    """What was left is kept for as long as MPI goes on with it, and no longer."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, left = MPI.COMM_WORLD, w._watch.left.kept
    w.begin(1, ALL)
    timer = later(lambda: w.release(1), 0.02)
    raises(Released, lambda: comm.Issend(bytes(9), (RANK + 1) % SIZE).Wait())
    timer.join()
    w.end()
    assert len(left) == 1
    PLAIN.Barrier()
    MPI.Intracomm(comm).Recv(bytearray(9))
    while left:
        w.end()
    w.renew(2, ALL)
    w.begin(3, ALL)
    assert comm.allreduce(1) == SIZE


def received_wrongly() -> None:
    """What is wrong with a message is said, and not what became of the request."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, peer = MPI.COMM_WORLD, (RANK + 1) % SIZE
    w.begin(1, ALL)
    requests = [comm.isend("x" * 1000, peer, 1), comm.Isend(bytes(9), peer, 2)]
    error = raises(MPI.Exception, lambda: comm.recv(bytearray(10), tag=1))
    assert isinstance(error, MPI.Exception)
    assert error.Get_error_class() == MPI.ERR_TRUNCATE
    raises(pickle.UnpicklingError, lambda: comm.recv(bytearray(10), tag=2))
    MPI.Request.Waitall(requests)
    w.end()


def half_sent() -> None:
    """A receive whose message is on its way is left, too, when its sender has left MPI."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, big = MPI.COMM_WORLD, np.ones(1 << 20)
    folder = PLAIN.bcast(tempfile.mkdtemp() if RANK == 0 else None)
    waits: list[Callable[[], Any]] = [
        lambda: comm.Recv(np.empty_like(big), 1),
        lambda: comm.Irecv(np.empty_like(big), 1).Wait(),
        lambda: comm.recv(bytearray(9 << 20), 1),
    ]
    for number, wait in enumerate(waits):
        seq, away = 2 * number, Path(folder, f"{number}")
        w.begin(seq, ALL)
        comm.Barrier()
        request = comm.isend(big, 0) if RANK == 1 else None
        if RANK == 0:
            comm.Probe(1)
            timer = later(lambda: w.release(seq), 0.2)  # noqa: B023
            raises(Released, wait)
            timer.join()
            away.touch()
        while not away.exists():
            time.sleep(0.001)
        if request is not None:
            request.Wait()
        w.end()
        w.renew(seq + 1, ALL)
        away.unlink(missing_ok=True)
    assert comm.allreduce(1) == SIZE
    if RANK == 0:
        Path(folder).rmdir()


def requests_outdated() -> None:
    """Requests from before their communicator was renewed say so, and nothing comes by them."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, peer = MPI.COMM_WORLD, (RANK + 1) % SIZE
    w.begin(1, ALL)
    received = bytearray(5)
    send, again = comm.Send_init(b"stale", peer), comm.Recv_init(received)
    pending = comm.Irecv(bytearray(5), tag=2)
    assert isinstance(send, MPI.Prequest)
    assert isinstance(send, MPI.Request)
    w.end()
    w.begin(2, ALL)
    send.Start()
    send.Wait()
    assert w.end() == WORLD
    w.renew(3, ALL)
    w.begin(4, ALL)
    for name, work in {
        "Start": again.Start,
        "Startall": lambda: MPI.Prequest.Startall([again, send]),
        "Wait": pending.Wait,
        "wait": pending.wait,
        "Test": lambda: until(pending.Test),
        "Waitall": lambda: MPI.Request.Waitall([comm.Irecv(bytearray(1), tag=3), pending]),
        "Waitany": lambda: MPI.Request.Waitany([pending]),
        "Testall": lambda: asking("Testall", [pending]),
    }.items():
        error = raises(HPCRemoteError, work)
        assert str(error).startswith(f"{name}: a request is from before COMM_WORLD was renewed"), error
    assert not comm.trouble
    send, again = comm.Send_init(b"fresh", peer), comm.Recv_init(received)
    MPI.Prequest.Startall([send, again])
    MPI.Prequest.Waitall([send, again])
    assert received == b"fresh"
    w.end()


def requests_interrupted() -> None:
    """KeyboardInterrupt, once; a receive that was left takes nobody's message."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm = MPI.COMM_WORLD
    w.begin(1, ALL)
    if RANK == 0:
        for wait in (
            lambda: comm.Irecv(np.empty(1), source=1).Wait(),
            lambda: MPI.Request.Waitall([comm.Irecv(np.empty(1), source=1), comm.irecv(source=1)]),
            lambda: MPI.Request.Waitany([comm.Irecv(np.empty(1), source=1)]),
        ):
            interrupts(w, wait)
    comm.Barrier()
    if RANK == 1:
        comm.Send(np.full(1, 5.0), 0)
    if RANK == 0:
        comm.Recv(received := np.zeros(1), source=1)
        assert received[0] == 5.0
    comm.Barrier()
    w.end()


def many_failures() -> None:
    """One failure after the other, the failing rank going round, the release before the call as well."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    for seq in range(0, 200, 2):
        bad = (seq // 2) % SIZE
        if bad != RANK and seq % 4:
            w.release(seq, "early")
        w.begin(seq, ALL)
        if bad != RANK:
            timer = later(lambda: w.release(seq), 0.003)  # noqa: B023
            raises(Released, lambda: MPI.COMM_WORLD.allreduce(1))
            timer.join()
        w.end()
        w.renew(seq + 1, ALL)
        assert MPI.COMM_WORLD.allreduce(1) == SIZE


def late_release() -> None:
    """A release that comes after its call, or wakes nobody, does no harm to the next call."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    for seq in range(300):
        w.begin(seq, ALL)
        if seq % 3 == 0:
            w.release(seq - 1)
        assert MPI.COMM_WORLD.allreduce(1) == SIZE
        w.end()
        w.release(seq)
    w.begin(1000, ALL)
    MPI.COMM_WORLD.Barrier()
    w.release(1000)  # between two operations
    raises(Released, MPI.COMM_WORLD.Barrier)
    w.end()


def interrupted() -> None:
    """A signal raises KeyboardInterrupt in the wait; the receive is cancelled and loses nothing."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm = MPI.COMM_WORLD
    w.begin(1, ALL)
    if RANK == 0:
        interrupts(w, lambda: comm.Recv(np.empty(1), source=1))
    comm.Barrier()
    data = np.array([5.0 * RANK])
    if RANK == 1:
        comm.Send(data, 0)
    if RANK == 0:
        comm.Recv(data, source=1)
        assert data[0] == 5.0
    comm.Barrier()
    w.end()


def where() -> None:
    """What a rank waits in can be asked from another thread, and what it did before."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm = MPI.COMM_WORLD
    w.begin(3, ALL)
    comm.Barrier()
    comm.bcast(1, root=1)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: (blocked(w), found.append(w.where()), w.release(3)))
    if RANK == 0:
        thread.start()
        wait = WAITS["Allreduce"]
        raises(Released, lambda: wait(comm))
        thread.join()
        (waiting,) = found
        assert waiting[:4] == ("Allreduce", "COMM_WORLD", 3, None)
        assert (waiting.filename, waiting.lineno) == (__file__, line_of(wait))
        steps = [tuple(step) for step in w.steps()["COMM_WORLD"]]
        assert steps == [(1, "Barrier", None), (2, "bcast", 1), (3, "Allreduce", None)]
    assert bool(comm.trouble) == (RANK == 0)
    assert w.end() == WORLD
    assert w.where() is None


def subsets() -> None:
    """comm() is over exactly the ranks of the call, in its order, the same object every time."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    seen: dict[Any, Any] = {}
    tuples = [ALL, ALL[::-1], (1,), (2, 0), (0, 2), (1, 2), ALL[1:] + ALL[:1]] * 2
    for seq, ranks in enumerate(tuples):
        if RANK not in ranks:
            continue
        w.begin(seq, ranks)
        for interruptible in (True, False):
            comm = w.comm(interruptible)
            assert comm.size == len(ranks)
            assert comm.rank == ranks.index(RANK)
            assert comm.allgather(RANK) == list(ranks)
            assert comm.allreduce(str(RANK)) == "".join(map(str, ranks))
            assert seen.setdefault((ranks, interruptible), comm) is comm
            assert (type(comm) is MPI.Intracomm) is not interruptible
            assert comm is not MPI.COMM_WORLD
        w.end()
    raises(HPCRemoteError, w.comm)
    w.begin(99, ALL)
    current.install(w)
    assert current.comm() is w.comm()
    w.end()


def creation_race() -> None:
    """A rank that fails before comm(), or is released while it waits there, leaves nobody stuck."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    ranks = ALL[::-1]
    for round_ in range(2 * SIZE):
        seq, bad = 10 * round_, round_ % SIZE
        w.begin(seq, ranks)
        if bad != RANK:
            timer = later(lambda: w.release(seq), 0.05 + 0.02 * RANK * (round_ >= SIZE))  # noqa: B023
            raises(Released, w.comm)
            timer.join()
        w.end()
        w.renew(seq + 1, ranks)
    w.begin(5000, ranks)
    assert w.comm().allgather(RANK) == list(ranks)
    w.end()
    # Released just when all have come: either all make it or none, and the next call is well.
    for round_ in range(40):
        order = tuple(np.random.default_rng(round_).permutation(SIZE).tolist())
        w.begin(6000 + 2 * round_, order)
        soon = 0.0003 if round_ % SIZE == RANK else 0.05
        timer = later(lambda: w.release(6000 + 2 * round_), soon)  # noqa: B023
        if round_ % SIZE == RANK and round_ % 2:
            timer.join()
        try:
            w.comm()
            made = True
        except Released:
            made = False
        timer.join()
        w.end()
        agreed = PLAIN.allgather(made)
        assert len(set(agreed)) == 1 or agreed[round_ % SIZE] is False, agreed
        w.renew(6001 + 2 * round_, order)


def renewed() -> None:
    """What the user derived from a broken communicator says so; comm() of other ranks is untouched."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    w.begin(1, ALL)
    half = MPI.COMM_WORLD.Split(RANK % 2, 0)
    quarter = half.Dup()
    inner = w.comm().Dup()
    far = MPI.COMM_WORLD.Dup().Dup()
    gc.collect()
    assert half.allreduce(1) == len(ALL[RANK % 2 :: 2])
    w.end()
    pair = (1, 0)
    if RANK in pair:
        w.begin(2, pair)
        kept_pair = w.comm()
        w.end()
    w.renew(3, ALL)
    w.begin(3, ALL)
    for old in (half, quarter, inner, far):
        error = raises(HPCRemoteError, lambda: old.allreduce(1))  # noqa: B023
        assert "made from a communicator that was renewed before call 3: make it again" in str(error), error
    assert w.end() == 0, "a renewal would not help"
    assert MPI.COMM_WORLD.Split(RANK % 2, 0).allreduce(1) == len(ALL[RANK % 2 :: 2])
    if RANK in pair:
        w.begin(4, pair)
        assert w.comm() is kept_pair
        assert kept_pair.allreduce(1) == 2
        w.end()


def one_broken() -> None:
    """A communicator that broke on one rank only is renewed on all of its ranks."""
    w = World(PLAIN.Dup(), replace=False)
    assert MPI.COMM_WORLD is PLAIN
    pair = (0, 1)
    kept = None
    if RANK in pair:
        w.begin(1, pair)
        kept = w.comm()
        if RANK == 0:
            later(lambda: w.release(1))
            raises(Released, kept.Barrier)
            raises(Released, kept.Barrier)
        w.end()
    if RANK == 0:
        assert kept is not None
        w.begin(2, pair)
        assert "this rank had to leave Barrier on it" in str(raises(HPCRemoteError, kept.Barrier))
        assert w.end() == OWN_COMM, "it has to be made anew, though the call that left it went well, perhaps"
    w.renew(2, ALL, others=True)
    if kept is not None:
        w.begin(3, pair)
        assert kept.allreduce(1) == 2
        w.end()
    # A call used it that it was not made for, and failed: nothing tore it, yet something is under way by it.
    if kept is not None:
        w.begin(4, (1, 0))
        if RANK == 0:
            kept.send("stale", 1)
        assert w.end(failed=True) == (WORLD | OTHERS if RANK == 0 else 0)
    w.renew(5, (1, 0), others=True)
    if kept is not None:
        w.begin(6, pair)
        if RANK == 0:
            kept.send("fresh", 1)
        else:
            assert kept.recv() == "fresh"
        w.end()


def not_renewed() -> None:
    """What was not made anew as it should have been is not used: the next failure gives it another try."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, seq = MPI.COMM_WORLD, 2
    if RANK != 1:
        timer = later(lambda: w.release(seq, "rank 1 has gone"))
        error = raises(Released, lambda: w.renew(seq, ALL))
        timer.join()
        w.begin(3, ALL)
        error = raises(HPCRemoteError, lambda: comm.allreduce(1))
        assert "it could not be made anew after a failure (released from renew" in str(error), error
        assert w.end(failed=True) == WORLD
    w.renew(4, ALL)
    assert comm.allreduce(1) == SIZE


def held() -> None:
    """The gate opens when all calls that failed here are over elsewhere, in whatever order."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    side = Side(w, RANK, SIZE)
    for seq in (1, 2):
        side.begin(seq, ALL)
        side.end(failed=True)
    side.settled(2)
    side.begin(3, ALL)
    assert w._watch.alarm is GATE
    side.settled(1)
    assert w._watch.alarm is None
    side.end(failed=False)
    side.begin(4, ALL)
    assert MPI.COMM_WORLD.allreduce(1) == SIZE


def spares() -> None:
    """With a spare nobody waits for anybody, and what is sent afterwards comes by the fresh one."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    kept, pair = MPI.COMM_WORLD, (1, 0)
    w.stock(1, (), world=True)
    failures = iter(range(2, 1000, 2))

    def fail(world: bool) -> None:
        """Leave something behind on the old one; the last rank comes when all others are through."""
        ranks = ALL if world else pair
        if RANK in ranks:
            w.begin(seq := next(failures), ranks)
            comm = kept if world else w.comm()
            comm.Isend(np.zeros(1), (comm.rank + 1) % comm.size).Wait()
            w.end()
            if max(ranks) == RANK:
                for source in range(len(ranks) - 1):
                    PLAIN.recv(source=source)
            w.renew(seq + 1, ranks, world=world)
            if max(ranks) != RANK:
                PLAIN.send("through", max(ranks))
            w.begin(seq + 1, ranks)
            assert comm is (kept if world else w.comm())
            comm.Isend(np.ones(1), (comm.rank + 1) % comm.size).Wait()
            comm.Recv(received := np.empty(1))
            assert received[0] == 1.0
            w.end()

    for number in range(5):
        fail(world=True)
        fail(world=False)
        w.stock(1000 + 2 * number, pair, world=True)
        fail(world=False)
        if RANK in pair:
            w.stock(1001 + 2 * number, pair, world=False)
    if RANK != 1:  # one that does not come is not waited for
        timer = later(lambda: w.release(2000))
        raises(Released, lambda: w.stock(2000, (), world=True))
        timer.join()
    w.release(2000)
    if RANK == 1:
        raises(Released, lambda: w.stock(2000, (), world=True))
    fail(world=True)


def lent() -> None:
    """What a call has freed is not freed again when the program leaves."""
    w = Lent(PLAIN.Dup())
    w.begin(1, ALL)
    w.comm().Barrier()
    w.comm(interruptible=False).Free()
    w.end()
    w.close()


def derived() -> None:
    """What is made from an interruptible communicator is mpi4py's kind, and interruptible."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm = MPI.COMM_WORLD
    w.begin(1, ALL)
    made = {
        "Dup": comm.Dup(),
        "Clone": comm.Clone(),
        "Split": comm.Split(0, -RANK),
        "Split_type": comm.Split_type(MPI.COMM_TYPE_SHARED),
        "Create": comm.Create(comm.Get_group()),
        "Create_group": comm.Create_group(comm.Get_group()),
        "Create_cart": comm.Create_cart([SIZE], [True]),
    }
    for name, one in made.items():
        assert one.allreduce(1) == SIZE, name
        assert name in one.label
    assert made["Split"].rank == SIZE - 1 - RANK
    cart = made["Create_cart"]
    assert isinstance(cart, MPI.Cartcomm)
    assert cart.Shift(0, 1) == ((RANK - 1) % SIZE, (RANK + 1) % SIZE)
    assert cart.Sub([True]).allreduce(1) == SIZE
    assert comm.Split(MPI.UNDEFINED if RANK else 0, 0) == MPI.COMM_NULL or RANK == 0
    only = comm.Get_group().Incl([0, 2])
    if RANK in (0, 2):
        assert comm.Create_group(only).allreduce(RANK) == 2
    for one in made.values():
        one.free()
    assert type(comm)(comm) is comm
    half = comm.Split(0)
    inner = half.Dup()
    half.Free()
    assert "it was freed" in str(raises(HPCRemoteError, half.Barrier))
    assert inner.allreduce(1) == SIZE, "it lives on"
    for name, args in {"Idup": (), "Idup_with_info": (MPI.Info.Create(),)}.items():
        other, request = getattr(comm, name)(*args)
        request.Wait()
        assert type(other) is MPI.Intracomm
        assert other.allreduce(1) == SIZE
    w.end()


def neighbours() -> None:
    """Communicators with a topology can be left, and so can persistent collectives."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, beside = MPI.COMM_WORLD, [(RANK - 1) % SIZE, (RANK + 1) % SIZE]
    one, two = np.ones(1), np.zeros(2)
    makes: list[Callable[[], Any]] = [
        lambda: comm.Create_cart([SIZE], [True]),
        lambda: comm.Create_dist_graph([RANK], [2], beside),
        lambda: comm.Create_dist_graph_adjacent(beside, beside),
        lambda: comm.Create_cart([SIZE], [True]),
        lambda: comm.Create_cart([SIZE], [True]),
    ]
    names = ["Neighbor_allgather", "Wait", "Wait", "neighbor_allgather", "neighbor_alltoall"]
    waits: list[Callable[[Any, Any], Any]] = [
        lambda made, _: made.Neighbor_allgather(one, two),
        lambda made, _: made.Ineighbor_allgather(one, two).Wait(),
        lambda _, again: started(again).Wait(),
        lambda made, _: two.__setitem__(slice(2), made.neighbor_allgather(1.0)),
        lambda made, _: two.__setitem__(slice(2), list(map(len, made.neighbor_alltoall(["x", "y"])))),
    ]
    for number, (make, wait) in enumerate(zip(makes, waits, strict=True)):
        seq = 3 * number
        w.begin(seq, ALL)
        made = make()
        agains = made.Neighbor_allgather_init(one, two), made.Allreduce_init(one, np.zeros(1))
        for again in agains:
            started(again).Wait()
            wait(made, again)
            assert two.tolist() == [1.0, 1.0]
        if RANK != 1:
            timer = later(lambda: w.release(seq))  # noqa: B023
            error = raises(Released, lambda: wait(made, agains[number % 2]))  # noqa: B023
            assert isinstance(error, Released)
            assert error.operation == names[number]
            timer.join()
        assert w.end() == WORLD
        w.renew(seq + 1, ALL)
        w.begin(seq + 2, ALL)
        for work in (lambda: made.neighbor_allgather(1), agains[0].Start):  # noqa: B023
            assert "make it again" in str(raises(HPCRemoteError, work))
        assert comm.allreduce(1) == SIZE
        w.end()


def no_room() -> None:
    """A rank that has no memory for what comes does not take it for the next operation's."""

    class Full:
        buffer = type("buffer", (), {"allocate": staticmethod(lambda size: bytes(-size))})

        def __getattr__(self, name: str) -> Any:
            return getattr(MPI, name)

    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, large = MPI.COMM_WORLD, "x" * 2000
    for number, name in enumerate(["gather", "bcast", "neighbor_allgather"]):
        w.begin(3 * number, ALL)
        used = comm.Create_cart([SIZE], [True]) if name.startswith("neighbor") else comm
        work = getattr(used, name)
        module: Any = objects if used is comm else topologies
        work((RANK, large))
        victim = int(name == "bcast") == RANK
        if victim:
            module.MPI = Full()
        try:
            if victim:
                raises(ValueError, lambda: work((RANK, large)))  # noqa: B023 - called at once
            else:
                work((RANK, large))
        finally:
            module.MPI = MPI
        if victim:
            assert "had to leave" in str(raises(HPCRemoteError, lambda: work(1)))  # noqa: B023
        assert w.end(failed=victim) & WORLD
        w.renew(3 * number + 1, ALL)
        w.begin(3 * number + 2, ALL)
        assert comm.allgather((RANK, large)) == [(rank, large) for rank in range(SIZE)]
        w.end()


def withdrew_long_ago() -> None:
    """Who comes late learns that another one has been interrupted, however long ago."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    w.begin(1, ALL)
    if RANK == 1:
        interrupts(w, MPI.COMM_WORLD.Dup)
        PLAIN.Barrier()
    else:
        PLAIN.Barrier()
        raises(Released, MPI.COMM_WORLD.Dup)
    w.end(failed=True)
    w.renew(2, ALL)
    w.begin(3, ALL)
    assert MPI.COMM_WORLD.Dup().allreduce(1) == SIZE
    w.end()


#: What says nothing to other ranks, or nothing that could meet a later call.
LOCAL = {
    *(
        "Abort",
        "Ack_failed",
        "Agree",
        "Attach_buffer",
        "Call_errhandler",
        "Cart_map",
        "Compare",
        "Delete_attr",
    ),
    *(
        "Detach_buffer",
        "Flush_buffer",
        "Graph_map",
        "Iagree",
        "Iflush_buffer",
        "Is_inter",
        "Is_intra",
        "Join",
    ),
    *("Is_revoked", "Revoke", "Shift"),
}


def counted() -> None:
    """What says something to other ranks is counted, and stops at the gate, whether it waits or not."""
    for name in dir(Cart):
        said = name[0].isupper() and not name.startswith(("Get_", "Set_")) and name not in LOCAL
        if said or name.startswith("neighbor_"):
            assert getattr(Cart, name) is not getattr(MPI.Cartcomm, name), name
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    comm, peer, asked = MPI.COMM_WORLD, (RANK + 1) % SIZE, list[bool]()
    comm.send("taken", peer, 1)
    w.on_gate(lambda inside: bool(asked.append(inside)))
    MPI.Attach_buffer(bytearray(10000))
    again = [comm.Send_init(bytes(1), peer) for _ in range(2)]
    works: dict[str, Callable[[], Any]] = {
        "Bsend": lambda: comm.Bsend(bytes(1), peer),
        "bsend": lambda: comm.bsend(1, peer),
        "Start": again[0].Start,
        "Startall": lambda: MPI.Prequest.Startall(again[1:]),
    }
    works |= {
        name: lambda name=name: getattr(comm, name)(MPI.ANY_SOURCE, 1)  # type: ignore[misc]
        for name in ("Iprobe", "iprobe", "Improbe", "improbe")
    }
    for seq, (name, work) in enumerate(works.items(), 1):
        w.begin(seq, ALL, gate=True)
        work()
        assert asked == [False], name
        assert str(w._watch.verdict("a reason")).endswith(": a reason"), "the gate is none"
        asked.clear()
        assert w.end() == WORLD, name
    MPI.Request.Waitall(again)


def limit() -> None:
    """There is a limit to communicators, and it is said on all ranks alike."""
    world.LIMIT = 0 if RANK == 0 else 100
    w = World(PLAIN.Dup(), replace=False)
    w.begin(1, ALL[::-1])
    assert "one more than" in str(raises(HPCRemoteError, w.comm))
    world.LIMIT = 2
    for interruptible in (True, False):
        w.comm(interruptible)
    w.end()
    w.begin(2, ALL)
    assert "one more than 2" in str(raises(HPCRemoteError, w.comm))
    w.end()
    w.begin(3, ALL[::-1])
    w.comm().Free()
    assert w.comm().allreduce(1) == SIZE, "made again in its place"
    w.comm().Free()
    w.end()
    w.begin(4, ALL)
    assert w.comm().allreduce(1) == SIZE, "there is room for another one"
    w.end()


def kept_buffers() -> None:
    """Operations that were left keep their buffers; MPI_Finalize returns."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    for seq in range(20):
        w.begin(seq * 2, ALL)
        if RANK == 0:
            later(lambda: w.release(seq * 2), 0.01)  # noqa: B023
            raises(Released, lambda: MPI.COMM_WORLD.Bcast(np.empty(1 << 18), root=1))
            gc.collect()
        w.end()
        w.renew(seq * 2 + 1, ALL)
    assert MPI.COMM_WORLD.allreduce(1) == SIZE


def threads() -> None:
    """Other threads of the user's may communicate too (they poll)."""
    w = World(PLAIN.Dup(), replace=True, crowded=CROWDED)
    w.begin(1, ALL)
    mine, theirs = MPI.COMM_WORLD, MPI.COMM_WORLD.Dup()
    sums: list[int] = []
    thread = threading.Thread(target=lambda: sums.extend(theirs.allreduce(1) for _ in range(50)))
    thread.start()
    for _ in range(50):
        assert mine.allreduce(2) == 2 * SIZE
    thread.join()
    assert sums == [SIZE] * 50
    w.end()


def no_threads() -> None:
    """Where MPI is less thread safe, waits poll, and are left all the same."""
    MPI.Query_thread = lambda: MPI.THREAD_SERIALIZED  # type: ignore[assignment]
    many_failures()
    late_release()
    requests()


if __name__ == "__main__":
    name = sys.argv[1]
    faulthandler.dump_traceback_later(60)
    try:
        {key: value for key, value in globals().items() if callable(value)}[name]()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        PLAIN.Abort(1)
    faulthandler.cancel_dump_traceback_later()
    os.write(1, f"{name} ok\n".encode())
