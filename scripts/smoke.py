"""The least that must work: start two MPI ranks, let them talk to each other and to us, stop them."""

from __future__ import annotations

import platform

import hpcremote


def total() -> int:
    """Add up the ranks by MPI (runs on the engines)."""
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.allreduce(MPI.COMM_WORLD.rank + 1))


def main() -> None:
    """Print one line, or raise."""
    with hpcremote.Cluster(n=2, profile="mpi") as rc:
        view = rc[:]
        view["a"] = 20
        view.execute("a += 1", block=True)
        assert view["a"] == [21, 21]
        assert view.apply_sync(total) == [3, 3]
    print(f"Python {platform.python_version()}: hpcremote {hpcremote.__version__}, two ranks, works")


if __name__ == "__main__":
    main()
