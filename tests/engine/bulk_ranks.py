"""What the ranks do in test_bulk.py: ``mpiexec -n 3 python bulk_ranks.py NAME``; rank 0 says "NAME ok"."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from mpi4py import MPI

from hpcremote.engine import carry, reduction
from hpcremote.engine.namespace import Namespace
from hpcremote.engine.operations import Operations
from hpcremote.wire import operators, payload
from hpcremote.wire.chunks import assembled, cut, received
from hpcremote.wire.crate import FAILED, crate_of

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
#: Sizes on all sides of what is small, of alignment, and of one turn (see main).
COUNTS = (0, 1, 63, 65_535, 65_536, 65_537, 200_001, 300_000)


def objects() -> Iterator[Any]:
    """Things to send; the same on all ranks."""
    rng = np.random.default_rng(1)
    for count in COUNTS:
        yield rng.integers(0, 255, count, dtype="u1")
    base = rng.random((300, 41, 3))
    yield np.asfortranarray(base)
    yield base[::2, ::-1].astype(">f4")
    yield np.empty((0, 5), order="F")
    yield np.zeros(9000, dtype=[("a", "i4"), ("b", "U3"), ("c", "f8", 2)])
    yield [base, "between", base[0].astype(complex), list(range(40_000))]
    yield {"small": [rng.random(100) for _ in range(200)], "big": base}
    yield b"bytes" * 50_000
    yield None


def same(one: Any, other: Any) -> bool:
    """Say whether they are equal in everything that arrives."""
    if isinstance(one, np.ndarray):
        return (
            type(one) is type(other)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and one.flags.fnc == other.flags.fnc
            and other.flags.writeable
            and other.flags.aligned
            and bool((one == other).all())
        )
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check(fact: bool, *what: object) -> None:
    """Fail everywhere if it is not so here."""
    if not fact:
        print(f"rank {RANK}:", *(f"{thing!r:.200}" for thing in what), file=sys.stderr, flush=True)
        COMM.Abort(1)


def spread() -> None:
    """Everybody gets it, from any rank; and nothing, if there is nothing."""
    for number, sent in enumerate(objects()):
        root = number % SIZE
        came = carry.spread(COMM, crate_of(payload.dump(sent)) if root == RANK else None, root)
        check(came is not None and same(payload.load(came), sent), sent)
    check(carry.spread(COMM, None, SIZE - 1) is None)
    pieces = payload.dump([np.arange(100_000), np.arange(9000)])
    crate = crate_of(pieces)
    chunks = [big[at : at + 50_000] for big in crate.bigs for at in range(0, len(big), 50_000)]
    check(same(payload.load(assembled(crate.head, chunks).unpack()), payload.load(pieces)))


def deal() -> None:
    """Everybody gets its own: all different, some empty, from many buffers and from one."""
    things = list(objects())
    for shift in range(len(things)):
        parts = [things[(shift + 3 * rank) % len(things)] for rank in range(SIZE)]
        crates = [crate_of(payload.dump(part)) for part in parts]
        bigs = [big for crate in crates for big in crate.bigs]
        heads = [crate.head for crate in crates] if RANK == 0 else None
        came = carry.deal(COMM, heads, bigs if RANK == 0 else ())
        check(same(payload.load(came), parts[RANK]), parts[RANK])
    whole = np.arange(100_000 * SIZE)
    crates = [crate_of(payload.dump(part)) for part in np.array_split(whole, SIZE)]
    heads = [crate.head for crate in crates] if RANK == 0 else None
    memory = memoryview(whole.view("u1"))
    for step in (memory.nbytes, 70_001):
        chunks = [memory[at : at + step] for at in range(0, memory.nbytes, step)]
        came = carry.deal(COMM, heads, chunks if RANK == 0 else ())
        check(same(payload.load(came), np.array_split(whole, SIZE)[RANK]))


def collect() -> None:
    """The first gets it from everybody, each in a crate; nobody moves anything if one cannot."""
    things = list(objects())
    for shift in range(len(things)):
        parts = [things[(shift + 5 * rank) % len(things)] for rank in range(SIZE)]
        came = carry.collect(COMM, payload.dump(parts[RANK]))
        check((came is None) == (RANK != 0))
        if came is not None:
            sent_on = received(came.heads, [bytearray(chunk) for chunk in cut([came.area], 70_001)])
            for crate, other, part in zip(came.crates(), sent_on, parts, strict=True):
                check(same(payload.load(crate.unpack()), part), part)
                there = payload.load(other.unpack())
                check(same(there.copy("K") if isinstance(there, np.ndarray) else there, part), part)
    try:
        carry.collect(COMM, None if RANK == SIZE - 1 else payload.dump(1))
    except carry.Unwilling:
        return
    check(False, "collected what is not there")


class Sum:
    """An object of ``__main__`` (it travels with its class, which is another one then), to be added."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.text + other.text)


