"""Bulk data to and from all engines, beside what it costs to do it by hand.

By hand means: one transfer between the client and one engine, and then native MPI between the engines. The
floor of a figure is the sum of the two, measured in the same session on the same ranks. ::

    push_all    view.push(array)          floor: push to one + Bcast
    scatter     view.scatter(array)       floor: push to one + Scatterv
    gather      view.gather(name)         floor: Gatherv + pull from one
    reduce      view.reduce(name, "sum")  floor: Reduce + pull from one

``push_all_mpi`` and ``push_all_controller`` (and so on) are the same with that one told to carry the data:
one sample a round, since some of them take seconds.
"""

from __future__ import annotations

import functools
import time
from typing import Any

import common
import numpy as np

VIAS = {"": None, "_mpi": "mpi", "_controller": "controller"}


#: What the engines do by mpi4py alone, into memory of its own; returns the seconds that it took.
NATIVE = """
def native(operation):
    import time
    import numpy as np
    from hpcremote.engine.comm import current

    comm = current.comm(interruptible=False)
    root = comm.rank == 0
    each, longer = divmod(len(bulk), comm.size)
    counts = [each + (rank < longer) for rank in range(comm.size)]
    comm.Barrier()
    began = time.perf_counter()
    if operation == "Bcast":
        comm.Bcast(bulk if root else np.empty_like(bulk))
    elif operation == "Scatterv":
        comm.Scatterv([bulk, counts] if root else None, np.empty_like(part))
    elif operation == "Gatherv":
        comm.Gatherv(part, [np.empty_like(bulk), counts] if root else None)
    elif operation == "Reduce":
        comm.Reduce(bulk, np.empty_like(bulk) if root else None)
    comm.Barrier()
    return time.perf_counter() - began
"""


class Bulk:
    """The operations and their floors."""

    def __init__(self, client: Any) -> None:
        self.all, self.one = client[:], client[0]
        self.array = np.arange(common.BULK_BYTES // 8, dtype=np.int64)
        self.all.push({"bulk": self.array}, block=True)
        self.all.scatter("part", self.array, block=True)
        self.all.execute(NATIVE, block=True)

    def push_all(self, via: str | None) -> None:
        """Give all engines the array."""
        self.all.push({"bulk": self.array}, block=True, via=via)

    def scatter(self, via: str | None) -> None:
        """Give each engine its part."""
        self.all.scatter("part", self.array, block=True, via=via)

    def gather(self, via: str | None) -> None:
        """Get the parts as one array."""
        if len(self.all.gather("part", block=True, via=via)) != len(self.array):
            raise ValueError("what was gathered is not what was scattered")

    def reduce(self, via: str | None) -> None:
        """Get the sum of all engines' arrays."""
        if self.all.reduce("bulk", "sum", block=True, via=via)[1] != len(self.all):
            raise ValueError("the sum is wrong")

    def floor(self, operation: str, transfer: str) -> float:
        """Do it by hand; return the seconds it took."""
        began = time.perf_counter()
        if transfer == "push":
            self.one.push({"bulk": self.array}, block=True)
        else:
            self.one.pull("bulk", block=True)
        between = time.perf_counter() - began
        return between + self.all.pull(f"native({operation!r})", block=True)[0]


FLOORS = {
    "push_all": ("Bcast", "push"),
    "scatter": ("Scatterv", "push"),
    "gather": ("Gatherv", "pull"),
    "reduce": ("Reduce", "pull"),
}


def measure(client: Any, metrics: list[str], count: int) -> None:
    """Measure what was asked for of this module."""
    wanted = [name for name in FLOORS if any(metric.startswith(name) for metric in metrics)]
    if not wanted:
        return
    bulk = Bulk(client)
    for name in wanted:
        with common.bounded(90):
            if f"{name}_floor" in metrics:
                samples = [bulk.floor(*FLOORS[name]) for _ in range(count + 1)]
                common.report(f"{name}_floor", "s", samples[1:])
            for suffix, via in VIAS.items():
                if name + suffix in metrics:
                    operation = functools.partial(getattr(bulk, name), via)
                    some, warmup = (1, 0) if suffix else (count, 1)
                    common.report(name + suffix, "s", common.durations(operation, some, warmup))
