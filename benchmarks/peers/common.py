"""What every worker script shares: arguments, deadlines, clocks and the JSON lines that it prints.

It runs in each peer's own environment, so it needs nothing beside the standard library::

    benchmarks/run.py ──starts──▶ peers/<peer>.py --n 4 --metrics call_one,push
                      ◀─stdout──  {"metric": "call_one", "unit": "s", "samples": [...]}   one line a metric
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib.metadata
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence

#: The array of the push and pull figures.
BULK_BYTES = 100_000_000

#: When the bounds end that the program is inside of, outermost first.
_bounds: list[float] = []


def arguments() -> argparse.Namespace:
    """Read the command line that ``benchmarks/sessions.py`` writes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=4, help="engines")
    parser.add_argument("--metrics", type=lambda text: text.split(","), default=[])
    parser.add_argument("--quick", action="store_true", help="a tenth of the samples")
    parser.add_argument("--tcp", action="store_true", help="hpcremote: TCP with CURVE, no local transport")
    parser.add_argument("--role", default="", help="floor: the process to be")
    parser.add_argument("--address", default="", help="floor: where to connect")
    return parser.parse_args()


def report(metric: str, unit: str, samples: Sequence[float]) -> None:
    """Hand one metric's samples to ``run.py``."""
    sys.stdout.write("\n" + json.dumps({"metric": metric, "unit": unit, "samples": list(samples)}) + "\n")
    sys.stdout.flush()


def about(*distributions: str) -> None:
    """Hand the versions of what is measured to ``run.py``."""
    versions = {name: importlib.metadata.version(name) for name in distributions}
    sys.stdout.write("\n" + json.dumps({"versions": versions}) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """End the process, with a traceback of where it waited, when the block takes longer than this.

    A bound inside another one puts that off until it is left. What the process leaves behind is
    the session's to clean up.
    """
    _bounds.append(time.monotonic() + seconds)
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        _bounds.pop()
        faulthandler.cancel_dump_traceback_later()
        if _bounds:
            faulthandler.dump_traceback_later(max(1, _bounds[-1] - time.monotonic()), exit=True)


def durations(operation: Callable[[], object], count: int, warmup: int = 3) -> list[float]:
    """Time ``operation`` ``count`` times, in seconds, after ``warmup`` calls that do not count."""
    for _ in range(warmup):
        operation()
    samples = []
    for _ in range(count):
        began = time.perf_counter()
        operation()
        samples.append(time.perf_counter() - began)
    return samples


def rates(operation: Callable[[int], object], amount: int, count: int) -> list[float]:
    """Amount per second of ``operation(amount)``, ``count`` times."""
    return [amount / seconds for seconds in durations(lambda: operation(amount), count, warmup=1)]


def bandwidths(operation: Callable[[], object], count: int) -> list[float]:
    """Bytes per second of an operation that moves :data:`BULK_BYTES`."""
    return [BULK_BYTES / seconds for seconds in durations(operation, count, warmup=1)]


def scaled(count: int, quick: bool) -> int:
    """How many samples to take."""
    return max(3, count // 10) if quick else count
