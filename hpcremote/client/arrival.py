"""The waiting half of a result: it knows when everything has landed, and who waits for it is woken.

A :class:`concurrent.futures.Future` whose ``set_result`` only says "it is there"; what it is, is
:mod:`hpcremote.client.result`'s business.

Most results are asked with ``get()`` and by nobody else, and there may be many of them. So the inside of the
Future (a condition with its lock, lists of waiters and callbacks: more than all the rest) is made when
somebody first touches it: ``__getattr__`` sees to that. Until then nobody is told anything; ``get()`` looks
at the flight.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from hpcremote.client.flight import LANDING, Flight, Seat, attend
from hpcremote.errors import NotReady

if TYPE_CHECKING:
    from hpcremote.client.calls import Calls


#: What ``Future.__init__`` would make.
_INSIDE = frozenset(vars(Future()))


class Arrival(Future[Any]):
    """Waits for a whole flight, or for some seats of flights.

    Attributes:
        owed: how many of the seats have not landed (not counted for a whole flight, which knows).
    """

    owed = 0
    _given_up = False
    _is_future = False
    _places: Sequence[Seat] | None = None

    def __init__(self, client: Calls, awaited: Flight | Sequence[Seat]) -> None:
        # Not super().__init__(): see the module's docstring.
        self._client = client
        if isinstance(awaited, Flight):
            self._flight: Flight | None = awaited
        else:
            self._flight = None
            self._places = awaited
            attend(self, awaited)

    @property
    def waiting(self) -> int:
        """How many things have not landed."""
        flight = self._flight
        return self.owed if flight is None else flight.missing

    @property
    def _seats(self) -> Sequence[Seat]:
        if self._places is None:
            flight = self._flight
            self._places = [(flight, seat) for seat in range(len(flight.targets))] if flight else ()
        return self._places

    def __getattr__(self, name: str) -> Any:
        if name in _INSIDE:
            self._become_future()
            return object.__getattribute__(self, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _become_future(self) -> None:
        """Make the inside of the Future; from now on the flight tells it when it arrives."""
        with LANDING:
            if self._is_future:
                return
            inside: Future[Any] = Future()
            if not self.waiting:
                inside.set_result(None)
            elif self._flight is not None:
                self._flight.add_waiter(self, -1)
            vars(self).update(vars(inside))  # all at once, for threads that do not hold the lock
            self._is_future = True

    def split(self) -> Sequence[Arrival]:
        """Return one for each seat."""
        raise NotImplementedError

    def arrived(self) -> None:
        """Everything is there (called by the flight, in the thread that reads the socket)."""
        if not self._is_future:  # nobody has to be told
            return
        try:
            # The value is unpickled when somebody looks at it; see AsyncResult.
            Future.set_result(self, None)
        except InvalidStateError:
            # It was cancelled.
            return

    def _is_there(self) -> bool:
        return not self.waiting or self._given_up

    def ready(self) -> bool:
        """Say whether the call has finished on all engines."""
        return not self.waiting

    def done(self) -> bool:
        """Say whether the call has finished on all engines or was cancelled."""
        return not self.waiting or (self._is_future and super().done())

    def successful(self) -> bool:
        """Say whether the call finished without an exception.

        Raises:
            NotReady: it has not finished. A ValueError, as in ``multiprocessing``, and a RuntimeError, as in
                ipyparallel.
        """
        if not self.ready():
            raise NotReady("the result is not ready, so nobody knows whether it will be successful")
        return self.exception() is None

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Wait until the result is there.

        Args:
            timeout: seconds; None or a negative number waits without limit.
            return_when: ``FIRST_COMPLETED``, ``FIRST_EXCEPTION`` or ``ALL_COMPLETED``.

        Returns:
            Whether it is there; with *return_when* two sets of AsyncResults, one for each engine:
            those that are done, and the others.
        """
        if return_when is None:
            return self.wait_until(self._is_there, timeout)
        parts = self.split()
        self.wait_until(condition(parts, return_when), timeout)
        done = {part for part in parts if part.done()}
        return done, set(parts) - done

    def wait_until(self, condition: Callable[[], bool], timeout: float | None) -> bool:
        """Wait until the condition holds, asked whenever something has come; return whether it does."""
        if condition():
            return True
        link = self._client.link
        there = link.wait(condition, None if timeout is None or timeout < 0 else timeout)
        if not there and link.lost is not None:
            # Another thread has noticed, and may not have told the flights yet.
            for flight, _ in self._seats:
                flight.on_lost(link.lost)
            there = condition()
        return there

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """Wait until all output is there: it comes with the result."""
        return bool(self.wait(timeout))

    def wait_for_send(self, timeout: float | None = -1) -> bool:
        """Wait until the arguments are sent: they are when the call returns."""
        return True

    @property
    def sent(self) -> bool:
        """Whether the arguments are sent: they are when the call returns."""
        return True

    def has_failed(self) -> bool:
        """Say whether an engine has failed by now."""
        if self._flight is not None:
            return self._flight.failed > 0
        return any(flight.results[seat] and not flight.succeeded(seat) for flight, seat in self._seats)

    # ------------------------------------------------------------ giving up

    def cancel(self) -> bool:
        """Do not start the call where it has not started, and give up its result.

        Returns:
            False if it has finished. Else True, and ``get`` raises ``CancelledError``; an engine that has
            started the call finishes it.
        """
        if self.done() or not super().cancel():
            return False
        self._given_up = True
        self._client.abort(self)
        self._client.link.wake()
        return True

    def __await__(self) -> Generator[Any, None, Any]:
        import asyncio

        return asyncio.wrap_future(self).__await__()


def condition(parts: Sequence[Arrival], return_when: str) -> Callable[[], bool]:
    """Return what asks whether enough of the parts are done."""
    if return_when == ALL_COMPLETED:
        return lambda: all(part.done() for part in parts)
    if return_when == FIRST_COMPLETED:
        return lambda: any(part.done() for part in parts)
    if return_when == FIRST_EXCEPTION:
        return lambda: all(part.done() for part in parts) or any(part.has_failed() for part in parts)
    raise ValueError(f"return_when is ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION, not {return_when!r}")
