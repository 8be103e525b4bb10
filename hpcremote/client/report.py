"""What a result tells besides its value: metadata, times, progress and output."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ALL_COMPLETED
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from hpcremote.client.arrival import Arrival
from hpcremote.client.metadata import Metadata
from hpcremote.client.progress import in_ipython, progress_bar
from hpcremote.client.reply import display_replies
from hpcremote.client.stream import OutputPrinter


class Report(Arrival):
    """The reporting half of :class:`hpcremote.AsyncResult`."""

    _single: bool
    _fname: str

    # ------------------------------------------------------------ metadata

    @property
    def msg_ids(self) -> list[str]:
        """The names of the call, one for each engine."""
        return [flight.msg_id(seat) for flight, seat in self._seats]

    @property
    def metadata(self) -> Any:
        """What is known of the call by now; a dictionary, or a list of them in a view of several engines."""
        told = self._all_metadata()
        return told[0] if self._single else told

    def _all_metadata(self) -> list[Metadata]:
        return [flight.metadata(seat) for flight, seat in self._seats]

    @property
    def carrier(self) -> str:
        """Who carried the data between engines: ``mpi`` or ``controller``."""
        return "mpi" if any(flight.carrier == "mpi" for flight, _ in self._seats) else "controller"

    # ------------------------------------------------------------ times

    def timedelta(
        self,
        start: Any,
        end: Any,
        start_key: Callable[[Any], datetime] = min,
        end_key: Callable[[Any], datetime] = max,
    ) -> float:
        """Return the seconds between two times, or between the first of some and the last of others.

        Args:
            start: a datetime, or several, such as ``ar.submitted``.
            end: a datetime, or several, such as ``ar.received``.
            start_key: picks one of *start*.
            end_key: picks one of *end*.
        """
        begin = start if isinstance(start, datetime) else start_key(start)
        finish = end if isinstance(end, datetime) else end_key(end)
        return (finish - begin).total_seconds()

    @property
    def elapsed(self) -> float:
        """Seconds since the call was sent, until it was finished."""
        if self.ready():
            return self.wall_time
        return time.time() - min(flight.submitted for flight, _ in self._seats)

    @property
    def wall_time(self) -> float:
        """Seconds from sending the call to its last result.

        Raises:
            TimeoutError: it has not finished.
        """
        self._must_be_ready()
        if not self._seats:
            return 0.0
        last = max(flight.times(seat)[2] for flight, seat in self._seats)
        return last - min(flight.submitted for flight, _ in self._seats)

    @property
    def serial_time(self) -> float:
        """Seconds that the engines worked, added up.

        Raises:
            TimeoutError: the call has not finished.
        """
        self._must_be_ready()
        spans = [flight.times(seat) for flight, seat in self._seats]
        return sum(completed - started for started, completed, _ in spans)

    def _must_be_ready(self) -> None:
        if not self.ready():
            raise TimeoutError("Result not ready.")

    # ------------------------------------------------------------ progress

    def weights(self) -> Sequence[int]:
        """Return how many items each engine has."""
        return [1] * len(self._seats)

    @property
    def progress(self) -> int:
        """How many items are done, of ``len(ar)``."""
        landed = zip(self._seats, self.weights(), strict=True)
        return sum(weight for (flight, seat), weight in landed if flight.results[seat] is not None)

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,
        return_when: str = ALL_COMPLETED,
    ) -> None:
        """Wait with a progress bar.

        Args:
            interval: seconds between two looks.
            timeout: seconds after which to stop waiting; None or a negative number waits without limit.
            widget: show a widget (default: in notebooks) or a line of text.
            return_when: as for ``wait``.
        """
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout
        total = sum(self.weights())
        with progress_bar(total, self._fname, widget=widget) as bar:
            finished = False
            while not finished and (deadline is None or time.monotonic() < deadline):
                finished = self._enough(self.wait(interval, return_when), return_when)
                bar.update(self.progress)
            bar.update(self.progress)

    @staticmethod
    def _enough(waited: Any, return_when: str) -> bool:
        done, pending = waited
        if not pending or return_when == ALL_COMPLETED:
            return not pending
        return any(return_when == "FIRST_COMPLETED" or part.has_failed() for part in done)

    # ------------------------------------------------------------ output

    @contextmanager
    def stream_output(self) -> Iterator[None]:
        """Print what the engines print, as it comes, while the block runs."""
        printer = OutputPrinter()
        flights = list({id(flight): flight for flight, _ in self._seats}.values())
        printer.begin(flights, {flight.targets[seat] for flight, seat in self._seats})
        try:
            yield
        finally:
            printer.end(flights)

    def display_outputs(self, groupby: str = "type", result_only: bool = False) -> None:
        """Print what the engines printed.

        Args:
            groupby: ``type`` prints all stdout, then all stderr; ``engine`` engine by engine;
                ``order`` is the same as ``type`` here.
            result_only: only display what the last lines of ``execute(code, silent=False)`` show; that is
                done in IPython only.

        Raises:
            ValueError: *groupby* is none of these.
        """
        if groupby not in ("type", "engine", "order"):
            raise ValueError(f"groupby is 'type', 'engine' or 'order', not {groupby!r}")
        self.wait()
        if not result_only:
            self._print_outputs(groupby)
        if in_ipython():
            display_replies([flight.outcome(seat) for flight, seat in self._seats])

    def _print_outputs(self, groupby: str) -> None:
        rows = [(stream, seat) for stream in (1, 2) for seat in range(len(self._seats))]
        if groupby == "engine":
            rows.sort(key=lambda row: row[1])
        printer = OutputPrinter(prefixed=not self._single)
        for stream, place in rows:
            flight, seat = self._seats[place]
            printer.feed(flight.targets[seat], stream, flight.text(seat, stream))
        printer.raise_failure()
