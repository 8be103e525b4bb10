"""Heat on a plate, on however many ranks there are: the program of the job scripts here.

Each rank keeps a block of rows, and gives its edge rows to its neighbours in every step. Between calls the
client has the numbers: here it goes on until the plate has settled, which no rank decides.

    hpcremote run -n 4 heat.py [CELLS [TOLERANCE]]
"""

from __future__ import annotations

import sys

import hpcremote


def prepare(cells: int) -> int:
    """Make this rank's rows, with a row of its neighbours' on either side; return how many are its own."""
    global plate
    import numpy as np

    comm = hpcremote.comm()
    first, last = (cells * (comm.rank + k) // comm.size for k in (0, 1))
    plate = np.zeros((last - first + 2, cells))
    plate[:, 0] = 100.0  # the left edge is kept hot
    return last - first


def advance(steps: int) -> float:
    """Do some steps; return the largest change of the last one, anywhere on the plate."""
    from mpi4py import MPI

    comm = hpcremote.comm()
    above = comm.rank - 1 if comm.rank else MPI.PROC_NULL
    below = comm.rank + 1 if comm.rank + 1 < comm.size else MPI.PROC_NULL
    change = 0.0
    for _ in range(steps):
        comm.Sendrecv(plate[1], above, recvbuf=plate[-1], source=below)
        comm.Sendrecv(plate[-2], below, recvbuf=plate[0], source=above)
        inner = plate[1:-1, 1:-1]
        fresh = (plate[:-2, 1:-1] + plate[2:, 1:-1] + plate[1:-1, :-2] + plate[1:-1, 2:]) / 4
        change = float(abs(fresh - inner).max(initial=0.0))
        inner[...] = fresh
    return comm.allreduce(change, MPI.MAX)


def main(cells: int = 200, tolerance: float = 0.01) -> None:
    """Heat the plate until it changes by less than *tolerance* degrees a step."""
    with hpcremote.Client() as rc:
        view = rc[:]
        hosts = {host: len(ranks) for host, ranks in rc.by_host().items()}
        print(f"{len(rc)} ranks: {hosts}; rows: {view.apply_sync(prepare, cells)}", flush=True)
        change, steps = float("inf"), 0
        while change > tolerance:
            change, steps = view.apply_sync(advance, 100)[0], steps + 100
            print(f"after {steps:5} steps: largest change {change:.4f} degrees", flush=True)
        means = view.apply_sync(lambda: float(plate[1:-1].mean()))
        print(f"settled; mean temperature by rank: {[round(mean, 2) for mean in means]}")


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((int, float), sys.argv[1:], strict=False)))
