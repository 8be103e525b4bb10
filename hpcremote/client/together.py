"""What a result tells of a call on several engines before it is over, and how to end such a call.

::

    get() ── waits ──▶ one engine has failed, others go on ──▶ said once, in the log (on stderr by default)
       │                                                       and in ``failures``
       ├── Ctrl-C ──▶ said: the engines go on; again ──▶ interrupt on all engines, at once
       └── all have answered ──▶ the value, or the error with a table by engine
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from hpcremote.client.comm import base_of
from hpcremote.client.flight import Raised
from hpcremote.client.progress import in_ipython
from hpcremote.client.report import Report
from hpcremote.client.stacks import look
from hpcremote.errors import HPCRemoteError, spans

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger("hpcremote.client")

#: An error on one engine is told while others go on for this many seconds.
TELL = 0.3
#: A second Ctrl-C within this many seconds concerns the engines.
AGAIN = 1.0
#: How long engines may take to end an interrupted call before the client stops waiting.
PATIENCE = 3.0
#: How long it may take to see where those are that do not, in seconds.
LOOK = 6.0


class Together(Report):
    """The half of :class:`hpcremote.AsyncResult` that is about calls on several engines."""

    # ------------------------------------------------------------ what is known by now

    @property
    def failures(self) -> dict[int, BaseException]:
        """The errors of the engines that have failed by now, by engine id; waits for nothing."""
        found = {}
        for flight, seat in self._seats:
            if flight.results[seat] is not None and not flight.succeeded(seat):
                outcome = flight.outcome(seat)
                if type(outcome) is Raised:
                    found[flight.targets[seat]] = outcome.error
        return found

    @property
    def skew(self) -> float:
        """Seconds between the first and the last engine to begin the call, by the clocks of their hosts.

        Raises:
            TimeoutError: the call has not finished.
        """
        self._must_be_ready()
        begun = [started for started, _ in self._starts()]
        return max(begun) - min(begun) if begun else 0.0

    @property
    def last(self) -> int | None:
        """The engine that was the last to begin the call; None if it began on none."""
        self._must_be_ready()
        return max(self._starts(), default=(0.0, None))[1]

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))
        if self.ready() and len(self._seats) > 1 and self.last is not None:
            printer.text(f"\nbegun within {self.skew:.3g} s, last on engine {self.last}")

    def _starts(self) -> list[tuple[float, int]]:
        rows = [(flight.times(seat)[0], flight.targets[seat]) for flight, seat in self._seats]
        return [row for row in rows if row[0]]

    # ------------------------------------------------------------ waiting

    def wait_telling(self, timeout: float | None) -> bool:
        """Wait until the result is there, and say so if an engine has failed while others go on.

        Returns:
            Whether it is there.
        """
        try:
            if self._flight is not None and len(self._flight.targets) == 1:
                return self.wait_until(self._is_there, timeout)
            return self._wait_for_all(timeout)
        except KeyboardInterrupt:
            self._think_again()
            raise

    def _wait_for_all(self, timeout: float | None) -> bool:
        deadline = None if timeout is None or timeout < 0 else time.monotonic() + timeout

        def left(most: float | None = None) -> float | None:
            rest = None if deadline is None else max(0.0, deadline - time.monotonic())
            return most if rest is None else rest if most is None else min(most, rest)

        if not self.has_failed() and not self._is_there():
            self.wait_until(lambda: self._is_there() or self.has_failed(), left())
        if not self._is_there() and self.has_failed() and not self.wait_until(self._is_there, left(TELL)):
            self._tell_of_failures()
        return self.wait_until(self._is_there, left())

    def _tell_of_failures(self) -> None:
        failures = self.failures
        going_on = [flight.targets[seat] for flight, seat in self._seats if flight.results[seat] is None]
        if not failures or not going_on:
            return
        engine, error = next(iter(failures.items()))
        more = f" (and {len(failures) - 1} more engines)" if len(failures) > 1 else ""
        _log.warning(
            "%s has failed on engine %d%s, while %s %s on:\n%s",
            self._fname,
            engine,
            more,
            _named(going_on),
            "go" if len(going_on) > 1 else "goes",
            error,
        )

    # ------------------------------------------------------------ ending it

    def abort(self) -> None:
        """End the call: drop it where it waits, raise ``KeyboardInterrupt`` in it where it has begun.

        All its engines are told in one step, so no rank is left in a collective that others will not join.

        Raises:
            RuntimeError: it has finished.
        """
        if self.ready():
            raise RuntimeError("the call has finished, it cannot be aborted")
        self._client.abort(self, interrupt=True)

    interrupt = abort

    def _think_again(self) -> None:
        """After a Ctrl-C: another one soon concerns the engines."""
        if self._is_there() or not somebody_watches():
            return
        try:  # the next one may come at any moment from here on
            _log.warning(
                "%s goes on on its engines; Ctrl-C again within %g s interrupts it there, too",
                self._fname,
                AGAIN,
            )
            self.wait_until(self._is_there, AGAIN)
        except KeyboardInterrupt:
            if not self._is_there():
                self.abort()
                if not self.wait_until(self._is_there, PATIENCE):
                    self._tell_who_goes_on()

    def _tell_who_goes_on(self) -> None:
        going_on = [flight.targets[seat] for flight, seat in self._seats if flight.results[seat] is None]
        if not going_on:
            return
        client: Any = self._client  # all of it, and not the part that makes calls
        here = client.link.engines
        bases = sorted({base_of(here[engine]) for engine in going_on if engine in here})
        try:
            seen = str(look(client.link, going_on, timeout=LOOK))
            numbers = {one.base: one.number for one in client.engine_sets}
        except (HPCRemoteError, TimeoutError) as error:  # what the call itself does is what counts
            seen, numbers = f"(they cannot be seen: {error})", {}
        remedies = [f"rc.set({numbers[base]}).restart()" for base in bases if base in numbers]
        _log.warning(
            "%s not react to the interrupt; %s would start them anew under the same ids. Where they are:\n%s",
            f"{_named(going_on)} {'do' if len(going_on) > 1 else 'does'}",
            " and ".join(remedies) or "restarting their engine set",
            seen,
        )


def somebody_watches() -> bool:
    """Say whether a person may press Ctrl-C again; a program that gets SIGINT is not kept waiting."""
    at_prompt = in_ipython() or hasattr(sys, "ps1") or (sys.stderr is not None and sys.stderr.isatty())
    return at_prompt and threading.current_thread() is threading.main_thread()


def _named(engines: Sequence[int]) -> str:
    return f"engine{'s' if len(engines) > 1 else ''} {spans(engines)}"
