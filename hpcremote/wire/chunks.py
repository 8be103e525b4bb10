"""Big pieces cut into chunks for a connection that copies what it is given, and put together again.

::

    big pieces ──cut──▶ chunks ══ connection ══▶ chunks ──assembled, received──▶ big pieces, chunk by chunk

A chunk that has been copied to its place is let go at once: there is one copy of the whole, and a chunk.
"""

from __future__ import annotations

import contextlib
import mmap
from collections import deque
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pickle import PickleBuffer

from hpcremote.wire.crate import Crate, Head, aligned
from hpcremote.wire.pickler import Buffer

#: An encrypted connection makes a copy or two of each frame at either end, so frames are cut to this size.
#: Not smaller: glibc gives memory back as soon as it is free only if so much was asked for at once.
CHUNK = 32 << 20
#: From here on memory comes from mmap: it need not be zeroed first, and may have huge pages.
_MAPPED = 4 << 20


def room(size: int) -> memoryview:
    """Return writable memory. Of much of it, pages are there when they are first used."""
    if size < _MAPPED:
        return memoryview(bytearray(size))
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel that has none
            area.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(area)


def cut(buffers: Sequence[Buffer], step: int) -> list[PickleBuffer]:
    """Return buffers as they are pickled, in chunks of at most *step* bytes."""
    views = [as_bytes(buffer) for buffer in buffers]
    return [PickleBuffer(view[at : at + step]) for view in views for at in range(0, len(view), step)]


def as_bytes(buffer: Buffer) -> memoryview:
    """Return the memory of a buffer, byte by byte."""
    return memoryview(buffer).cast("B")


class Chunks:
    """What came in chunks, to be read from the first byte to the last.

    Args:
        chunks: taken out of the list by and by.
    """

    def __init__(self, chunks: list[Buffer]) -> None:
        self._chunks = deque(chunks)
        chunks.clear()
        self._rest = as_bytes(b"")

    def _ahead(self) -> memoryview:
        if not self._rest:
            self._rest = as_bytes(b"")  # the old one is let go before the new one is used
            self._rest = as_bytes(self._chunks.popleft())
        return self._rest

    def fill(self, place: memoryview) -> None:
        """Copy the next bytes."""
        while place:
            rest = self._ahead()
            size = min(len(place), len(rest))
            place[:size], place, self._rest = rest[:size], place[size:], rest[size:]
            del rest

    def skip(self, size: int) -> None:
        """Leave out the next bytes, or what there is of them."""
        while size and (self._rest or self._chunks):
            rest = self._ahead()
            size, self._rest = size - min(size, len(rest)), rest[size:]
            del rest

    def next(self, size: int) -> Buffer:
        """Return the next bytes: a chunk that is just these, or memory into which they are copied."""
        if len(rest := self._ahead()) == size:
            self._rest = rest[size:]
            return rest
        del rest
        place = room(size)
        self.fill(place)
        return place


def assembled(head: Head, chunks: list[Buffer]) -> Crate:
    """Return a crate whose big pieces have come in chunks, or as they are."""
    rest = Chunks(chunks)
    return Crate(head, [rest.next(size) for size in head.bigs])


def received(heads: Sequence[Head], chunks: list[Buffer]) -> list[Crate]:
    """Return the crates of a buffer that came in chunks; in it each one began at a multiple of ALIGN.

    Crates with one big piece each are laid one behind the other without gaps, so that parts of an array are
    that array.
    """
    spans = [head.span for head in heads]
    alone = all(len(head.bigs) == 1 for head in heads)
    starts = list(accumulate(spans if alone else map(aligned, spans), initial=0))
    whole, rest = room(starts[-1]), Chunks(chunks)
    crates = []
    for head, span, (low, _) in zip(heads, spans, pairwise(starts), strict=True):
        place = whole[low : low + span]
        rest.fill(place)
        rest.skip(aligned(span) - span)
        crates.append(Crate(head, head.cut(place)))
    return crates
