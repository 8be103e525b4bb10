"""hpcremote with MPI engines: by its default local transport, or with ``--tcp`` over TCP with CURVE."""

from __future__ import annotations

import os
import time

import collective
import common
import footprint
import processors
import troubles
import views

import hpcremote

#: Profile keys that take the local transports away, so that every byte crosses a TCP port under CURVE.
TCP_ONLY = {"ipc": False, "shm": False}


def empty() -> None:
    """The call that does nothing."""


def pid() -> int:
    """Tell the engine's process id."""
    return os.getpid()


def main() -> None:
    """Start engines, measure, stop them."""
    arguments = common.arguments()
    counts = views.Counts(
        calls=common.scaled(2000, arguments.quick),
        calls_all=common.scaled(500, arguments.quick),
        inflight=20_000,
        bulk=common.scaled(10, arguments.quick),
    )
    options = TCP_ONLY if arguments.tcp else {}
    with common.bounded(60):
        began = time.perf_counter()
        cluster = hpcremote.Cluster(n=arguments.n, profile="mpi", **options)
        client = cluster.__enter__()
        client[:].apply_sync(empty)
        common.report("start", "s", [time.perf_counter() - began])
    try:
        if "uss" in arguments.metrics:  # before any other metric has given the engines something to remember
            footprint.report(client[:].apply_sync(pid))
        if "inflight_client" in arguments.metrics:
            processors.report(client, empty, common.scaled(5, arguments.quick))
        views.measure(client, empty, arguments.metrics, counts)
        collective.measure(client, arguments.metrics, common.scaled(7, arguments.quick))
        troubles.measure(client, arguments.metrics)
    finally:
        with common.bounded(60):
            cluster.__exit__(None, None, None)


if __name__ == "__main__":
    main()
