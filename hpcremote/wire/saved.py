"""The file in which one engine's namespace is saved: its head, and what is known of it. Pure.

::

    MAGIC, length of the head (8 bytes), head (JSON) | piece | piece | ...     each piece at a multiple of 64

Pieces are those of :mod:`hpcremote.wire.payload`: the pickle stream, and behind it the memory of arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import msgspec

from hpcremote.errors import SaveError
from hpcremote.wire.parts import Count

MAGIC = b"hpcremote namespace 1\n\0\0"
#: A head is at most so long: engines and names are many in a bad file only.
MOST_HEAD = 64 << 20
_LENGTH = 8
#: What has to be read before the length of the head is known, in bytes.
START = len(MAGIC) + _LENGTH
_ALIGN = 64


class Saved(NamedTuple):
    """What was saved of one engine's namespace, or put back.

    ``names`` in order, ``bytes`` of the file; ``left_out`` says of names that could not be pickled why.
    """

    engine: int
    path: str
    names: tuple[str, ...]
    bytes: int
    left_out: Mapping[str, str]


class Head(msgspec.Struct):
    """What a file says of itself.

    ``engines`` saved together (in the compact form, see ``wire.targets``), with one ``stamp`` in all files.
    """

    engine: int
    engines: list[int]
    stamp: str
    when: float
    names: list[str]
    sizes: list[Count]
    python: str = ""
    version: str = ""


def lead(head: Head) -> bytes:
    """Return what a file begins with, before its first piece."""
    data = msgspec.json.encode(head)
    start = MAGIC + len(data).to_bytes(_LENGTH, "little") + data
    return start + bytes(-len(start) % _ALIGN)


def head_length(start: bytes) -> int:
    """Return how long the head is, of the first :data:`START` bytes of a file.

    Raises:
        SaveError: it is no such file.
    """
    length = int.from_bytes(start[len(MAGIC) : START], "little")
    if len(start) < START or not start.startswith(MAGIC) or length > MOST_HEAD:
        raise SaveError("is not a namespace that was saved by this version of hpcremote")
    return length


def head_of(data: bytes) -> Head:
    """Return the head.

    Raises:
        SaveError: it is damaged.
    """
    try:
        return msgspec.json.decode(data, type=Head)
    except msgspec.DecodeError as error:
        raise SaveError(f"is damaged: {error}") from None


def places(head: Head, length: int) -> Iterator[tuple[int, int]]:
    """Yield where each piece begins, and its size; *length* is that of the head."""
    at = START + length
    for size in head.sizes:
        at += -at % _ALIGN
        yield at, size
        at += size


def padding(size: int) -> bytes:
    """Return what follows a piece of this size, if another one does."""
    return bytes(-size % _ALIGN)


def whole_size(head: Head, length: int) -> int:
    """Return how many bytes the file has to have."""
    found = list(places(head, length))
    return sum(found[-1]) if found else START + length
