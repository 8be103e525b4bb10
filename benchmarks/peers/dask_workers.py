"""dask.distributed on one machine: one single-threaded worker process in the place of each engine.

What it calls by other names: a call on one worker is ``submit(..., workers=[w])``, a call on all is
``run``, push and pull are ``scatter`` and ``gather`` with ``direct=True`` (past the scheduler) and
without hashing the data, which is the fastest that it has.
"""

from __future__ import annotations

import time

import common
import numpy as np
from distributed import Client, LocalCluster


def empty() -> None:
    """The call that does nothing."""


def call_one(client: Client, worker: str, quick: bool) -> None:
    """Measure one call on one worker."""
    samples = common.durations(
        lambda: client.submit(empty, workers=[worker], pure=False).result(timeout=30),
        common.scaled(200, quick),
        warmup=10,
    )
    common.report("call_one", "s", samples)


def call_all(client: Client, worker: str, quick: bool) -> None:
    """Measure one call on all workers."""
    common.report("call_all", "s", common.durations(lambda: client.run(empty), common.scaled(100, quick)))


def inflight(client: Client, worker: str, quick: bool) -> None:
    """Measure many calls submitted to one worker before the first result is asked for."""

    def flood(amount: int) -> None:
        futures = [client.submit(empty, workers=[worker], pure=False) for _ in range(amount)]
        client.gather(futures)

    common.report("inflight", "1/s", common.rates(flood, common.scaled(1000, quick), 3))


def push(client: Client, worker: str, quick: bool) -> None:
    """Measure a direct scatter of a big array to one worker."""
    array = np.arange(common.BULK_BYTES // 8, dtype=np.int64)
    operation = lambda: client.scatter(array, workers=[worker], direct=True, hash=False)  # noqa: E731
    common.report("push", "B/s", common.bandwidths(operation, common.scaled(5, quick)))


def pull(client: Client, worker: str, quick: bool) -> None:
    """Measure a direct gather of a big array from one worker."""
    array = np.arange(common.BULK_BYTES // 8, dtype=np.int64)
    future = client.scatter(array, workers=[worker], direct=True, hash=False)
    if not np.array_equal(client.gather(future, direct=True), array):
        raise ValueError("what came back is not what was sent")
    operation = lambda: client.gather(future, direct=True)  # noqa: E731
    common.report("pull", "B/s", common.bandwidths(operation, common.scaled(5, quick)))


MEASURES = {"call_one": call_one, "call_all": call_all, "inflight": inflight, "push": push, "pull": pull}


def main() -> None:
    """Start workers, measure, stop them."""
    arguments = common.arguments()
    common.about("distributed")
    began = time.perf_counter()
    with (
        common.bounded(120),
        LocalCluster(
            n_workers=arguments.n,
            threads_per_worker=1,
            dashboard_address=None,
            memory_limit=0,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(arguments.n, timeout=60)
        client.run(empty)
        common.report("start", "s", [time.perf_counter() - began])
        worker = sorted(client.scheduler_info(n_workers=-1)["workers"])[0]
        for metric in arguments.metrics:
            if metric in MEASURES:
                with common.bounded(60):
                    MEASURES[metric](client, worker, arguments.quick)


if __name__ == "__main__":
    main()