def values() -> Iterator[tuple[Any, list[Any]]]:
    """Operations, and a value for each rank."""
    rng = np.random.default_rng(2)
    for name in ("sum", "prod", "max", "min"):
        for dtype in ("i1", "u2", "i8", "f4", "f8", "f2", "c16", ">i4", "g"):
            yield name, [rng.integers(1, 5, (40, 50)).astype(dtype) for _ in range(SIZE)]
    for name in ("band", "bor", "bxor", "land", "lor", "lxor"):
        yield name, [rng.integers(0, 3, 1000) for _ in range(SIZE)]
        yield name, [int(number) for number in rng.integers(0, 2, SIZE)]
        yield name, [rng.integers(0, 2, 9).astype(bool) for _ in range(SIZE)]
    yield "sum", [np.asfortranarray(rng.integers(0, 9, (30, 20, 10))) for _ in range(SIZE)]
    yield "sum", [rng.integers(0, 9, 100_000) for _ in range(SIZE)]  # several turns
    yield "max", [np.array([1.0, np.nan if rank == 1 else 2.0, rank]) for rank in range(SIZE)]
    yield "min", [np.array([1.0, np.nan if rank == 1 else 2.0, rank]) for rank in range(SIZE)]
    yield "sum", [np.zeros((0, 3)) for _ in range(SIZE)]
    yield "sum", [np.ones(rank % 2 * 2 + 1) for rank in range(SIZE)]  # other shapes: numpy broadcasts
    yield "sum", [np.ones(3, "i4" if rank else "f4") for rank in range(SIZE)]
    yield "max", [np.float64(rank) for rank in range(SIZE)]
    yield operator.add, [[rank] for rank in range(SIZE)]
    yield operator.add, [np.arange(3) + rank for rank in range(SIZE)]
    yield np.maximum, [np.arange(3) * (-1) ** rank for rank in range(SIZE)]
    yield (lambda a, b: a + b), [f"<{rank}>" for rank in range(SIZE)]
    yield "sum", [Sum(str(rank)) for rank in range(SIZE)]


def reduce() -> None:
    """What comes out is what the client would make of the values of all."""
    namespace = Namespace()
    namespace.install()
    local = Operations(namespace)
    for op, each in values():
        expected = functools.reduce(operators.function_of(op), each)
        for keep in (None, "kept"):
            namespace.push({"mine": each[RANK]})
            plan = payload.dump((op, "mine", keep))
            pieces = [*payload.dump(len(plan)), *plan, *payload.dump("mine")]
            result = reduction.reduce(COMM, local, b"", pieces)
            check((result is None) == (keep is not None or RANK != 0), op, result)
            result = namespace.dict["kept"] if keep else result
            if keep or RANK == 0:
                check(type(result).__name__ == type(expected).__name__, op, result, expected)
                if isinstance(expected, Sum):
                    check(result.text == expected.text, result.text)
                elif isinstance(expected, np.ndarray):
                    check(result.dtype == expected.dtype and result.shape == expected.shape, op, result)
                    check(result.flags.fnc == expected.flags.fnc, op, expected)
                    check(np.array_equal(result, expected, equal_nan=expected.dtype.kind == "f"), op, each)
                else:
                    check(result == expected, op, result, expected)
    namespace.dict.pop("mine", None)
    if RANK == 1:
        namespace.push({"mine": 1})
    plan = payload.dump(("sum", "mine", None))
    answer = reduction.reduce(COMM, local, b"", [*payload.dump(len(plan)), *plan])
    if SIZE > 1:
        check((answer is None) == (RANK == 1), "a value from nowhere", answer)
        check(RANK == 1 or answer[0] == FAILED, answer)


def huge() -> None:
    """More bytes, and more items, than an ``int`` counts: dealt, collected, reduced and spread."""
    size = 2200 << 20
    marks = [0, (1 << 30) - 1, 1 << 30, size // SIZE - 1, size // SIZE, (1 << 31) - 1, 1 << 31, size - 1]
    whole = np.zeros(size, "u1")
    whole[marks] = range(1, 9)
    crates = [crate_of(payload.dump(part)) for part in np.array_split(whole, SIZE)]
    heads, memory = [crate.head for crate in crates], [memoryview(whole)]
    del crates
    part = payload.load(carry.deal(COMM, heads if RANK == 0 else None, memory if RANK == 0 else ()))
    low = RANK * (size // SIZE)
    check(len(part) == size // SIZE, len(part))
    check(all(part[mark - low] == whole[mark] for mark in marks if low <= mark < low + len(part)), RANK)
    everything = carry.collect(COMM, payload.dump(part))
    for crate in everything.crates() if everything else ():
        came = payload.load(crate.unpack())
        check(all(came[mark - low] == whole[mark] for mark in marks if low <= mark < low + len(came)), low)
        low += len(came)
    check(RANK > 0 or low == size, low)
    part = came = crate = everything = None
    total = reduction._by_mpi(COMM, whole, "sum", everywhere=False)  # what a reduction does with such arrays
    check(RANK > 0 or (total[marks] == SIZE * whole[marks]).all())
    total = None
    came = payload.load(carry.spread(COMM, crate_of(payload.dump(whole)) if RANK == 0 else None) or ())
    check(len(came) == size and (came[marks] == whole[marks]).all())


def main() -> None:
    """Do what the command line names, in one turn and in several."""
    name = sys.argv[1]
    for most in (1 << 30,) if name == "huge" else (1 << 30, 100_000):
        carry.MOST = reduction.MOST = most
        globals()[name]()
    COMM.Barrier()
    if RANK == 0:
        print(f"{name} ok", flush=True)


main()
