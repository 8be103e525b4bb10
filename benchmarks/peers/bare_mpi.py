"""The floor of starting and of memory: ``mpiexec`` and Python alone, without any engine in it.

* ``start``: the wall time of ``mpiexec -n 4 python -c "from mpi4py import MPI"``, MPI_Init and MPI_Finalize.
* ``uss``, ``connections``, ``processes``: ranks that imported mpi4py.MPI, zmq and cloudpickle, and then wait.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import common
import footprint

IDLE = """
import os, signal
import zmq, cloudpickle
from mpi4py import MPI
signal.signal(signal.SIGTERM, lambda *_: None)  # and MPI_Finalize, which takes its shared memory away
os.write(1, b"%d\\n" % os.getpid())
signal.pause()
"""


def start(n: int, quick: bool) -> None:
    """Measure how long a bare MPI job of n ranks takes."""
    words = ["mpiexec", "-n", str(n), sys.executable, "-c", "from mpi4py import MPI"]
    run = lambda: subprocess.run(words, check=True, stdin=subprocess.DEVNULL, timeout=60)  # noqa: E731
    common.report("start", "s", common.durations(run, common.scaled(5, quick), warmup=1))


def idle(n: int) -> None:
    """Measure what n bare ranks hold while they wait."""
    words = ["mpiexec", "-n", str(n), sys.executable, "-c", IDLE]
    job = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        if job.stdout is None:
            raise RuntimeError("mpiexec has no stdout")
        footprint.report([int(job.stdout.readline()) for _ in range(n)])
    finally:
        job.send_signal(signal.SIGTERM)
        job.wait(30)


def main() -> None:
    """Measure what was asked for."""
    arguments = common.arguments()
    with common.bounded(120):
        if "start" in arguments.metrics:
            start(arguments.n, arguments.quick)
        if "uss" in arguments.metrics:
            idle(arguments.n)


if __name__ == "__main__":
    main()
