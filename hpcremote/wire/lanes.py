"""Many ranks' messages over one connection: what a node agent and the controller say to each other.

An agent gives every rank that is linked to it a number, its *lane*. One ZeroMQ message carries a *bundle*
either way: a head frame (one byte, then a msgpack array of entries) and behind it the payload frames of
each entry in turn. An entry is a batch as in ``frames.py``, head and all, and the lanes that it is from or
for; the same words to a whole node are there once. An entry without a head says that its lanes are closed.

An agent's own messages go as ordinary batches over the same connection; the first byte tells them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from hpcremote.wire.frames import Frame, FrameError
from hpcremote.wire.messages import PROTOCOL, Count

#: The first byte of a bundle.
MAGIC = bytes([0x80 | PROTOCOL])


class Entry(msgspec.Struct, array_like=True):
    """A batch, the lanes that it is from or for, and how many frames it has besides its head."""

    lanes: list[Count]
    head: bytes
    nframes: Count = 0


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Entry]).decode


def is_bundle(head: bytes) -> bool:
    """Say whether a ZeroMQ message that begins so is a bundle."""
    return head[:1] == MAGIC


def bundle(batches: Iterable[tuple[Sequence[int], Sequence[Any]]]) -> list[Frame]:
    """Return the frames of one bundle of batches, each with its lanes; no frames: the lanes are closed."""
    entries: list[Entry] = []
    frames: list[Frame] = []
    for lanes, batch in batches:
        head = bytes(batch[0]) if batch else b""
        entries.append(Entry(list(lanes), head, max(0, len(batch) - 1)))
        frames += batch[1:]
    return [MAGIC + _encode(entries), *frames]


def unbundle(head: bytes, frames: Sequence[Frame] = ()) -> list[tuple[list[int], bytes, Sequence[Frame]]]:
    """Return the entries of a bundle: lanes, head and payload frames of each.

    Raises:
        FrameError: the bytes are not a bundle, or the number of frames is not what the entries say.
    """
    if not is_bundle(head):
        raise FrameError(f"not a bundle of protocol {PROTOCOL}: begins with {bytes(head[:4])!r}")
    try:
        entries = _decode(memoryview(head)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(str(error)) from None
    found = []
    at = 0
    for entry in entries:
        if at + entry.nframes > len(frames):
            raise FrameError(f"{len(frames)} frames where the entries announce more")
        found.append((entry.lanes, entry.head, frames[at : at + entry.nframes]))
        at += entry.nframes
    if at != len(frames):
        raise FrameError(f"{len(frames)} frames where the entries announce {at}")
    return found
