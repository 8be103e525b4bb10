"""A running simulation that can be watched and steered: heat in a plate, on several ranks.

::

    hpcremote controller &                         # once, anywhere in reach
    mpiexec -n 4 python examples/steering.py       # the simulation: it just runs
    python examples/steer_it.py                    # come and go as you like

Nothing here knows what a client will want to see or change. The simulation lends its variables, and lets
calls in between two steps; all else is in ``steer_it.py``.
"""

from __future__ import annotations

import argparse

import numpy as np
from mpi4py import MPI

import hpcremote

WIDTH = 192
DX = 1.0 / WIDTH


class Plate:
    """A square plate, cut into bands of rows, one a rank. Its edges are kept cold.

    Attributes:
        nu: the diffusivity.
        heater: where heat is put in, as fractions of the plate (y, x), and how much a second.
        u: this rank's rows, and one row of each neighbour above and below.
        running: False ends the simulation.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm = comm
        self.nu = 0.1
        self.heater = (0.3, 0.3, 40.0)
        self.running = True
        self.step, self.time = 0, 0.0
        rows = [len(part) for part in np.array_split(np.arange(WIDTH), comm.size)]
        self.first = sum(rows[: comm.rank])
        self.u = np.zeros((rows[comm.rank] + 2, WIDTH + 2))
        self.above = comm.rank - 1 if comm.rank > 0 else MPI.PROC_NULL
        self.below = comm.rank + 1 if comm.rank + 1 < comm.size else MPI.PROC_NULL
        middles = (np.arange(self.first, self.first + rows[comm.rank]) + 0.5) * DX
        self.y, self.x = middles[:, None], ((np.arange(WIDTH) + 0.5) * DX)[None, :]

    def exchange(self) -> None:
        """Give the neighbours my outermost rows, and take theirs."""
        u = self.u
        self.comm.Sendrecv(u[1], self.above, recvbuf=u[-1], source=self.below)
        self.comm.Sendrecv(u[-2], self.below, recvbuf=u[0], source=self.above)

    def advance(self) -> None:
        """Do one step of time."""
        self.exchange()
        dt = 0.2 * DX * DX / self.nu
        u = self.u
        inner = u[1:-1, 1:-1]
        change = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:] - 4.0 * inner
        y, x, power = self.heater
        source = power * np.exp(-((self.y - y) ** 2 + (self.x - x) ** 2) / 0.002)
        inner += 0.2 * change + dt * source
        self.step += 1
        self.time += dt


def main() -> None:
    """Run until somebody says that it is enough, or for so many steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000, help="at most so many (default: %(default)s)")
    steps = parser.parse_args().steps
    plate = Plate(MPI.COMM_WORLD)
    with hpcremote.embed(block=False, namespace=vars(plate)) as steer:
        while plate.running and plate.step < steps:
            plate.advance()
            steer.poll()
    if plate.comm.rank == 0:
        print(f"ended at step {plate.step}, time {plate.time:.4f}, with nu = {plate.nu}")


if __name__ == "__main__":
    main()
