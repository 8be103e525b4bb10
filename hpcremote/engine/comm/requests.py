"""Requests of the user's own (``Isend``, ``Irecv``, ...): waiting for them can be left, too.

::

    Request    the name MPI.Request in engines: Waitall, Waitany, ... of whatever requests
    Pending    what our communicators hand out; knows its communicator
    Repeated   the same for persistent ones (Send_init, Recv_init, ...)

A request is tested first, and waited for only if it is not complete: so one that is null or inactive
returns at once, as in MPI. Receives that are left are cancelled; of other requests MPI goes on with the
buffers, so they are kept, and their communicator is broken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, Literal

from mpi4py import MPI

from hpcremote.engine.comm.base import Base

_R = MPI.Request
_test, _waitany = _R.test, _R.waitany
Requests = Sequence[MPI.Request]


class Kind(type):
    """Lets plain requests be instances of ``Request`` too, as programs expect of the name ``MPI.Request``."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _R) if cls is Request else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _R) if cls is Request else super().__subclasscheck__(subclass)


class Request(_R, metaclass=Kind):
    """``MPI.Request``; what waits for several waits so that it can be left, if one of them is ours."""

    __slots__ = ()
    __module__ = "mpi4py.MPI"

    @classmethod
    def Waitall(  # noqa: N802 - mpi4py's names, here and below
        cls, requests: Requests, statuses: list[MPI.Status] | None = None
    ) -> Literal[True]:
        """See mpi4py."""
        _wait_all("Waitall", requests, statuses)
        return True

    @classmethod
    def waitall(cls, requests: Requests, statuses: list[MPI.Status] | None = None) -> list[Any]:
        """See mpi4py."""
        return _wait_all("waitall", requests, statuses)

    @classmethod
    def Waitany(cls, requests: Requests, status: MPI.Status | None = None) -> int:  # noqa: N802
        """See mpi4py."""
        return cls._any("Waitany", requests, status)[0]

    @classmethod
    def waitany(cls, requests: Requests, status: MPI.Status | None = None) -> tuple[int, Any]:
        """See mpi4py."""
        return cls._any("waitany", requests, status)

    @classmethod
    def Waitsome(  # noqa: N802
        cls, requests: Requests, statuses: list[MPI.Status] | None = None
    ) -> list[int] | None:
        """See mpi4py."""
        return cls._some("Waitsome", requests, statuses)[0]

    @classmethod
    def waitsome(
        cls, requests: Requests, statuses: list[MPI.Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """See mpi4py."""
        return cls._some("waitsome", requests, statuses)

    @staticmethod
    def _any(operation: str, requests: Requests, status: MPI.Status | None) -> tuple[int, Any]:
        def test() -> tuple[int, Any] | None:
            index, complete, value = _R.testany(requests, status)
            return (index, value) if complete else None

        def block(wake: MPI.Request) -> tuple[int, Any] | None:
            found: tuple[int, Any] = _waitany((*requests, wake), status)
            return found if found[0] != len(requests) else None

        found: tuple[int, Any] = _until(operation, requests, test, block)
        return found

    @classmethod
    def _some(
        cls, operation: str, requests: Requests, statuses: list[MPI.Status] | None
    ) -> tuple[list[int] | None, list[Any] | None]:
        def test() -> tuple[list[int] | None, list[Any] | None] | None:
            found: tuple[list[int] | None, list[Any] | None] = _R.testsome(requests, statuses)
            return None if found[0] == [] else found

        if (found := test()) is not None:
            return found
        first = MPI.Status()
        index, value = cls._any(operation, requests, first)
        if statuses is not None:
            statuses[:] = [first]
        return [index], [value]


class Pending(Request):
    """A request on one of our communicators.

    Attributes:
        comm: the communicator.
        receives: whether it can be cancelled.
    """

    __slots__ = ("comm", "receives")
    comm: Base
    receives: bool

    def Wait(self, status: MPI.Status | None = None) -> Literal[True]:  # noqa: N802
        """See mpi4py."""
        _wait("Wait", self, status)
        return True

    def wait(self, status: MPI.Status | None = None) -> Any:
        """See mpi4py."""
        return _wait("wait", self, status)

    def Test(self, status: MPI.Status | None = None) -> bool:  # noqa: N802
        """See mpi4py; who tests in a loop is let out of it as if it waited."""
        return _R.Test(self, status) or self.comm.look("Test")

    def test(self, status: MPI.Status | None = None) -> tuple[bool, Any | None]:
        """See mpi4py; likewise."""
        found = _R.test(self, status)
        if not found[0]:
            self.comm.look("test")
        return found

    def __del__(self) -> None:
        # Whoever was to wait for it was released elsewhere, perhaps, and MPI goes on with its buffer.
        if self:
            comm = self.comm
            comm.watch.left.drop(_R(self), *((comm, comm.hidden) if self.receives else ()))


class Repeated(MPI.Prequest):
    """A persistent request on one of our communicators."""

    __slots__ = ("comm", "receives")
    comm: Base
    receives: bool

    Wait = Pending.Wait
    wait = Pending.wait
    Test = Pending.Test
    test = Pending.test
    __del__ = Pending.__del__


def own(request: MPI.Request, comm: Base, *, receives: bool) -> Any:
    """Return *request*, which was made on *comm*, as one of ours."""
    made = Repeated(request) if isinstance(request, MPI.Prequest) else Pending(request)
    made.comm, made.receives = comm, receives
    return made


# ---------------------------------------------------------------- waiting


def _wait(operation: str, request: MPI.Request, status: MPI.Status | None) -> Any:
    complete, value = _test(request, status)
    if complete:
        return value
    if type(request) is not Pending:
        return _wait_slowly(operation, request, status)
    comm = request.comm
    watch = comm.watch
    # Nearly always; what _until() does, without its calls.
    if watch.alarm is not None or comm.trouble or get_ident() != watch.waker or not watch.wake:
        return _wait_slowly(operation, request, status)
    watch.now = (comm, operation, comm.number, -1)
    try:
        woken, value = _waitany((request, watch.wake), status)
        return _wait_slowly(operation, request, status) if woken else value
    except BaseException:
        watch.drop(comm, [request], receives=request.receives)
        raise
    finally:
        watch.now = None


def _wait_slowly(operation: str, request: MPI.Request, status: MPI.Status | None) -> Any:
    def test() -> tuple[Any] | None:
        complete, value = _test(request, status)
        return (value,) if complete else None

    def block(wake: MPI.Request) -> tuple[Any] | None:
        woken, value = _waitany((request, wake), status)
        return None if woken else (value,)

    return _until(operation, (request,), test, block)[0]


def _wait_all(operation: str, requests: Requests, statuses: list[MPI.Status] | None) -> list[Any]:
    """Wait for one after the other: MPI sees to all of them meanwhile."""
    complete, values = _R.testall(requests, statuses)
    if complete:
        return values or []
    if _comm_of(requests) is None:
        return _R.waitall(requests, statuses)
    if statuses is None:
        seen: list[MPI.Status | None] = [None] * len(requests)
    else:
        statuses += [MPI.Status() for _ in requests[len(statuses) :]]
        seen = [*statuses]
    try:
        return [_wait(operation, request, status) for request, status in zip(requests, seen, strict=False)]
    except BaseException:
        _drop(requests)
        raise


def _until(
    operation: str,
    requests: Requests,
    test: Callable[[], Any],
    block: Callable[[MPI.Request], Any],
) -> Any:
    if (found := test()) is not None:
        return found
    comm = _comm_of(requests)
    if comm is None:  # of plain communicators only: as ever
        return block(_R())
    try:
        comm.enter(operation)
        return comm.watch.until(requests, test, block)
    except BaseException:
        _drop(requests)
        raise
    finally:
        comm.watch.now = None


def _comm_of(requests: Requests) -> Base | None:
    return next((one.comm for one in requests if isinstance(one, Pending | Repeated)), None)


def _drop(requests: Requests) -> None:
    """An exception has come: nobody waits for these any more."""
    for request in requests:
        if isinstance(request, Pending | Repeated):
            request.comm.watch.drop(request.comm, [request], receives=request.receives)
