"""Results that are not there yet: a ``Future`` and a superset of ``multiprocessing.pool.AsyncResult``.

::

    Flight(s) ──arrived──▶ AsyncResult ──Future──▶ callbacks, concurrent.futures.wait, asyncio
                               │
                               └─get()─▶ link.wait() until it is there, then unpickle, once

An :class:`AsyncResult` is a view of *seats* (one engine of one call each). The one that a call returns
has all seats of its flight; ``split``, ``join`` and ``Client.get_result`` make others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hpcremote.client.arrival import condition
from hpcremote.client.composite import composite
from hpcremote.client.flight import Flight, Raised, Seat
from hpcremote.client.metadata import KEY_SET, KEYS
from hpcremote.client.together import Together

if TYPE_CHECKING:
    from hpcremote.client.calls import Calls

_UNREAD: Final = object()


class AsyncResult(Together):
    """The result of a call that may not have finished.

    It is a :class:`concurrent.futures.Future`, can be awaited in asyncio, and does all that
    :class:`multiprocessing.pool.AsyncResult` does. What the keys of its metadata name are attributes
    too: ``ar.stdout``, ``ar.engine_id``.

    Attributes:
        msg_ids: the names of its calls, one for each engine.
    """

    owner = False
    # Where every result begins; kept by the class, so that making one is quick.
    _return_exceptions = False
    _answer: Any = _UNREAD
    _failure: BaseException | None = None
    _pieces: tuple[AsyncResult, ...] | None = None

    def __init__(
        self,
        client: Calls,
        awaited: Flight | Sequence[Seat],
        *,
        name: str,
        single: bool,
        return_exceptions: bool = False,
    ) -> None:
        super().__init__(client, awaited)
        self._single = single
        self._fname = name
        if return_exceptions:
            self._return_exceptions = True

    # ------------------------------------------------------------ the value

    def get(
        self,
        timeout: float | None = None,
        return_exceptions: bool | None = None,
        return_when: str | None = None,
    ) -> Any:
        """Return the result when it is there.

        Args:
            timeout: seconds; None or a negative number waits without limit.
            return_exceptions: put exceptions into the result instead of raising them.
            return_when: ``FIRST_EXCEPTION`` raises as soon as one engine has failed.

        Raises:
            TimeoutError: it is not there yet; try again later.
            ValueError: there is no such *return_when*.
            RemoteError: the call raised on the engine; ``CompositeError`` in a view of several, and
                ``CollectiveError`` where others waited in MPI for the one that failed.
        """
        condition((), return_when or FIRST_EXCEPTION)  # is it one of the three?
        if return_when == FIRST_COMPLETED:
            warnings.warn(
                "get(return_when=FIRST_COMPLETED) waits for all; use wait() or split()", stacklevel=2
            )
        if return_when == FIRST_EXCEPTION and self.waiting:
            self.wait_until(condition(self.split(), FIRST_EXCEPTION), timeout)
            self._raise_first(return_exceptions)
        elif self.waiting and not self.wait_telling(timeout):
            raise TimeoutError("Result not ready.")
        if self._given_up:
            raise CancelledError
        if self.waiting:
            raise TimeoutError("Result not ready.")
        if return_exceptions and not self._return_exceptions:
            return self.assemble([_plain(flight.outcome(seat)) for flight, seat in self._seats])
        if self._answer is _UNREAD:
            self._settle()
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        return self._answer

    def _raise_first(self, return_exceptions: bool | None) -> None:
        """Raise the first failure there is, while others may be missing."""
        if return_exceptions or self._return_exceptions or not self.waiting:
            return
        failed = [
            (flight.targets[seat], flight.outcome(seat).error)
            for flight, seat in self._seats
            if flight.results[seat] is not None and not flight.succeeded(seat)
        ]
        if failed:
            raise self._one_error(failed)

    def result(self, timeout: float | None = None) -> Any:
        """Return the result when it is there, as ``get`` does."""
        return self.get(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return the exception of the call, or None, when it is there."""
        if self.waiting and not self.wait_until(self._is_there, timeout):
            raise TimeoutError("Result not ready.")
        if self._given_up:
            raise CancelledError
        if self._answer is _UNREAD:
            self._settle()
        return self._failure

    def _settle(self) -> None:
        """Read what has arrived: the answer, or the failure."""
        if self._single and not self._return_exceptions:
            flight, seat = (self._flight, 0) if self._flight is not None else self._seats[0]
            outcome = flight.outcome(seat)
            if type(outcome) is Raised:
                self._failure, outcome = outcome.error, None
            self._answer = outcome
            return
        if self._flight is not None:
            outcomes = self._flight.outcomes()
            engines = self._flight.targets
        else:
            outcomes = [flight.outcome(seat) for flight, seat in self._seats]
            engines = [flight.targets[seat] for flight, seat in self._seats]
        failed = [
            (engine, outcome.error)
            for engine, outcome in zip(engines, outcomes, strict=True)
            if type(outcome) is Raised
        ]
        if failed and not self._return_exceptions:
            self._failure = self._one_error(failed)
            self._answer = None
        elif failed:
            self._answer = self.assemble([_plain(outcome) for outcome in outcomes])
        else:
            self._answer = self.assemble(outcomes)

    def _one_error(self, failed: Sequence[tuple[int, BaseException]]) -> BaseException:
        fine = [flight.targets[seat] for flight, seat in self._seats if flight.succeeded(seat)]
        return composite(self._fname, failed, len(self._seats), fine)

    def assemble(self, values: list[Any]) -> Any:
        """Make the result of the values of the engines."""
        return values[0] if self._single else values

    @property
    def r(self) -> Any:
        """The result, when it is there."""
        return self.get()

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """Return the results by engine id, when they are there."""
        self.get(timeout)
        engines = [flight.targets[seat] for flight, seat in self._seats]
        if len(set(engines)) < len(engines):
            raise ValueError("an engine has several results here: use get(), which returns a list")
        return dict(zip(engines, [_plain(flight.outcome(seat)) for flight, seat in self._seats], strict=True))

    @property
    def result_dict(self) -> dict[int, Any]:
        """The results by engine id, when they are there."""
        return self.get_dict()

    # ------------------------------------------------------------ parts

    def __len__(self) -> int:
        return len(self._seats)

    def __bool__(self) -> bool:
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AsyncResult cannot be pickled: pass what get() returns")

    def __iter__(self) -> Iterator[Any]:
        if self._single:
            raise TypeError("the result of a view of one engine is one value: use get()")
        return self.each()

    def each(self) -> Iterator[Any]:
        """Yield the results in order, each when it is there."""
        for seat in self._seats:
            yield self.value_at(seat)

    def value_at(self, place: Seat) -> Any:
        """Wait for one engine's value and return it."""
        flight, seat = place
        self.wait_until(lambda: flight.results[seat] is not None, None)
        outcome = flight.outcome(seat)
        if type(outcome) is Raised:
            if self._return_exceptions:
                return outcome.error
            raise composite(self._fname, [(flight.targets[seat], outcome.error)], 1)
        return outcome

    def __getitem__(self, key: int | slice | str) -> Any:
        if isinstance(key, str):
            values = [flight.metadata(seat)[key] for flight, seat in self._seats]
            return values[0] if self._single else values
        if isinstance(key, (int, slice)):
            return self.get(0)[key]
        raise TypeError(
            f"a result is indexed by int, slice or a key of its metadata, not {type(key).__name__}"
        )

    def __getattr__(self, key: str) -> Any:
        if key in KEY_SET:
            return self[key]
        return super().__getattr__(key)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *KEYS]

    def split(self) -> tuple[AsyncResult, ...]:
        """Return one AsyncResult for each engine."""
        if len(self._seats) == 1:
            return (self,)
        if self._pieces is None:
            keep = self._return_exceptions
            self._pieces = tuple(
                AsyncResult(
                    self._client, [seat], name=self._fname, single=self._flat_parts, return_exceptions=keep
                )
                for seat in self._seats
            )
        return self._pieces

    _flat_parts = True

    @classmethod
    def join(cls, *async_results: AsyncResult) -> AsyncResult:
        """Return one AsyncResult for several; the opposite of ``split``."""
        if not async_results:
            raise ValueError("there is nothing to join")
        first = async_results[0]
        return first if len(async_results) == 1 else first.joined_with(async_results[1:])

    def joined_with(self, others: Sequence[AsyncResult]) -> AsyncResult:
        """Return one AsyncResult for this and the others."""
        return AsyncResult(
            self._client,
            [seat for result in (self, *others) for seat in result.seats],
            name=self._fname,
            single=False,
            return_exceptions=self._return_exceptions,
        )

    @property
    def seats(self) -> Sequence[Seat]:
        """What it is made of; calls, and the place of the engine in each."""
        return self._seats

    # ------------------------------------------------------------ for people

    def __repr__(self) -> str:
        if self.cancelled():
            state = "cancelled"
        elif self.waiting:
            state = "pending"
        else:
            state = "finished" if all(flight.succeeded(seat) for flight, seat in self._seats) else "failed"
        return f"<{type(self).__name__}({self._fname}): {state}>"


def _plain(outcome: Any) -> Any:
    return outcome.error if type(outcome) is Raised else outcome
