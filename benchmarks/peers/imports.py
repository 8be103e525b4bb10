"""Import times, each in a fresh process, the statements taking turns."""

from __future__ import annotations

import subprocess
import sys

import common

STATEMENTS = {
    "import": "import hpcremote",
    "import_client": "from hpcremote import Client",
    "import_bare": "import zmq, cloudpickle",
}
CLOCK = "from time import perf_counter as t; b = t(); {}; print(t() - b)"


def seconds(statement: str) -> float:
    """Time one statement in a fresh interpreter, by its own clock (so its start-up does not count)."""
    words = [sys.executable, "-c", CLOCK.format(statement)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout)


def main() -> None:
    """Take turns, then report."""
    arguments = common.arguments()
    samples: dict[str, list[float]] = {metric: [] for metric in arguments.metrics}
    with common.bounded(300):
        for turn in range(1 + common.scaled(20, arguments.quick)):
            for metric in samples:
                took = seconds(STATEMENTS[metric])
                if turn:  # the first one fills the file cache
                    samples[metric].append(took)
    for metric, values in samples.items():
        common.report(metric, "s", values)


if __name__ == "__main__":
    main()
