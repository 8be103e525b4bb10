"""The waiting half of a result: it is told when everything has landed, and who waits for it is woken.

A :class:`concurrent.futures.Future` whose ``set_result`` only says "it is there"; what it is, is
:mod:`hpcremote.client.result`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future, InvalidStateError
from typing import TYPE_CHECKING, Any

from hpcremote.client.flight import Seat, attend

if TYPE_CHECKING:
    from hpcremote.client.calls import Calls


class Arrival(Future[Any]):
    """Waits for seats of flights.

    Attributes:
        waiting: how many things have not landed.
    """

    def __init__(self, client: Calls, seats: Sequence[Seat]) -> None:
        super().__init__()
        self.waiting = 0
        self._client = client
        self._seats = seats
        self._given_up = False

    def expect(self, *, whole: bool) -> None:
        """Begin to wait; *whole*: the seats are all those of one flight."""
        attend(self, [(self._seats[0][0], -1)] if whole else self._seats)
        if not self.waiting:
            self.arrived()

    def split(self) -> Sequence[Arrival]:
        """Return one for each seat."""
        raise NotImplementedError

    def arrived(self) -> None:
        """Everything is there (called by the flight, in the thread that reads the socket)."""
        try:
            # The value is unpickled when somebody looks at it; see AsyncResult.
            Future.set_result(self, None)
        except InvalidStateError:
            # It was cancelled, or it arrived while it was being made: then it has been told before.
            return

    def _is_there(self) -> bool:
        return not self.waiting or self._given_up

    def ready(self) -> bool:
        """Say whether the call has finished on all engines."""
        return not self.waiting

    def done(self) -> bool:
        """Say whether the call has finished on all engines or was cancelled."""
        return not self.waiting or super().done()

    def successful(self) -> bool:
        """Say whether the call finished without an exception.

        Raises:
            RuntimeError: it has not finished.
        """
        if not self.ready():
            raise RuntimeError("the result is not ready, so nobody knows whether it will be successful")
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
        return any(flight.results[seat] and not flight.succeeded(seat) for flight, seat in self._seats)

    # ------------------------------------------------------------ giving up

    def abort(self) -> None:
        """Do not start the call where it has not started; there the result will be ``TaskAborted``.

        Raises:
            RuntimeError: it has finished.
        """
        if self.ready():
            raise RuntimeError("the call has finished, it cannot be aborted")
        self._client.abort(self)

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
