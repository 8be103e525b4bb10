"""What is known of a rank's MPI operations: where it waits. No MPI here."""

from __future__ import annotations

import os
import sys
from types import FrameType
from typing import NamedTuple

#: Frames of these directories are ours (or mpi4py's), not the user's.
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Waiting(NamedTuple):
    """The blocking operation that a rank is in.

    Attributes:
        operation: its name ("Allreduce").
        comm: name of its communicator, the same on all its ranks.
        number: how many collectives this rank had begun on that communicator, this one included, so that the
            ranks of one communicator can be compared.
        root: root of the collective, or the peer of a point-to-point operation; None: neither.
        filename: file of the user's code that called it.
        lineno: line in that file.
    """

    operation: str
    comm: str
    number: int
    root: int | None
    filename: str
    lineno: int


def place(frame: FrameType | None) -> tuple[str, int]:
    """Return file and line of the innermost frame that is not this package's."""
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return ("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)


def place_of(thread: int) -> tuple[str, int]:
    """Return file and line that a thread is at, as far as the user is concerned."""
    return place(sys._current_frames().get(thread))  # noqa: SLF001 - the documented way


def at(filename: str, lineno: int) -> str:
    """Return " at solve.py:12"; nothing if that is not known."""
    return f" at {os.path.basename(filename)}:{lineno}" if filename else ""
