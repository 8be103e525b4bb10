"""Payloads become the parts and frames of a call; big ones go into shared memory where they may."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hpcremote.net.shm import WORTHWHILE, remove_blob, write_blob
from hpcremote.wire.frames import Frame
from hpcremote.wire.messages import Part
from hpcremote.wire.payload import big_pieces, to_part


def to_parts(payloads: Sequence[list[Any]], shm: str) -> tuple[list[Part], list[Frame]]:
    """Return a part for each payload, and the frames of all; *shm*: where blobs may be written, or ""."""
    parts: list[Part] = []
    frames: list[Frame] = []
    try:
        for pieces in payloads:
            bigs = big_pieces(pieces)
            blob = ""
            if shm and sum(memoryview(piece).nbytes for piece in bigs) >= WORTHWHILE:
                blob = write_blob(shm, bigs)
            part, more = to_part(pieces, blob)
            parts.append(part)
            frames += more
    except BaseException:  # Ctrl-C too: nobody else knows of those that are written
        remove_blobs(parts, shm)
        raise
    return parts, frames


def remove_blobs(parts: Sequence[Part], shm: str) -> None:
    """Remove the shared memory of a call that did not get to the controller."""
    for part in parts:
        if part.blob:
            remove_blob(shm, part.blob)
