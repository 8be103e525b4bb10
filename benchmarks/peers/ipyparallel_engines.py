"""ipyparallel with MPI engines."""

from __future__ import annotations

import logging
import time

import common
import ipyparallel
import views


def empty() -> None:
    """The call that does nothing."""


def main() -> None:
    """Start engines, measure, stop them."""
    arguments = common.arguments()
    common.about("ipyparallel", "mpi4py", "mpich")
    counts = views.Counts(
        calls=common.scaled(200, arguments.quick),
        calls_all=common.scaled(50, arguments.quick),
        inflight=common.scaled(1000, arguments.quick),
        bulk=common.scaled(5, arguments.quick),
    )
    with common.bounded(180):
        began = time.perf_counter()
        cluster = ipyparallel.Cluster(n=arguments.n, engines="mpi", log_level=logging.ERROR)
        client = cluster.start_and_connect_sync(activate=False)
        client[:].apply_sync(empty)
        common.report("start", "s", [time.perf_counter() - began])
    try:
        views.measure(client, empty, arguments.metrics, counts)
    finally:
        with common.bounded(60):
            client.close()
            cluster.stop_cluster_sync()


if __name__ == "__main__":
    main()
