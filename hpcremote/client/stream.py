"""Show what engines print: each piece under the name of its stream and engine."""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence

from hpcremote.client.flight import Flight

_NAMES = {1: "stdout", 2: "stderr"}


class OutputPrinter:
    """Writes pieces of output to this process's stdout and stderr, under headings ``[stdout:3]``.

    ``feed`` is called by the thread that reads the socket, so it does not raise: what went wrong
    (a closed pipe) is raised by ``end``.
    """

    def __init__(self, *, prefixed: bool = True) -> None:
        self._prefixed = prefixed
        self._lock = threading.RLock()
        self._heading = ""
        self._at_line_start = True
        self._only: Collection[int] | None = None
        self._failure: Exception | None = None

    def begin(self, flights: Sequence[Flight], engines: Collection[int]) -> None:
        """Print what there is of the flights on these engines, and from now on what comes."""
        self._only = engines
        # What comes meanwhile waits for the lock, so nothing is printed out of order.
        with self._lock:
            for flight in flights:
                for engine, stream, text in flight.watch(self):
                    self.feed(engine, stream, text)

    def end(self, flights: Sequence[Flight]) -> None:
        """Print no more."""
        for flight in flights:
            flight.unwatch(self)
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what went wrong while printing."""
        if self._failure is not None:
            raise self._failure

    def feed(self, engine: int, stream: int, text: str) -> None:
        """Print a piece."""
        if not text or self._failure is not None or (self._only is not None and engine not in self._only):
            return
        with self._lock:
            try:
                self._write(f"[{_NAMES[stream]}:{engine}]", text, sys.stdout if stream == 1 else sys.stderr)
            except Exception as error:  # noqa: BLE001 - kept for end(); the reader of the socket must go on
                self._failure = error

    def _write(self, heading: str, text: str, file: object) -> None:
        write = file.write  # type: ignore[attr-defined]
        if self._prefixed and heading != self._heading:
            write(heading + "\n" if self._at_line_start else f"\n{heading}\n")
            self._heading = heading
        write(text)
        self._at_line_start = text.endswith("\n")
        file.flush()  # type: ignore[attr-defined]
