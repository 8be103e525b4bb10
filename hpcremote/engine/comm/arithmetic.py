"""MPI's operations by name."""

from __future__ import annotations

from mpi4py import MPI


def operation(name: str) -> MPI.Op:
    """Return the predefined operation that is called *name* ("sum")."""
    found: MPI.Op = getattr(MPI, name.upper())
    return found
