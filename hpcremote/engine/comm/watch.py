"""The main thread's waits in MPI, and how another thread gets it out of them.

A wait is ``Waitany([operation, wake])``, where *wake* is a receive from ourselves on a communicator of ours
(:class:`Bell`): MPI does the waiting, at its speed and without the GIL, and a message to oneself ends it. ::

    main thread          Waitany([Iallreduce, wake]) ... ──▶ Released
    I/O thread           release(seq): alarm; Isend to self ──┘

Where MPI is not thread safe enough (less than MPI_THREAD_MULTIPLE), where ranks share cores, in threads of
the user's, and for what MPI has no request for (probes), the wait is a poll that first spins and then sleeps
longer and longer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import get_ident
from time import perf_counter, sleep
from typing import Any, NamedTuple, TypeVar

from mpi4py import MPI

from hpcremote.engine.comm.bell import Bell
from hpcremote.engine.comm.left import Left, cancel, is_over
from hpcremote.engine.comm.record import Waiting, at, place, place_of
from hpcremote.errors import HPCRemoteError, Released

T = TypeVar("T")

#: A poll spins this long before it sleeps, in seconds, and lets others run between its looks, ...
SPIN = 0.002
#: ... then for a sixteenth of the time that it has waited, but no longer than this.
NAP = 0.001

_let_others_run: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
_waitany, _test = MPI.Request.Waitany, MPI.Request.Test
#: An operation that was entered: communicator, name, number, root or peer.
Entered = tuple[Any, str, int, int | None]


class Alarm(NamedTuple):
    """Why blocking operations have to be left."""

    reason: str


#: Nothing is wrong, but ``Watch.gate`` has to be called before anything else is said to other ranks.
GATE = Alarm("gate")
#: Why a call is released that was on its way by communicators which had to be replaced.
OVERTAKEN = "an earlier call failed, and its communicators had to be made anew"


class Aside(NamedTuple):
    """What the main thread was in when other work came between."""

    seq: int
    running: bool
    alarm: Alarm | None
    now: Entered | None


class Watch(Bell):
    """What the main thread is in, and whether it has to leave.

    Attributes:
        alarm: set by other threads, under the lock; read by the main thread without it.
        now: the operation that the main thread is in.
        family: of the communicator that the running call has used last.
        families: of all communicators that the call has used.
        gate: called where the alarm is ``GATE``, with whether an operation has begun; says whether
            communicators that the call has used were made anew.
        abort: called before MPI_Abort, with its error code.
        left: requests that nobody waits for any more.
    """

    def __init__(self, private: MPI.Intracomm, *, crowded: bool = False) -> None:
        super().__init__(private, crowded=crowded)
        self.alarm: Alarm | None = None
        self.now: Entered | None = None
        self.family: object = None
        self.families: list[object] = []
        self.gate: Callable[[bool], bool] = lambda inside: False
        self.abort: Callable[[int], None] = lambda code: None
        self.seq = -1
        self._aside: Aside | None = None
        self.running = False
        self._early: dict[int, str] = {}  # released before they began
        self.left = Left()
        self._small: list[MPI.Request] = []

    # ------------------------------------------------------------ calls

    def begin(self, seq: int, *, gate: bool = False) -> None:
        """A call begins; *gate*: something has to be done before it may communicate."""
        with self._lock:
            self.seq, self.running, self.alarm, self.now = seq, True, GATE if gate else None, None
            if self._early:
                if (reason := self._early.pop(seq, None)) is not None:
                    self.alarm = Alarm(reason)
                self._early = {later: why for later, why in self._early.items() if later > seq}
        self.family, self.families = None, []

    def end(self) -> None:
        """The call is over."""
        if self.left.kept:
            self.left.look()
        with self._lock:
            self.running, self.alarm, self.now = False, None, None

    # ------------------------------------------------------------ other threads

    def release(self, seq: int, reason: str) -> None:
        """Let the main thread out of what it waits in during call *seq*, now or later."""
        with self._lock:
            if seq == self.seq and self.running:
                self.alarm = Alarm(reason)
                self._ring()
            elif self._aside is not None and seq == self._aside.seq:
                self._aside = self._aside._replace(alarm=Alarm(reason))
            elif seq > (self.seq if self._aside is None else self._aside.seq):
                self._early[seq] = reason

    def set_gate(self, shut: bool) -> None:
        """Before the running call communicates, or communicates on, something has to be done (or not)."""
        with self._lock:
            if self._aside is not None:
                return  # it is being done
            if shut and self.running and self.alarm is None:
                self.alarm = GATE
                self._ring()
            elif not shut and self.alarm is GATE:
                self.alarm = None

    @contextmanager
    def aside(self, seq: int) -> Iterator[None]:
        """Do other work, number *seq*, on the main thread, which may be in the middle of a call."""
        with self._lock:
            self._aside = Aside(self.seq, self.running, self.alarm, self.now)
            reason = self._early.pop(seq, None)
            self.seq, self.running, self.alarm = seq, True, None if reason is None else Alarm(reason)
        kept = self.family, self.families
        self.family, self.families = None, []
        try:
            yield
        finally:
            with self._lock:
                self.seq, self.running, self.alarm, self.now = self._aside
                if self.alarm is GATE:
                    self.alarm = None
                self._aside = None
            self.family, self.families = kept

    def where(self) -> Waiting | None:
        """Return the operation that the main thread is in."""
        if (now := self.now) is None:
            return None
        comm, operation, number, root = now
        return Waiting(operation, comm.label, number, root, *place_of(self.main))

    # ------------------------------------------------------------ the main thread

    def wait(
        self, comm: Any, request: MPI.Request, status: MPI.Status | None = None, *, receives: bool = False
    ) -> None:
        """Wait until *request* is complete, or raise what the alarm says.

        Args:
            comm: its communicator, broken if the request has to be left behind.
            request: what to wait for.
            status: filled as MPI_Wait does.
            receives: it is a receive, which can be cancelled.
        """
        try:
            if not _test(request, status):
                self.block(comm, request, status, receives=receives)
        except BaseException:
            if request:  # a signal's exception, unless it is kept already: MPI goes on with its buffers
                self.drop(comm, [request], receives=receives)
            raise

    def drop(self, comm: Any, requests: list[MPI.Request], *, receives: bool = False) -> None:
        """Nobody will wait for these, because of an exception: cancel or keep those that go on."""
        live = [one for one in requests if one and not self.left.has(one) and not is_over(one)]
        if receives:
            live = [one for one in live if not cancel(one, lambda: is_over(one))]  # noqa: B023 - called at once
        if live:
            self.leave_behind(comm, live)

    def block(
        self, comm: Any, request: MPI.Request, status: MPI.Status | None = None, *, receives: bool = False
    ) -> None:
        """Do so for one that was not complete just now; after an exception it may still be under way."""
        # The alarm may have rung already, in an earlier wait of the same operation; and a signal may have
        # come between the end of an earlier wait and the moment when the wake-up was set again.
        if (
            self.alarm is not None
            or get_ident() != self.waker
            or not self.wake
            or _waitany((request, self.wake), status)
        ):
            self.until(
                (request,),
                lambda: _test(request, status),
                lambda wake: not _waitany((request, wake), status),
                lambda: self._leave(comm, request, status, receives),
            )

    def until(
        self,
        requests: Sequence[MPI.Request],
        test: Callable[[], T],
        block: Callable[[MPI.Request], T],
        leave: Callable[[], T | None] = lambda: None,
    ) -> T:
        """Wait for *requests* until something is true, and return that, or raise what the alarm says.

        Args:
            requests: kept if their communicators are made anew under them.
            test: asks MPI.
            block: waits in MPI, for that or for the wake-up that it is given; false after the latter.
            leave: called before it is raised; returns what turned out to be complete.
        """
        if get_ident() != self.waker:
            return self.poll(test, requests, leave)
        while True:
            if not self.wake or self.wake.Test():
                self.wake = self._listen()
            if self.alarm is not None and (found := test() or self._heed(requests, leave)):
                return found
            if found := block(self.wake):
                return found

    def wait_all(self, comm: Any, requests: list[MPI.Request]) -> None:
        """Wait until all are complete; all are left behind together."""
        try:
            for request in requests:
                self.wait(comm, request)
        except BaseException:
            self.leave_behind(comm, requests)
            raise

    def poll(
        self,
        ready: Callable[[], T],
        requests: Sequence[MPI.Request] = (),
        leave: Callable[[], T | None] = lambda: None,
    ) -> T:
        """Do as ``until()`` without waiting in MPI: ask again and again, less and less often."""
        began = perf_counter()
        while not (found := ready()):
            if self.alarm is not None and (late := self._heed(requests, leave)):
                return late
            if (waited := perf_counter() - began) > SPIN:
                sleep(min(waited / 16, NAP))
            else:
                _let_others_run()
        return found

    def _heed(self, requests: Sequence[MPI.Request], leave: Callable[[], T | None]) -> T | None:
        """Raise what the alarm says, or return what is complete after all; None: nothing has to be left."""
        if self.alarm is GATE:
            if get_ident() == self.main and self.gate(True):
                self.left.keep(requests)
                raise self.overtaken()
            return None
        if (found := leave()) is None:
            raise self.verdict()
        return found

    def idle(self, over: Callable[[], bool]) -> None:
        """Wait at the gate until ``over()``, or raise what the alarm says."""
        while not over():
            if self.alarm is not None and self.alarm is not GATE:
                raise self.verdict()
            sleep(NAP)

    def _leave(
        self, comm: Any, request: MPI.Request, status: MPI.Status | None, receives: bool
    ) -> bool | None:
        status = MPI.Status() if status is None else status
        if receives and cancel(request, lambda: _test(request, status)):
            return None if status.Is_cancelled() else True  # it was complete
        self.leave_behind(comm, [request])
        return None

    def leave_behind(self, comm: Any, requests: list[MPI.Request]) -> None:
        """Keep requests that nobody waits for any more: MPI may still write to their buffers."""
        self.left.keep(requests)
        operation = self.now[1] if self.now else "an operation"
        comm.tear(f"this rank had to leave {operation} on it in call {self.seq}")

    def keep(self, request: MPI.Request) -> None:
        """Keep a small send of our own until it is complete."""
        self._small = [one for one in self._small if not is_over(one)]
        self._small.append(request)

    def verdict(self, also: str = "") -> BaseException:
        """Return what to raise instead of waiting on."""
        alarm = Alarm(also) if self.alarm in (None, GATE) else self.alarm
        operation = self.now[1] if self.now else "comm()"
        filename, lineno = place(sys._getframe())  # noqa: SLF001 - nothing else tells the user's line
        reason = alarm.reason or also
        return Released(
            f"released from {operation}{at(filename, lineno)}" + (f": {reason}" if reason else ""),
            operation=operation,
            filename=filename,
            lineno=lineno,
        )

    def overtaken(self) -> BaseException:
        """Return what to raise in a call whose communicators were made anew under it."""
        self.alarm = self.alarm if self.alarm not in (None, GATE) else Alarm(OVERTAKEN)
        return self.verdict()

    def turn_to(self, family: object) -> None:
        """The call uses another communicator than before."""
        self.family = family
        if all(family is not known for known in self.families):
            self.families.append(family)

    def refuse(self, comm: Any, operation: str, index: int, root: int | None) -> None:
        """Raise why an operation cannot be entered; or do first what has to be done."""
        self.now = (comm, operation, index, root)
        try:
            if self.alarm is GATE and get_ident() == self.main and self.gate(False):
                raise self.overtaken()
            if self.alarm is not None and self.alarm is not GATE:
                raise self.verdict()
            if not comm.trouble:
                return
            if comm.torn:  # perhaps in a call that went well: this one counts as using it, so it is made anew
                self.turn_to(comm.family)
            raise HPCRemoteError(f"{operation}: {comm.label} cannot be used: {comm.trouble}")
        finally:
            self.now = None
