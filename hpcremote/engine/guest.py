"""Doing calls in a program that is not the engine's own: what they need is borrowed, and given back."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from hpcremote.engine.borrowed import BorrowedNamespace, BorrowedOutput
from hpcremote.engine.executor import PATIENCE, Executor
from hpcremote.engine.link import Link
from hpcremote.engine.machine import Job
from hpcremote.engine.operations import Operations
from hpcremote.engine.turns import Steered
from hpcremote.errors import HPCRemoteError
from hpcremote.wire import messages as m

#: How long the definition of a function may be on its way, in seconds.
DEFINITION = 60.0

_working: Guest | None = None


class Guest(Executor):
    """The executor of a program that lends itself.

    Attributes:
        resumed: a call wants the program to go on.
    """

    def __init__(self, machine: Steered, operations: Operations, namespace: BorrowedNamespace) -> None:
        super().__init__(machine, operations)
        self.resumed = False
        self._steered = machine
        self._namespace = namespace
        self._former: Any = None  # the program's handler of SIGINT
        self._for_program = False  # a SIGINT came that was not meant for a call
        self._orphan: threading.Timer | None = None

    def serve(self, controller_timeout: float) -> str:
        """Do calls as they come, until the program has to go on; return why."""
        assert self._link is not None  # noqa: S101
        while True:
            self._link.wait(self._something, None)
            if reason := self._must_end(controller_timeout):
                return reason
            self.work()
            if self.resumed:
                return "a client has resumed it"

    def work(self) -> int:
        """Do what may be done now; return how many calls that were."""
        done = 0
        self.tidy()
        if not self._steered.may_begin():
            return done
        self._enter()
        try:
            while self._steered.may_begin() and not self.resumed:
                done += self._step()
        finally:
            self._leave()
        return done

    def tidy(self) -> None:
        """Put aside the communicators of calls that failed; nobody is waited for."""
        if self._mpi is not None and self._mpi.renewal_due(self._machine.upcoming):
            self._mpi.renew_now(self._machine.upcoming)

    def resume(self) -> None:
        """The running call wants the program to go on."""
        run = self._steered.running
        if run is not None and (left_out := self._steered.left_out(run)):
            raise HPCRemoteError(
                "hpcremote.resume() is for all ranks of the program at once, and this call leaves out "
                f"engines {', '.join(map(str, left_out[:20]))}: rc[:].apply_sync(hpcremote.resume)"
            )
        self.resumed = True

    def _step(self) -> int:
        assert self._link is not None  # noqa: S101
        self.tidy()
        work = self._link.take()
        if isinstance(work, Job):
            self._finish(work, *self._do(work))
            return 1
        if isinstance(work, m.Done | m.Lacking):
            self._link.send([(work, ())])
        if not isinstance(work, m.Done):
            self._await_definition(self._link)
        return 0

    def _await_definition(self, link: Link) -> None:
        machine = self._steered
        link.wait(lambda: machine.can_go_on() or link.lost_since is not None, DEFINITION)
        if not machine.can_go_on():
            machine.give_up_definition()

    # ------------------------------------------------------------ without a controller

    def outlive(self, link: Link) -> None:
        """Have calls that still run when the controller has been gone for long interrupted.

        For a program that polls: nobody looks after its calls many times a second, and one that waits in MPI
        for a rank that failed would hold it up for ever, since nobody is there to release it.
        """
        link.on_loss = lambda: self._look_again(link, link.connection.controller_timeout)

    def _look_again(self, link: Link, seconds: float) -> None:
        self._orphan = threading.Timer(seconds, self._end_orphan, (link,))
        self._orphan.daemon = True
        self._orphan.start()

    def _end_orphan(self, link: Link) -> None:
        run = self._steered.running
        if link.lost_since is not None and run is not None:
            self._interrupt(run.seq)
            self._look_again(link, PATIENCE)  # at the next one that was agreed on

    # ------------------------------------------------------------ borrowing

    def _enter(self) -> None:
        global _working  # noqa: PLW0603 - what runs in this process' main thread
        assert isinstance(self._output, BorrowedOutput)  # noqa: S101
        self._output.resume()
        self._namespace.enter()
        self._idle, self._former = True, signal.getsignal(signal.SIGINT)
        if self._former is not None:  # None: C code has one, which Python could not put back
            signal.signal(signal.SIGINT, self._on_sigint)
        _working = self

    def _leave(self) -> None:
        global _working  # noqa: PLW0603
        assert isinstance(self._output, BorrowedOutput)  # noqa: S101
        _working = None
        deadline = time.monotonic() + 1.0
        while self._unwanted and time.monotonic() < deadline:
            time.sleep(0)  # a signal that is meant for a call, and on its way, must not meet the program
        self._unwanted = 0
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)
        self._namespace.leave()
        self._output.pause()
        if self._for_program:
            self._for_program = False
            signal.raise_signal(signal.SIGINT)

    def _interrupt(self, seq: int) -> None:
        if self._former is not None:  # else the signal would meet whatever the program has there
            super()._interrupt(seq)

    def _on_sigint(self, signum: int, frame: object) -> None:
        asked = self._unwanted
        super()._on_sigint(signum, frame)
        self._for_program = self._for_program or not asked

    def _something(self) -> bool:
        return super()._something() or self.resumed

    def _end_patience(self, link: Link) -> None:
        """A call that goes on although the engine has to end is interrupted; the process goes on."""
        run = self._steered.running
        alone = link.seconds_alone() > link.connection.controller_timeout
        if run is None or not (self._steered.stopping or alone):
            self._stop_seen = 0.0
            return
        self._stop_seen = self._stop_seen or time.monotonic()
        if time.monotonic() - self._stop_seen > PATIENCE and not self._interrupted:
            self._interrupted = True
            self._interrupt(run.seq)


def working() -> Guest | None:
    """Return the one whose call runs now in this process, if any does."""
    return _working
