"""mpi4py.futures: a pool of MPI ranks, started as ``mpiexec -n 1+workers python -m mpi4py.futures``.

It has no call on a chosen worker, none on all of them and no namespace on a worker. What it has is a call on
whichever worker is free, alone and many at once, with its default back-off.
"""

from __future__ import annotations

import common
from mpi4py.futures import MPIPoolExecutor


def empty() -> None:
    """The call that does nothing."""


def main() -> None:
    """Measure what there is."""
    arguments = common.arguments()
    common.about("mpi4py")

    with common.bounded(120), MPIPoolExecutor(max_workers=arguments.n) as pool:
        pool.bootup()

        def flood(amount: int) -> None:
            for future in [pool.submit(empty) for _ in range(amount)]:
                future.result(timeout=30)

        if "call_one" in arguments.metrics:
            samples = common.durations(
                lambda: pool.submit(empty).result(timeout=30), common.scaled(500, arguments.quick), warmup=20
            )
            common.report("call_one", "s", samples)
        if "inflight" in arguments.metrics:
            common.report("inflight", "1/s", common.rates(flood, common.scaled(2000, arguments.quick), 3))


if __name__ == "__main__":
    main()
