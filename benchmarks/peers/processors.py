"""What a call in flight costs in processor time, in each of the three processes that it passes through."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import common
import psutil

#: Calls a sample: processor time is counted in hundredths of a second.
CALLS = 20_000


def report(client: Any, empty: Callable[[], None], samples: int) -> None:
    """Report seconds a call for client, controller and engine 0 of hpcremote."""
    view = client[0]
    pids = {
        "client": os.getpid(),
        "controller": client.link.connection.pid,
        "engine": view.apply_sync(os.getpid),
    }
    processes = {name: psutil.Process(pid) for name, pid in pids.items()}
    spent: dict[str, list[float]] = {name: [] for name in pids}
    for number in range(samples + 1):
        before = {name: _seconds(process) for name, process in processes.items()}
        for result in [view.apply_async(empty) for _ in range(CALLS)]:
            result.get(60)
        for name, process in processes.items():
            if number:  # the first time is a warm-up
                spent[name].append((_seconds(process) - before[name]) / CALLS)
    for name, times in spent.items():
        common.report(f"inflight_{name}", "s", times)


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
