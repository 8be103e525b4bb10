"""Does memory stay flat over a million small calls? Prints what every process holds, as it goes.

    timeout 900 python benchmarks/memory.py [--calls 1000000] [--window 1000] [-n 1] [--profile local]

Calls are made in windows whose results are dropped; a row is printed after every tenth of them. The last
line is what the processes grew between the second row and the last: the first tenth fills caches.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

import hpcremote

MIB = 1 << 20


def main() -> None:
    options = _options()
    with hpcremote.Cluster(n=options.n, profile=options.profile) as rc:
        processes = _processes(rc)
        print("calls".rjust(9), "seconds".rjust(8), *(name.rjust(13) for name in processes), "   (MiB)")
        began = time.monotonic()
        step = max(options.window, options.calls // 10)
        looks = (
            done
            for done in itertools.chain([0], _work(rc[:], options.calls, options.window))
            if done % step < options.window or done >= options.calls
        )
        rows = [_row(done, time.monotonic() - began, processes) for done in looks]
        grown = zip(processes, rows[min(1, len(rows) - 1)], rows[-1], strict=True)
        print("growth after the first tenth: " + _listed({name: end - start for name, start, end in grown}))


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("--calls", type=int, default=1_000_000)
    made.add_argument("--window", type=int, default=1000, help="calls that are under way at once")
    made.add_argument("-n", type=int, default=1, help="engines; a call is for all of them")
    made.add_argument("--profile", default="local")
    return made.parse_args()


def _processes(rc: hpcremote.Client) -> dict[str, psutil.Process]:
    engines = {f"engine {info.id}": psutil.Process(info.pid) for info in rc.link.engines.values()}
    return {"client": psutil.Process(), "controller": psutil.Process(rc.link.welcome.pid), **engines}


def _work(view: hpcremote.DirectView, calls: int, window: int) -> Iterable[int]:
    """Make *calls* calls, and yield how many are done after each window."""
    for start in range(0, calls, window):
        count = min(window, calls - start)
        results = [view.apply_async(abs, -number) for number in range(start, start + count)]
        assert results[-1].get() == [start + count - 1] * len(view)
        for result in results:
            result.wait()
        yield start + count


def _row(done: int, seconds: float, processes: Mapping[str, psutil.Process]) -> list[float]:
    held = [process.memory_info().rss / MIB for process in processes.values()]
    print(f"{done:>9} {seconds:>8.1f}", *(f"{mib:>13.1f}" for mib in held), flush=True)
    return held


def _listed(grown: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {mib:+.1f} MiB" for name, mib in grown.items())


if __name__ == "__main__":
    main()
