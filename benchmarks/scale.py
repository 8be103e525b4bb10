"""How far does one controller go? Registers simulated ranks, 128 to a node, and calls all of them.

    python benchmarks/scale.py [--ranks 1000,4096,10000,65536] [--calls 5]

A row for each number of ranks: the time from the first connection until the client sees all engines, the
best and the median time of an empty call on all of them, and what client and controller hold afterwards.
The ranks are simulated (``simulated.py``): sockets, keys and frames are real, and every rank has an outcome
of its own, but no process. Everything is on this machine, so its cores do the nodes' work as well.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))

import hpcremote

HERE = Path(__file__).parent
MIB = 1 << 20
COLUMNS = ("ranks", "nodes", "register s", "call s, best", "median", "client MiB", "controller MiB")


def main() -> None:
    """Print a row for each number of ranks, each from a fresh client and controller."""
    options = _options()
    if options.one:
        print(" | ".join(measure(options.one, options.calls)), flush=True)
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---:|" * len(COLUMNS), flush=True)
    for ranks in options.ranks:
        words = [sys.executable, __file__, "--one", str(ranks), "--calls", str(options.calls)]
        row = subprocess.run(words, check=True, capture_output=True, text=True, timeout=300).stdout.strip()
        print(f"| {row} |", flush=True)


def _options() -> argparse.Namespace:
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    numbers = lambda text: [int(word) for word in text.split(",")]  # noqa: E731
    made.add_argument("--ranks", type=numbers, default=[1_000, 4_096, 10_000, 65_536])
    made.add_argument("--calls", type=int, default=5)
    made.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return made.parse_args()


def measure(ranks: int, calls: int) -> list[str]:
    """Return a row."""
    with tempfile.TemporaryDirectory(prefix="hpcremote-scale-") as folder, controller(Path(folder)) as pid:
        (found,) = Path(folder).glob("clusters/*/*")
        words = [sys.executable, str(HERE / "simulated.py"), str(found / "engine.json"), str(ranks)]
        with (
            hpcremote.Client(found / "client.json") as rc,
            subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as nodes,
        ):
            assert nodes.stdin is not None
            try:
                time.sleep(0.5)  # its imports are not what is measured
                began = time.perf_counter()
                nodes.stdin.write("go\n")
                nodes.stdin.flush()
                rc.wait_for_engines(ranks, timeout=120.0)
                registered = time.perf_counter() - began
                times = [_call(rc, ranks) for _ in range(calls)]
                sizes = [psutil.Process(one).memory_info().rss for one in (os.getpid(), pid)]
            finally:
                nodes.stdin.close()
    figures = [f"{registered:.2f}", f"{min(times):.3f}", f"{statistics.median(times):.3f}"]
    nodes_used = -(-ranks // 128)
    return [f"{ranks:,}", str(nodes_used), *figures, *(f"{size / MIB:.0f}" for size in sizes)]


def _call(rc: hpcremote.Client, ranks: int) -> float:
    began = time.perf_counter()
    answers = rc[:].apply_sync(nothing)
    spent = time.perf_counter() - began
    if answers != [None] * ranks:
        raise RuntimeError("not every rank has answered")
    return spent


def nothing() -> None:
    """Do nothing."""


@contextmanager
def controller(folder: Path) -> Iterator[int]:
    """Run a controller with a folder of its own; yield its process id."""
    environment = {**os.environ, "HPCREMOTE_DIR": str(folder), "PYTHONPATH": str(HERE.parent)}
    words = [sys.executable, "-m", "hpcremote", "controller"]
    log = folder / "controller.log"
    with log.open("w") as stderr:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=stderr, env=environment)
    try:
        deadline = time.monotonic() + 30.0
        while not list(folder.glob("clusters/*/*/engine.json")):  # the last to be written
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no controller: {log.read_text()}")
            time.sleep(0.01)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30.0)


if __name__ == "__main__":
    main()
