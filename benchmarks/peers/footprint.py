"""What processes hold: memory of their own, child processes, connections."""

from __future__ import annotations

import common
import psutil


def report(pids: list[int]) -> None:
    """Report unique memory, processes and connections of each pid, looked at from outside.

    USS is what would be freed if the process ended. ``connections`` counts sockets that are
    connected, including the ones that mpiexec gave the rank: compare with a bare rank's.
    """
    processes = [psutil.Process(pid) for pid in pids]
    common.report("uss", "B", [process.memory_full_info().uss for process in processes])
    common.report("processes", "", [1 + len(process.children(recursive=True)) for process in processes])
    common.report("connections", "", [len(process.net_connections(kind="all")) for process in processes])
