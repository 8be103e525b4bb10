"""A sweep: many independent runs on the ranks of one allocation, each when a rank is free.

    hpcremote run -n 4 sweep.py [RUNS]

One job of n ranks instead of n jobs: the queue is waited for once, and a run that fails is reported with its
parameters while the others go on. Results are written as they come: a job that meets its time limit has lost
nothing that was finished.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, wait

import hpcremote


def population(rate: float, steps: int = 20_000) -> float:
    """Return the mean of a logistic map, whose behaviour depends on *rate* in a famous way."""
    if rate > 4:
        raise ValueError(f"the population of rate {rate} leaves [0, 1]")
    x, total = 0.5, 0.0
    for _ in range(steps):
        x = rate * x * (1 - x)
        total += x
    return total / steps


def sweep(rc: hpcremote.Client, rates: list[float]) -> Iterator[tuple[float, float | Exception]]:
    """Yield a result for each rate, in the order in which they come in."""
    waiting = iter(rates)
    running: dict[int, tuple[float, hpcremote.AsyncResult]] = {}
    for engine, rate in zip(rc.ids, waiting, strict=False):
        running[engine] = rate, rc[engine].apply_async(population, rate)
    while running:
        wait([result for _, result in running.values()], return_when=FIRST_COMPLETED)
        for engine, (rate, result) in list(running.items()):
            if not result.ready():
                continue
            del running[engine]
            if (following := next(waiting, None)) is not None:
                running[engine] = following, rc[engine].apply_async(population, following)
            try:
                yield rate, result.get()
            except hpcremote.RemoteError as error:
                yield rate, error


def main(runs: int = 40) -> int:
    """Sweep the rate from 2.5 to 4; write sweep.csv; return 1 if a run failed."""
    rates = [2.5 + 1.5 * i / max(1, runs - 1) for i in range(runs)]
    failed = 0
    with hpcremote.Client() as rc, open("sweep.csv", "w", newline="") as file:
        table = csv.writer(file)
        for rate, found in sweep(rc, rates):
            if isinstance(found, Exception):
                failed += 1
                print(f"rate {rate}: {found}", file=sys.stderr)
                continue
            table.writerow([rate, found])
            file.flush()
    print(f"{runs - failed} of {runs} runs are in sweep.csv")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
