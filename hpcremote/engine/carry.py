"""Pieces (see ``wire.payload``) from engine to engine, by MPI collectives.

::

    spread   pieces on one rank       ── bcast head, Bcast ────────▶ the same pieces on every rank
    deal     a crate for each, on 0   ── scatter heads, Scatterv ──▶ its own pieces on every rank
    collect  pieces on every rank     ── gather heads, Gatherv ────▶ a crate of each, on 0

Big pieces go as bytes, straight from where they lie into memory that the receiver keeps: an array is not
copied on its way, and arrives in memory of its own, writable. As few operations as possible, for where
ranks share cores each one costs a turn of all of them; but no more than :data:`MOST` bytes in one, since
not every MPI library counts beyond 2³¹.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from hpcremote.wire.chunks import Chunks, as_bytes, room
from hpcremote.wire.crate import Crate, Head, aligned, crate_of
from hpcremote.wire.pickler import Buffer

#: So many bytes at most in one MPI operation.
MOST = 1 << 30
_BYTE: Final = "B"


class Unwilling(Exception):
    """One of the ranks cannot take part."""


class _Region(NamedTuple):
    """Where one rank's bytes are in those of all."""

    start: int
    end: int


class _Turn(NamedTuple):
    """The bytes, of those of all ranks, that one operation moves."""

    low: int
    high: int

    def part_of(self, area: memoryview, region: _Region) -> memoryview:
        """Return what this turn moves of *area*, one rank's memory."""
        low, high = max(self.low, region.start), min(self.high, region.end)
        return area[low - region.start : high - region.start] if low < high else as_bytes(bytearray())

    def all_of(self, whole: memoryview, regions: Sequence[_Region]) -> list[Any]:
        """Return what this turn moves of *whole*, the memory of all ranks, as mpi4py wants to be told."""
        cut = [(max(self.low, start), min(self.high, end)) for start, end in regions]
        counts = [max(0, high - low) for low, high in cut]
        starts = [low - self.low if low < high else 0 for low, high in cut]
        return [whole[self.low : self.high], (counts, starts), _BYTE]


def _turns(total: int) -> list[_Turn]:
    return [_Turn(low, min(low + MOST, total)) for low in range(0, total, MOST)]


def _regions(spans: Sequence[int]) -> list[_Region]:
    ends = list(accumulate(spans))
    return [_Region(end - size, end) for end, size in zip(ends, spans, strict=True)]


# ---------------------------------------------------------------- one to all


def spread(comm: Any, crate: Crate | None, root: int = 0) -> list[Buffer] | None:
    """Return on every rank the pieces that rank *root* has in its crate; None if it has none."""
    told = comm.bcast(tuple(crate.head) if crate else None, root)
    if told is None:
        return None
    head = Head(*told)
    bigs: Sequence[Buffer] = crate.bigs if crate else [room(size) for size in head.bigs]
    for big in bigs:
        whole = as_bytes(big)
        for low in range(0, len(whole), MOST):
            comm.Bcast([whole[low : low + MOST], _BYTE], root)
    return Crate(head, list(bigs)).unpack()


# ---------------------------------------------------------------- a part to each


def deal(comm: Any, heads: Sequence[Head] | None, chunks: Sequence[Buffer]) -> list[Buffer]:
    """Return on every rank its own pieces.

    Args:
        comm: the communicator.
        heads: on rank 0, the head of each rank's crate.
        chunks: on rank 0, the big pieces of all crates in order, in any number of buffers; if it is one,
            they have to be aligned in it.
    """
    regions = None if heads is None else _regions([head.span for head in heads])
    notes = None
    if heads is not None and regions is not None:
        notes = [(start, regions[-1].end, *head) for head, (start, _) in zip(heads, regions, strict=True)]
    start, total, *told = comm.scatter(notes, 0)
    head = Head(*told)
    mine = _Region(start, start + head.span)
    area = room(head.span)
    whole = None if heads is None else _joined(heads, chunks)
    for turn in _turns(total):
        send = None if whole is None or regions is None else turn.all_of(whole, regions)
        comm.Scatterv(send, [turn.part_of(area, mine), _BYTE], 0)
    return Crate(head, head.cut(area)).unpack()


def _joined(heads: Sequence[Head], chunks: Sequence[Buffer]) -> memoryview:
    """Return the big pieces of crates in one buffer; what is in one already is not copied."""
    if len(chunks) == 1:
        return as_bytes(chunks[0])
    rest = Chunks(list(chunks))
    whole = room(sum(head.span for head in heads))
    for head, (start, end) in zip(heads, _regions([head.span for head in heads]), strict=True):
        for place in head.cut(whole[start:end]):
            rest.fill(memoryview(place))
    return whole


# ---------------------------------------------------------------- from each to one


class Collected(NamedTuple):
    """The crates of all ranks: their heads, and the big pieces in one buffer, each at a multiple of ALIGN."""

    heads: list[Head]
    area: memoryview

    def crates(self) -> list[Crate]:
        """Return them one by one."""
        regions = _regions([aligned(head.span) for head in self.heads])
        pairs = zip(self.heads, regions, strict=True)
        return [Crate(head, head.cut(self.area[low:high])) for head, (low, high) in pairs]


def collect(comm: Any, pieces: Sequence[Buffer] | None) -> Collected | None:
    """Return on rank 0 the crates of all ranks, and None on the others.

    Args:
        comm: the communicator.
        pieces: this rank's; None if it cannot take part.

    Raises:
        Unwilling: on every rank, if one of them cannot take part; nothing was moved.
    """
    crate = None if pieces is None else crate_of(pieces)
    told = comm.gather(None if crate is None else tuple(crate.head), 0)
    heads = _heads(told)
    # Each rank's region is aligned, so that its arrays are.
    regions = _regions([aligned(head.span) for head in heads])
    notes: list[tuple[int, int] | None] | None = told and [None] * len(told)
    if heads:
        notes = [(start, regions[-1].end) for start, _ in regions]
    note = comm.scatter(notes, 0)
    if note is None or crate is None:
        raise Unwilling
    start, total = note
    own = _joined([crate.head], crate.bigs)
    area = room(total if heads else 0)
    filled = [_Region(one.start, one.start + head.span) for one, head in zip(regions, heads, strict=True)]
    for turn in _turns(total):
        sent = turn.part_of(own, _Region(start, start + len(own)))
        comm.Gatherv([sent, _BYTE], turn.all_of(area, filled) if heads else None, 0)
    return Collected(heads, area) if heads else None


def _heads(told: Sequence[Any] | None) -> list[Head]:
    """Return the heads of all ranks; none where they are not known, or one is missing."""
    return [] if told is None or None in told else [Head(*head) for head in told]
