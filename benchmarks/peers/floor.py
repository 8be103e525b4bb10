"""The floor: what ZeroMQ alone takes for the same trip, with nothing of anybody's protocol on it.

::

    this process                 --role proxy (C++ loop)              --role echo (or store)
    DEALER ────tcp loopback────▶ ROUTER ─ zmq.proxy ─ DEALER ────tcp loopback────▶ DEALER
           ◀───────────────────                              ◀───────────────────

Both ends are plain blocking Python loops; no encryption; big frames are never copied in Python.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator

import common
import zmq

LOOPBACK = "tcp://127.0.0.1"
SMALL = b"x" * 100
MANY = 20_000
FETCH = b"fetch"
FAR_ENDS = {"echo": ("call_one", "inflight"), "store": ("push", "pull")}
ACKNOWLEDGE = b"ok"


def dealer(context: zmq.Context, address: str) -> zmq.Socket:
    """Connect a DEALER that never drops nor blocks by a high-water mark."""
    socket = context.socket(zmq.DEALER)
    socket.set_hwm(0)
    socket.linger = 0
    socket.connect(address)
    return socket


def proxy() -> None:
    """Be the middle: bind both sides, say where, and never come back from the C++ loop."""
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    for socket in (front, back):
        socket.set_hwm(0)
        port = socket.bind_to_random_port(LOOPBACK)
        print(f"{LOOPBACK}:{port}", flush=True)
    zmq.proxy(front, back)


def echo(address: str) -> None:
    """Be the far end for small messages: send each one back."""
    socket = dealer(zmq.Context(), address)
    recv, send = socket.recv, socket.send
    while True:
        send(recv(), zmq.SNDMORE)
        send(recv())


def store(address: str) -> None:
    """Be the far end for big ones: acknowledge what comes, answer ``FETCH`` with as much."""
    socket = dealer(zmq.Context(), address)
    bulk = bytearray(common.BULK_BYTES)
    while True:
        socket.send(socket.recv(), zmq.SNDMORE)
        frame = socket.recv(copy=False)
        if len(frame) == common.BULK_BYTES:
            socket.send(ACKNOWLEDGE)
        else:
            socket.send(bulk, copy=False)


@contextlib.contextmanager
def child(*words: str) -> Iterator[subprocess.Popen[str]]:
    """Start this script in another role; end it afterwards."""
    process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def line(process: subprocess.Popen[str]) -> str:
    """Read the next line that a child says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Floor:
    """The near end and its measurements."""

    def __init__(self, socket: zmq.Socket, quick: bool) -> None:
        self.socket = socket
        self.quick = quick

    def call(self) -> None:
        """One round trip."""
        self.socket.send(SMALL)
        self.socket.recv()

    def flood(self, amount: int) -> None:
        """Send everything, then receive everything, as a list of ``apply_async`` does."""
        for _ in range(amount):
            self.socket.send(SMALL)
        for _ in range(amount):
            self.socket.recv()

    def windowed(self, amount: int, window: int = 500) -> None:
        """Keep ``window`` messages on their way."""
        for _ in range(window):
            self.socket.send(SMALL)
        for _ in range(amount - window):
            self.socket.recv()
            self.socket.send(SMALL)
        for _ in range(window):
            self.socket.recv()

    def push(self, bulk: bytearray) -> None:
        """Send one big frame, wait until the far end has it."""
        self.socket.send(bulk, copy=False)
        self.socket.recv()

    def pull(self) -> None:
        """Ask for one big frame."""
        self.socket.send(FETCH)
        self.socket.recv(copy=False)

    def measure_small(self, metric: str) -> None:
        """Measure and report a metric of small messages."""
        if metric == "call_one":
            common.report(
                metric, "s", common.durations(self.call, common.scaled(3000, self.quick), warmup=100)
            )
        else:
            common.report(metric, "1/s", common.rates(self.flood, MANY, 5))
            common.report("inflight_windowed", "1/s", common.rates(self.windowed, MANY, 5))

    def measure_bulk(self, metric: str) -> None:
        """Measure and report a metric of big messages."""
        bulk = bytearray(common.BULK_BYTES)
        operation = self.pull if metric == "pull" else lambda: self.push(bulk)
        common.report(metric, "B/s", common.bandwidths(operation, common.scaled(10, self.quick)))


def measure(far_end: str, metrics: list[str], quick: bool) -> None:
    """Start a proxy and a far end, and measure through them."""
    with child("--role", "proxy") as middle:
        front, back = line(middle), line(middle)
        with child("--role", far_end, "--address", back), zmq.Context() as context:
            floor = Floor(dealer(context, front), quick)
            for metric in metrics:
                with common.bounded(60):
                    (floor.measure_bulk if far_end == "store" else floor.measure_small)(metric)
            floor.socket.close()


def main() -> None:
    """Be the role that was asked for; without one, measure."""
    arguments = common.arguments()
    if arguments.role == "proxy":
        proxy()
    elif arguments.role == "echo":
        echo(arguments.address)
    elif arguments.role == "store":
        store(arguments.address)
    else:
        common.about("pyzmq")
        for far_end, able in FAR_ENDS.items():
            metrics = [metric for metric in arguments.metrics if metric in able]
            if metrics:
                measure(far_end, metrics, arguments.quick)


if __name__ == "__main__":
    main()
