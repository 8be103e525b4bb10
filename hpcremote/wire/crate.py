"""Pieces (see ``wire.payload``) packed for a journey on which every step has to know all sizes before.

::

    pieces ──crate_of──▶ head (sizes, small pieces)  ──▶ ──unpack──▶ pieces
                         big pieces, as they lie

Heads travel as objects, big pieces as bytes. The big pieces of one crate, or of several in a row, may lie in
one buffer: each begins at a multiple of :data:`ALIGN` bytes after the first of its crate, so arrays are
aligned.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from hpcremote.wire import payload
from hpcremote.wire.messages import Part
from hpcremote.wire.payload import BIG
from hpcremote.wire.pickler import Buffer

ALIGN = 64


class Head(NamedTuple):
    """What a crate has in it: all sizes, and the small pieces, one after the other.

    ``apart`` is 0, or the length of the small pieces together when they are many: then they are the
    first of the big ones, and ``data`` is empty.
    """

    sizes: list[int]
    data: bytes
    apart: int = 0

    @property
    def bigs(self) -> list[int]:
        """The sizes of what travels on its own."""
        return [self.apart] * bool(self.apart) + [size for size in self.sizes if size >= BIG]

    @property
    def span(self) -> int:
        """How many bytes that takes in one buffer."""
        sizes = self.bigs
        return sum(map(aligned, sizes[:-1])) + sizes[-1] if sizes else 0

    def cut(self, area: Buffer) -> list[Buffer]:
        """Return the big pieces that lie in *area*."""
        sizes = self.bigs
        whole = memoryview(area)
        starts = accumulate(map(aligned, sizes), initial=0)
        return [whole[at : at + size] for at, size in zip(starts, sizes, strict=False)]


class Crate(NamedTuple):
    """A head and the big pieces."""

    head: Head
    bigs: list[Buffer]

    def unpack(self) -> list[Buffer]:
        """Return the pieces.

        Raises:
            PayloadError: what is in it is not what the head says.
        """
        sizes, data, apart = self.head
        first, *rest = self.bigs if apart else (data, *self.bigs)
        return payload.from_part(Part(bytes(first), sizes), rest)


def crate_of(pieces: Sequence[Buffer]) -> Crate:
    """Return the crate of *pieces*; big ones are not copied."""
    part, bigs = payload.to_part(pieces)
    if len(part.data) < BIG:
        return Crate(Head(part.sizes, part.data), bigs)
    return Crate(Head(part.sizes, b"", len(part.data)), [part.data, *bigs])


def aligned(size: int) -> int:
    """Return the next multiple of ALIGN."""
    return -(-size // ALIGN) * ALIGN


#: How an engine answers when values go to the client by way of one of them: this is my value; here are the
#: values of all, in crates, or in chunks (wire.chunks); my value is on its way by the first of us.
OWN, ALL, CUT, SENT = "own", "all", "cut", "sent"
#: And: this is what went wrong here (a wire.failure.Failure). All engines have done what there was to do
#: together, so nobody waits and communicators are as good as before; not so after a call that fails.
FAILED = "hpcremote: failed in agreement"
