"""Requests of the user's own (``Isend``, ``Irecv``, ...): waiting for them can be left, too.

::

    Request    the name MPI.Request in engines: Waitall, Waitany, ... of whatever requests
    Prequest   the name MPI.Prequest: the same, and Startall
    Pending    what our communicators hand out; knows its communicator
    Repeated   the same for persistent ones (Send_init, Recv_init, ...)

A request is tested first, and waited for only if it is not complete: so one that is null or inactive
returns at once, as in MPI. Receives that are left are cancelled; of other requests MPI goes on with the
buffers, so they are kept, and their communicator is broken.

A communicator that is made anew is a new one of MPI's: requests of the old one are of no use any more, which
they say where they would have to wait, or be started.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, Literal

from mpi4py import MPI

from hpcremote.engine.comm.base import Base
from hpcremote.errors import HPCRemoteError

_R, _P = MPI.Request, MPI.Prequest
_test, _waitany = _R.test, _R.waitany
Requests = Sequence[MPI.Request]


class Kind(type):
    """Lets plain requests be instances of ``Request`` too, as programs expect of the name ``MPI.Request``."""

    def __instancecheck__(cls, instance: object) -> bool:
        plain = cls.__dict__.get("stands_for")
        return isinstance(instance, plain) if plain else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        plain = cls.__dict__.get("stands_for")
        return issubclass(subclass, plain) if plain else super().__subclasscheck__(subclass)


class Request(MPI.Request, metaclass=Kind):
    """``MPI.Request``; what waits for several waits so that it can be left, if one of them is ours."""

    __slots__ = ()
    __module__ = "mpi4py.MPI"
    stands_for = _R

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

    @classmethod
    def Testall(cls, requests: Requests, statuses: list[MPI.Status] | None = None) -> bool:  # noqa: N802
        """See mpi4py; who asks in a loop is let out of it as if it waited, here and below."""
        return _R.Testall(requests, statuses) or _look("Testall", requests)

    @classmethod
    def testall(
        cls, requests: Requests, statuses: list[MPI.Status] | None = None
    ) -> tuple[bool, list[Any] | None]:
        """See mpi4py."""
        found = _R.testall(requests, statuses)
        return found if found[0] else (_look("testall", requests), found[1])

    @classmethod
    def Testany(cls, requests: Requests, status: MPI.Status | None = None) -> tuple[int, bool]:  # noqa: N802
        """See mpi4py."""
        found = _R.Testany(requests, status)
        return found if found[1] else (found[0], _look("Testany", requests))

    @classmethod
    def testany(cls, requests: Requests, status: MPI.Status | None = None) -> tuple[int, bool, Any | None]:
        """See mpi4py."""
        found = _R.testany(requests, status)
        return found if found[1] else (found[0], _look("testany", requests), found[2])

    @classmethod
    def Testsome(  # noqa: N802
        cls, requests: Requests, statuses: list[MPI.Status] | None = None
    ) -> list[int] | None:
        """See mpi4py."""
        if (found := _R.Testsome(requests, statuses)) == []:
            _look("Testsome", requests)
        return found

    @classmethod
    def testsome(
        cls, requests: Requests, statuses: list[MPI.Status] | None = None
    ) -> tuple[list[int] | None, list[Any] | None]:
        """See mpi4py."""
        if (found := _R.testsome(requests, statuses))[0] == []:
            _look("testsome", requests)
        return found

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


class Prequest(Request, MPI.Prequest):
    """``MPI.Prequest``, likewise."""

    __slots__ = ()
    __module__ = "mpi4py.MPI"
    stands_for = _P

    @classmethod
    def Startall(cls, requests: list[MPI.Prequest]) -> None:  # noqa: N802
        """See mpi4py."""
        for request in requests:
            if isinstance(request, Repeated):
                request.enter("Startall")
        _P.Startall(requests)


class Pending(Request):
    """A request on one of our communicators.

    Attributes:
        comm: the communicator.
        hidden: its hidden duplicate when the request was made: another one if it was made anew since.
        receives: whether it can be cancelled.
    """

    __slots__ = ("comm", "hidden", "receives")
    comm: Base
    hidden: MPI.Intracomm
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
        return _R.Test(self, status) or _look("Test", (self,))

    def test(self, status: MPI.Status | None = None) -> tuple[bool, Any | None]:
        """See mpi4py; likewise."""
        found = _R.test(self, status)
        if not found[0]:
            _look("test", (self,))
        return found

    def abandon(self) -> None:
        """Nobody will wait for it, because of an exception."""
        comm, left = self.comm, self.comm.watch.left
        if self.hidden is comm.hidden:
            comm.watch.drop(comm, [self], receives=self.receives)
        elif self and not left.has(self):  # what became of the old communicator is no matter any more
            if self.receives:
                self.Cancel()
            left.keep([self])

    def __del__(self) -> None:
        # Whoever was to wait for it was released elsewhere, perhaps, and MPI goes on with its buffer.
        if self:
            self.comm.watch.left.drop(_R(self), *((self.comm, self.hidden) if self.receives else ()))


class Repeated(Prequest):
    """A persistent request on one of our communicators."""

    __slots__ = ("comm", "hidden", "receives")
    comm: Base
    hidden: MPI.Intracomm
    receives: bool

    Wait = Pending.Wait
    wait = Pending.wait
    Test = Pending.Test
    test = Pending.test
    abandon = Pending.abandon
    __del__ = Pending.__del__

    def Start(self) -> None:  # noqa: N802
        """See mpi4py; it is communication as a new request is."""
        self.enter("Start")
        _P.Start(self)

    def enter(self, operation: str) -> None:
        """It is about to be started."""
        self.comm.note(operation, -1)
        if self.hidden is not self.comm.hidden:
            raise _outdated(operation, self.comm)


#: Nothing inherits from these.
_OURS = (Pending, Repeated)


def own(request: MPI.Request, comm: Base, *, receives: bool) -> Any:
    """Return *request*, which was made on *comm*, as one of ours."""
    made = Repeated(request) if isinstance(request, _P) else Pending(request)
    made.comm, made.hidden, made.receives = comm, comm.hidden, receives
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
    if (
        watch.alarm is not None
        or comm.trouble
        or request.hidden is not comm.hidden
        or get_ident() != watch.waker
        or not watch.wake
    ):
        return _wait_slowly(operation, request, status)
    watch.now = (comm, operation, comm.number, -1)
    try:
        woken, value = _waitany((request, watch.wake), status)
        return _wait_slowly(operation, request, status) if woken else value
    except BaseException:
        request.abandon()
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
    if _comm_of(operation, requests) is None:
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
    comm = _comm_of(operation, requests)
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


def _comm_of(operation: str, requests: Requests) -> Base | None:
    """Return the first communicator of ours; waiting for one that was made anew would have no end."""
    found: Base | None = None
    for one in requests:
        if type(one) in _OURS:
            comm = one.comm  # type: ignore[attr-defined]
            if one.hidden is not comm.hidden and one:  # type: ignore[attr-defined]
                raise _outdated(operation, comm)
            found = comm if found is None else found
    return found


def _look(operation: str, requests: Requests) -> Literal[False]:
    """Nothing is complete yet."""
    comm = _comm_of(operation, requests)
    return False if comm is None else comm.look(operation)


def _outdated(operation: str, comm: Base) -> HPCRemoteError:
    return HPCRemoteError(
        f"{operation}: a request is from before {comm.label} was renewed, after a failure: make it again"
    )


def _drop(requests: Requests) -> None:
    """An exception has come: nobody waits for these any more."""
    for request in requests:
        if type(request) in _OURS:
            request.abandon()  # type: ignore[attr-defined]
