"""What ``steer.poll()`` costs a simulation when no call waits: ``mpiexec -n 2 python benchmarks/poll.py``.

Beside it, the least that could do the same: one bare ``comm.bcast`` of an int. Each is done between steps
(an allreduce, so that no rank runs ahead), whose own time is taken off. Several rounds, in turns, because
others use the machine too; the best of each counts, and the median is shown.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mpi4py import MPI

import hpcremote

STEPS = 500
ROUNDS = 100

comm = MPI.COMM_WORLD


@contextmanager
def cluster() -> Iterator[None]:
    """Run a controller that has no engines but us."""
    folder = comm.bcast(tempfile.mkdtemp(prefix="hpcremote-poll-") if comm.rank == 0 else None)
    os.environ["HPCREMOTE_DIR"] = folder
    process = None
    if comm.rank == 0:
        words = [sys.executable, "-m", "hpcremote", "controller"]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 30.0
        while not list(Path(folder).glob("clusters/*/*/engine.json")):
            if process.poll() is not None or time.monotonic() > deadline:
                comm.Abort(1)
            time.sleep(0.01)
    comm.Barrier()
    try:
        yield
    finally:
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(30.0)
            shutil.rmtree(folder)


def microseconds(between: Callable[[], object]) -> float:
    """Return the time of a step with *between* in it, on the slowest rank."""
    step = comm.Allreduce
    mine, everybody = bytearray(8), bytearray(8)
    buffers = [mine, MPI.INT64_T], [everybody, MPI.INT64_T]
    comm.Barrier()
    began = time.perf_counter()
    for _ in range(STEPS):
        step(*buffers)
        between()
    return comm.allreduce(time.perf_counter() - began, MPI.MAX) / STEPS * 1e6


def main() -> None:
    with cluster(), hpcremote.embed(block=False) as steer:
        byte = bytearray(1)
        kinds: dict[str, Callable[[], object]] = {
            "nothing": lambda: None,
            "comm.bcast(1)": lambda: comm.bcast(1),
            "comm.Bcast(1 byte)": lambda: comm.Bcast(byte),
            "steer.poll()": steer.poll,
        }
        times: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(ROUNDS):
            for name, between in kinds.items():
                times[name].append(microseconds(between))
    if comm.rank == 0:
        print(f"{comm.size} ranks, {ROUNDS} rounds of {STEPS} steps; microseconds added to a step")
        print(f"{'':20} {'best':>8} {'median':>8}")
        base = min(times["nothing"]), statistics.median(times["nothing"])
        for name, some in times.items():
            if name != "nothing":
                best, median = min(some) - base[0], statistics.median(some) - base[1]
                print(f"{name:20} {best:8.2f} {median:8.2f}")
        print(f"(a step by itself: {base[0]:.2f} at best, {base[1]:.2f} in the median)")


if __name__ == "__main__":
    main()
