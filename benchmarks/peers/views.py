"""The figures of a DirectView, measured by the same code for hpcremote and ipyparallel.

``client`` is the client of either: the calls used here are what the two have in common. ``empty`` is the
function that does nothing; it comes from the peer's own script, since what ``__main__`` defines
travels to engines and what a module defines does not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import common
import numpy as np

Empty = Callable[[], None]


@dataclass(frozen=True)
class Counts:
    """How many samples to take: a slow peer needs fewer for a steady median."""

    calls: int
    calls_all: int
    inflight: int
    bulk: int
    deadline: float = 60


def call_one(client: Any, empty: Empty, counts: Counts) -> None:
    """Measure one call on one engine."""
    view = client[0]
    samples = common.durations(lambda: view.apply_sync(empty), counts.calls, warmup=10)
    common.report("call_one", "s", samples)


def call_all(client: Any, empty: Empty, counts: Counts) -> None:
    """Measure one call on all engines."""
    view = client[:]
    samples = common.durations(lambda: view.apply_sync(empty), counts.calls_all, warmup=5)
    common.report("call_all", "s", samples)


def inflight(client: Any, empty: Empty, counts: Counts) -> None:
    """Measure many calls submitted to one engine before the first result is asked for."""
    view = client[0]

    def flood(amount: int) -> None:
        for result in [view.apply_async(empty) for _ in range(amount)]:
            result.get(counts.deadline)

    common.report("inflight", "1/s", common.rates(flood, counts.inflight, 3))


def push(client: Any, empty: Empty, counts: Counts) -> None:
    """Measure a big array going to one engine's namespace."""
    view, array = client[0], bulk_array()
    common.report(
        "push", "B/s", common.bandwidths(lambda: view.push({"bulk": array}, block=True), counts.bulk)
    )


def pull(client: Any, empty: Empty, counts: Counts) -> None:
    """Measure a big array coming from one engine's namespace."""
    view, array = client[0], bulk_array()
    view.push({"bulk": array}, block=True)
    if not np.array_equal(view.pull("bulk", block=True), array):
        raise ValueError("what came back is not what was sent")
    common.report("pull", "B/s", common.bandwidths(lambda: view.pull("bulk", block=True), counts.bulk))


def bulk_array() -> Any:
    """Make the array; every page of it is touched."""
    return np.arange(common.BULK_BYTES // 8, dtype=np.int64)


MEASURES = {"call_one": call_one, "call_all": call_all, "inflight": inflight, "push": push, "pull": pull}


def measure(client: Any, empty: Empty, metrics: list[str], counts: Counts) -> None:
    """Measure each metric that this module knows, in the order asked for."""
    for metric in metrics:
        if metric in MEASURES:
            with common.bounded(counts.deadline):
                MEASURES[metric](client, empty, counts)
