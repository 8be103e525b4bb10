"""The engine's main thread: take a job, run it, send what became of it.

User code and all MPI run here and nowhere else (MPI libraries and GUI toolkits ask for the main
thread, and so does KeyboardInterrupt).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from typing import Any

from hpcremote.engine import here
from hpcremote.engine.communication import Communication
from hpcremote.engine.link import Link
from hpcremote.engine.machine import Engine, Job
from hpcremote.engine.namespace import Namespace
from hpcremote.engine.operations import Operations
from hpcremote.engine.output import NOTHING, Capture
from hpcremote.errors import HPCRemoteError, LaunchError, PayloadError, Released
from hpcremote.net.shm import WORTHWHILE, read_blob, write_blob
from hpcremote.wire import messages as m
from hpcremote.wire.failure import capture
from hpcremote.wire.frames import Frame
from hpcremote.wire.payload import BIG, big_pieces, dump_result, from_part, to_part

#: Outcomes wait this long for company while more runs are queued, in seconds.
GATHER = 0.002
#: At most this much output goes in one message.
CHUNK = 1 << 20
#: How long a call may go on after the engine was told to stop, before it is interrupted, in seconds.
PATIENCE = 2.0


class Executor:
    """Runs jobs until the engine has to end."""

    def __init__(self, machine: Engine, operations: Operations) -> None:
        self._machine = machine
        self._operations = operations
        self._link: Link | None = None
        self._mpi: Communication | None = None
        self._output: Capture | None = None
        self._shm = ""
        self._output_limit = 0
        self._done: list[tuple[m.Done, Sequence[Frame]]] = []
        self._oldest = 0.0
        self._idle = True
        self._stop_seen = 0.0
        self._interrupted = False
        self._renewing = False
        self._in_user_code = 0  # the number of the run that is in the user's code
        self._unwanted = 0  # the number of the run that a client wants interrupted
        self._pid = os.getpid()
        self._output_lock = threading.Lock()  # a call's output is collected by one thread at a time

    def run(self, link: Link, output: Capture, *, shm: str, controller_timeout: float) -> str:
        """Run jobs; return why the engine ends."""
        self.attach(link, output, shm)
        signal.signal(signal.SIGINT, self._on_sigint)
        while True:
            if not self._something():
                self._idle = True
                link.wait(self._something, None)
            if reason := self._must_end(controller_timeout):
                return reason
            if self._mpi is not None and self._mpi.renewal_due(self._machine.upcoming):
                self.renew(self._mpi)
                continue
            work = link.take()
            if isinstance(work, m.Lacking):
                link.send([(work, ())])
            elif isinstance(work, Job):
                self._finish(work, *self._do(work))
            del work  # what came with a call is not kept until the next one

    def renew(self, communication: Communication) -> None:
        """Make communicators anew before the next call; others may be waited for."""
        self._renewing = True
        try:
            communication.renew_now(self._machine.upcoming)
        finally:
            self._renewing = False

    def attach(self, link: Link, output: Capture, shm: str) -> None:
        """Take what jobs need; *shm* is the cluster's folder in shared memory, or empty."""
        self._link, self._output, self._shm = link, output, shm
        self._output_limit = link.connection.output_limit
        self._machine.interrupt = self._interrupt
        here.install(self)
        self._mpi = self._machine.mpi
        if self._mpi is not None:
            self._mpi.renewed = self._renewed
            self._mpi.aborting = self._aborting

    # ------------------------------------------------------------ for functions that users call (``here``)

    @property
    def working(self) -> bool:
        """Whether a call runs."""
        return self._machine.running is not None

    @property
    def engine_id(self) -> int:
        """This engine's id."""
        return self._machine.joined.engine if self._machine.joined is not None else 0

    @property
    def targets(self) -> Sequence[int]:
        """The engines of the running call."""
        return self._machine.running.targets if self._machine.running is not None else ()

    @property
    def stamp(self) -> str:
        """The running call's name, the same on all of its engines, and no other call's."""
        assert self._link is not None  # noqa: S101
        run = self._machine.running
        return f"{self._link.connection.cluster_uid}-{run.seq if run is not None else 0}"

    def tell_of_hook(self, before: float) -> None:
        """Tell the controller that something is to run so many seconds before the end."""
        assert self._link is not None  # noqa: S101
        self._link.post((m.Hook(before), ()))

    @property
    def namespace(self) -> Namespace:
        """The engine's namespace."""
        return self._operations.namespace

    def _something(self) -> bool:
        assert self._link is not None  # noqa: S101
        if self._mpi is not None and self._mpi.renewal_due(self._machine.upcoming):
            return True
        return self._machine.ready() or self._link.lost_since is not None

    def _must_end(self, controller_timeout: float) -> str:
        assert self._link is not None  # noqa: S101
        if self._machine.stopping:
            return self._machine.stopping
        if self._machine.refused:
            return f"refused by the controller: {self._machine.refused}"
        if self._link.lost_since is not None:
            # Nothing can be done without a controller but wait for it.
            self._link.wait(
                lambda: self._link is not None and self._link.lost_since is None,
                max(0.0, controller_timeout - self._link.seconds_alone()),
            )
            if self._link.lost_since is not None:
                return f"no controller for {controller_timeout:g} s"
        return ""

    # ------------------------------------------------------------ one job

    def _do(self, job: Job) -> tuple[m.Done, Sequence[Frame]]:
        assert self._output is not None  # noqa: S101
        run = job.run
        if self._idle:
            # What background threads and children wrote meanwhile belongs to no call.
            self._idle = False
            self._output.mark()
        self._output.begin(self._output_limit)
        started = time.time()
        if self._mpi is not None:
            self._mpi.begin(run.seq, run.targets)
        status, pieces = self._perform(job)
        communicated = self._mpi.end(failed=status != "ok") if self._mpi is not None else 0
        if os.getpid() != self._pid:
            # The call forked, and this is the child: the engine and its connection are the parent's.
            self._output.flush()
            os._exit(0 if status == "ok" else 1)
        completed = time.time()
        part, frames = self._part(run, pieces)
        out, err = self._rest_of_output(run)
        return m.Done(run.seq, status, part, started, completed, out, err, communicated), frames

    def _rest_of_output(self, run: m.Run) -> tuple[str, str]:
        """Return the last of what the call wrote, and send what came before that."""
        assert self._output is not None  # noqa: S101
        assert self._link is not None  # noqa: S101
        self._output.flush()
        with self._output_lock:
            texts = self._output.collect(CHUNK)
            if texts is NOTHING:  # nearly always
                return self._output.end()
            while any(texts) and any(more := self._output.collect(CHUNK)):
                self._link.send(_prints(run.seq, texts))
                texts = more
            ends = self._output.end()
        return texts[0] + ends[0], texts[1] + ends[1]

    def _perform(self, job: Job) -> tuple[str, list[Any]]:
        run = job.run
        try:
            if job.undefined:
                raise HPCRemoteError(
                    "the function's definition is not on the engine any more, nor at its client"
                )
            pieces = self._pieces(run, job.frames)
            self._in_user_code = run.seq
            value = self._operations.perform(run.op, None, run.digest, pieces)
            self._in_user_code = 0
            return "ok", dump_result(value)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is its caller's
            self._in_user_code = 0
            return "released" if isinstance(error, Released) else "error", [capture(error)]

    def _renewed(self, seq: int, problem: str) -> None:
        """Communicators have been made anew, or spares been made."""
        assert self._link is not None  # noqa: S101
        part, frames = to_part([capture(LaunchError(problem))]) if problem else to_part(dump_result(None))
        self._link.post((m.Done(seq, "error" if problem else "ok", part), frames))

    def _aborting(self, code: int) -> None:
        """The user's code ends the whole MPI job."""
        assert self._link is not None  # noqa: S101
        self._link.send([(m.Leaving(f"it called MPI_Abort({code})", True), ())])

    def _on_sigint(self, _signum: int, _frame: object) -> None:
        """Interrupt the user's code, and nothing else; a client's wish concerns one run only."""
        if self._in_user_code and self._mpi is not None and self._mpi.signalled():
            return  # it comes again
        unwanted, self._unwanted = self._unwanted, 0
        if self._in_user_code and unwanted in (0, self._in_user_code):
            self._in_user_code = 0
            raise KeyboardInterrupt

    def _interrupt(self, seq: int) -> None:
        """Raise KeyboardInterrupt in a run (called by the thread that reads)."""
        self._unwanted = seq
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if self._mpi is not None:
            self._mpi.wake()

    def _pieces(self, run: m.Run, frames: Sequence[Frame]) -> list[Any]:
        part = run.part
        try:
            if part.blob:
                sizes = [size for size in part.sizes if size >= BIG]
                frames = read_blob(self._shm, part.blob, sizes, unlink=False)
            return from_part(part, frames)
        except PayloadError as error:
            raise PayloadError(f"what was sent with the call cannot be read: {error}") from None

    def _part(self, run: m.Run, pieces: list[Any]) -> tuple[m.Part, Sequence[Frame]]:
        blob = ""
        if run.local and self._shm and len(pieces) > 1:
            bigs = big_pieces(pieces)
            if sum(memoryview(piece).nbytes for piece in bigs) >= WORTHWHILE:
                try:
                    blob = write_blob(self._shm, bigs)
                except OSError as error:
                    pieces = [capture(PayloadError(f"the result cannot be put into {self._shm}: {error}"))]
        return to_part(pieces, blob)

    def _finish(self, job: Job, done: m.Done, frames: Sequence[Frame]) -> None:
        """Send the outcome: at once when nothing else waits, else a few together."""
        assert self._link is not None  # noqa: S101
        queued = self._link.finished()
        if not queued:
            self._link.send([(done, frames)])
            return
        self._link.post((done, frames))
        now = time.monotonic()
        if now - self._oldest > GATHER:
            self._oldest = now
            self._link.send(())

    # ------------------------------------------------------------ while a job runs

    def tick(self) -> None:
        """Called by the background thread, many times a second."""
        run = self._machine.running
        if run is None or self._output is None or self._link is None:
            if self._renewing and self._link is not None:  # others do not come, perhaps
                self._end_patience(self._link)
            return
        if self._unwanted and self._unwanted == self._in_user_code:
            # The signal came between Python's last look and a sleep in the kernel, and did not end that.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        with self._output_lock:
            # Under the lock, so that it cannot overtake, or be overtaken by, the end of the call.
            if self._machine.running is run and (texts := self._output.collect(CHUNK)) and any(texts):
                self._link.send(_prints(run.seq, texts))
        self._end_patience(self._link)

    def _end_patience(self, link: Link) -> None:
        """What goes on although the engine has to end is interrupted, if it is a call, then left behind."""
        alone = link.seconds_alone() > link.connection.controller_timeout
        if not (self._machine.stopping or alone):
            return
        now = time.monotonic()
        self._stop_seen = self._stop_seen or now
        if now - self._stop_seen > PATIENCE and not self._interrupted:
            self._interrupted = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        elif now - self._stop_seen > 2 * PATIENCE:
            os._exit(1)


def _prints(seq: int, texts: tuple[str, str]) -> list[tuple[m.Print, tuple[()]]]:
    return [(m.Print(seq, stream, text), ()) for stream, text in zip((1, 2), texts, strict=True) if text]
