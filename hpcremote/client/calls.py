"""The calls of a client: their names, results and metadata; waiting for them, aborting them.

Calls are named by *jobs*: a msg_id, a place in the history, an AsyncResult, or a list of these.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from numbers import Real
from typing import TYPE_CHECKING, Any

from hpcremote.client.flight import Flight, Seat
from hpcremote.client.memory import Memory, metadata_of, results_of
from hpcremote.client.metadata import Metadata
from hpcremote.client.result import AsyncResult

if TYPE_CHECKING:
    from hpcremote.client.link import Link

Targets = Any


class Calls:
    """The half of :class:`hpcremote.Client` that is about calls."""

    link: Link
    block: bool
    _memory: Memory

    def resolve(self, targets: Targets) -> tuple[list[int], bool]:
        """Return the ids that *targets* names, and whether it names one engine rather than a list."""
        raise NotImplementedError

    def msg_id(self, call: int, engine: int) -> str:
        """Return the name of a call on an engine."""
        return f"{self.link.uid}_{call}_{engine}"

    @property
    def history(self) -> list[str]:
        """The names of the last calls, oldest first."""
        return self._memory.history.msg_ids()

    @property
    def outstanding(self) -> set[str]:
        """The names of the calls that owe a result."""
        return self._memory.outstanding()

    def pending(self) -> list[Flight]:
        """The calls that owe a result and are held by somebody, oldest first; not for users."""
        return self._memory.pending()

    @property
    def results(self) -> Mapping[str, Any]:
        """Recent results by name; exceptions of calls that failed."""
        return results_of(self._memory)

    @property
    def metadata(self) -> Mapping[str, Metadata]:
        """Metadata of recent calls by name."""
        return metadata_of(self._memory)

    def get_result(
        self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True
    ) -> AsyncResult:
        """Return an AsyncResult for earlier calls of this client.

        Args:
            indices_or_msg_ids: a place in the history (default: the last), a msg_id, an AsyncResult, or a
                list of these.
            block: wait for the result.
            owner: no meaning here.

        Raises:
            KeyError: that result is no longer held.
        """
        jobs = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        several = isinstance(jobs, (list, tuple, set))
        if isinstance(jobs, AsyncResult):
            result = jobs
        else:
            seats = self._seats(jobs)
            name = seats[0][0].name if seats else "nothing"
            result = AsyncResult(self, seats, name=name, single=not several)
        if self.block if block is None else block:
            result.wait()
        return result

    def _seats(self, jobs: Any) -> list[Seat]:
        """Return the calls that *jobs* names: indices, msg_ids, AsyncResults, lists of them."""
        if isinstance(jobs, AsyncResult):
            return list(jobs.seats)
        if isinstance(jobs, str):
            return [self._memory.find(jobs)]
        if hasattr(jobs, "__index__"):
            return [self._memory.find(self._memory.history.pick(operator.index(jobs)))]
        if isinstance(jobs, Iterable):
            return [seat for job in jobs for seat in self._seats(job)]
        raise TypeError(f"calls are named by msg_id, index or AsyncResult, not {jobs!r}")

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for calls (default: all outstanding ones): AsyncResults, Futures, msg_ids or indices.

        Returns:
            Whether they are all done.
        """
        if jobs is None:
            pending = self._memory.pending()
            return self.link.wait(lambda: not any(flight.missing for flight in pending), seconds(timeout))
        wanted = jobs if isinstance(jobs, Iterable) and not isinstance(jobs, (str, AsyncResult)) else [jobs]
        futures = [job for job in wanted if isinstance(job, Future)]
        seats: list[Seat] = []
        for job in wanted:
            if not isinstance(job, Future):
                seats += self._known_seats(job)
            elif not isinstance(job, AsyncResult):
                job.add_done_callback(lambda _: self.link.wake())  # it comes by another way than the link

        def finished() -> bool:
            return all(f.done() for f in futures) and all(f.results[seat] is not None for f, seat in seats)

        return self.link.wait(finished, seconds(timeout))

    def _known_seats(self, job: Any) -> list[Seat]:
        try:
            return self._seats(job)
        except KeyError:
            return []  # what is not held any more has finished

    def wait_interactive(self, jobs: Any = None, interval: float = 1.0, timeout: float | None = -1.0) -> None:
        """Wait for calls (default: all outstanding ones) with a progress bar."""
        names = sorted(self.outstanding) if jobs is None else jobs
        if jobs is not None or names:
            self.get_result(names).wait_interactive(interval=interval, timeout=timeout)

    def result_status(self, msg_ids: Any, status_only: bool = True) -> dict[Any, Any]:
        """Return which calls are ``pending`` and which ``completed``, with results unless *status_only*."""
        seats = self._seats(msg_ids)
        done = [place for place in seats if place[0].results[place[1]] is not None]
        status: dict[Any, Any] = {
            "completed": [flight.msg_id(seat) for flight, seat in done],
            "pending": [flight.msg_id(seat) for flight, seat in seats if flight.results[seat] is None],
        }
        if not status_only:
            status |= {name: self.results[name] for name in status["completed"]}
        return status

    # ------------------------------------------------------------ giving up, letting go

    def abort(
        self,
        jobs: Any = None,
        targets: Targets = None,
        block: bool | None = None,
        *,
        interrupt: bool = False,
    ) -> None:
        """Do not start calls (default: all outstanding ones of this client) where they have not started.

        Their results will be ``TaskAborted``. What runs goes on, or with *interrupt* ends with a
        ``KeyboardInterrupt``.
        """
        only = None if targets is None else set(self.resolve(targets)[0])
        seats = self._seats(sorted(self.outstanding) if jobs is None else jobs)
        calls: dict[int, list[int]] = {}
        for flight, seat in seats:
            if flight.results[seat] is None and (only is None or flight.targets[seat] in only):
                calls.setdefault(flight.call, []).append(flight.targets[seat])
        by_targets: dict[tuple[int, ...], list[int]] = {}
        for call, engines in calls.items():
            by_targets.setdefault(tuple(engines), []).append(call)
        for ids, numbers in by_targets.items():
            self.link.abort(numbers, ids, interrupt=interrupt)

    def purge_local_results(self, jobs: Any = (), targets: Targets = ()) -> None:
        """Let go of results that the client still holds: of these calls, or ``'all'``, or of these engines.

        Raises:
            RuntimeError: a call among them owes its result.
        """
        if isinstance(jobs, str) and jobs == "all":
            if self.outstanding:
                raise RuntimeError(
                    f"{len(self.outstanding)} calls have not finished: wait for them or abort them"
                )
            self._memory.forget()
            return
        seats = self._known_seats(jobs)
        if targets is None or isinstance(targets, (str, int)) or len(targets):
            ids = set(self.resolve(targets)[0])
            held = [
                (flight, seat) for flight in self._memory.flights() for seat in range(len(flight.targets))
            ]
            seats += [(flight, seat) for flight, seat in held if flight.targets[seat] in ids]
        if any(flight.results[seat] is None for flight, seat in seats):
            raise RuntimeError("some of these calls have not finished: wait for them or abort them")
        self._memory.forget(seats)

    def purge_results(self, jobs: Any = (), targets: Targets = ()) -> None:
        """Let go of results; the same as ``purge_local_results``, since the controller keeps none."""
        self.purge_local_results(jobs, targets)

    def purge_everything(self) -> None:
        """Let go of all results, and of the history."""
        self.purge_local_results("all")
        self._memory.history.forget()


def seconds(timeout: float | None) -> float | None:
    """Return a time to wait; None or a negative number is without limit.

    Raises:
        TypeError: it is no number.
    """
    if timeout is not None and not isinstance(timeout, Real):
        raise TypeError(f"timeout has to be a number of seconds, not {timeout!r}")
    return None if timeout is None or timeout < 0 else timeout
