"""Put SIGINT off while messages are in hand.

``KeyboardInterrupt`` between "received" and "delivered" would lose a message, and inside a multipart
send it would break the stream. So the main thread takes SIGINT over for as long as it uses the
socket, notes that it came, and lets the former handler have it at the end.
"""

from __future__ import annotations

# signal.signal wraps this in enum conversions that cost ten times the call, on the path of every call.
import _signal  # type: ignore[import-not-found]
import threading
from collections.abc import Callable
from types import TracebackType

_main_id = threading.main_thread().ident


class _Deferred:
    """Context manager: SIGINT inside is noted, announced by *on_interrupt*, and raised at the end."""

    __slots__ = ("_former", "_on_interrupt", "_pending")

    def __init__(self, on_interrupt: Callable[[], None] | None = None) -> None:
        self._on_interrupt = on_interrupt
        self._former: object = None
        self._pending = False

    def __enter__(self) -> Callable[[], bool]:
        former = _signal.getsignal(_signal.SIGINT)
        if callable(former):
            self._former = former
            _signal.signal(_signal.SIGINT, self._note)
        return self._is_pending

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        former = self._former
        if former is None:
            return
        self._former = None
        _signal.signal(_signal.SIGINT, former)
        if self._pending and callable(former):
            former(_signal.SIGINT, None)

    def _note(self, _signum: int, _frame: object) -> None:
        self._pending = True
        if self._on_interrupt:
            self._on_interrupt()

    def _is_pending(self) -> bool:
        return self._pending


class _Idle:
    """For other threads: signals never run there."""

    __slots__ = ()

    def __enter__(self) -> Callable[[], bool]:
        return never

    def __exit__(self, *_: object) -> None:
        return None


def never() -> bool:
    """Say that no interrupt came."""
    return False


_idle = _Idle()


def deferred_interrupts(on_interrupt: Callable[[], None] | None = None) -> _Deferred | _Idle:
    """Return the context manager for the calling thread."""
    return _Deferred(on_interrupt) if threading.get_ident() == _main_id else _idle


def unguarded(_on_interrupt: Callable[[], None] | None = None) -> _Idle:
    """Return a context manager that does nothing, for a process that treats SIGINT in its own way."""
    return _idle
