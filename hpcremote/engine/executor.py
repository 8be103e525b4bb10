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

from hpcremote.engine.link import Link
from hpcremote.engine.machine import Engine, Job
from hpcremote.engine.operations import Operations
from hpcremote.engine.output import Capture
from hpcremote.errors import HPCRemoteError, PayloadError
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
        self._output: Capture | None = None
        self._shm = ""
        self._output_limit = 0
        self._done: list[tuple[m.Done, Sequence[Frame]]] = []
        self._oldest = 0.0
        self._idle = True
        self._stop_seen = 0.0
        self._interrupted = False
        self._in_user_code = False
        self._pid = os.getpid()
        self._output_lock = threading.Lock()  # a call's output is collected by one thread at a time

    def run(self, link: Link, output: Capture, *, shm: str, controller_timeout: float) -> str:
        """Run jobs; return why the engine ends."""
        self._link, self._output, self._shm = link, output, shm
        self._output_limit = link.connection.output_limit
        signal.signal(signal.SIGINT, self._on_sigint)
        while True:
            if not self._something():
                self._idle = True
                link.wait(self._something, None)
            if reason := self._must_end(controller_timeout):
                return reason
            work = link.take()
            if isinstance(work, m.Lacking):
                link.send([(work, ())])
            elif isinstance(work, Job):
                self._finish(work, *self._do(work))

    def _something(self) -> bool:
        assert self._link is not None  # noqa: S101
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
        status, pieces = self._perform(job)
        if os.getpid() != self._pid:
            # The call forked, and this is the child: the engine and its connection are the parent's.
            self._output.flush()
            os._exit(0 if status == "ok" else 1)
        completed = time.time()
        part, frames = self._part(run, pieces)
        out, err = self._rest_of_output(run)
        return m.Done(run.seq, status, part, started, completed, out, err), frames

    def _rest_of_output(self, run: m.Run) -> tuple[str, str]:
        """Return the last of what the call wrote, and send what came before that."""
        assert self._output is not None  # noqa: S101
        assert self._link is not None  # noqa: S101
        self._output.flush()
        with self._output_lock:
            texts = self._output.collect(CHUNK)
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
            self._in_user_code = True
            value = self._operations.perform(run.op, None, run.digest, pieces)
            self._in_user_code = False
            return "ok", dump_result(value)
        except BaseException as error:  # noqa: BLE001 - whatever user code raises is its caller's
            self._in_user_code = False
            return "error", [capture(error)]

    def _on_sigint(self, _signum: int, _frame: object) -> None:
        """Interrupt the user's code, and nothing else."""
        if self._in_user_code:
            self._in_user_code = False
            raise KeyboardInterrupt

    def _pieces(self, run: m.Run, frames: Sequence[Frame]) -> list[Any]:
        part = run.part
        if part.blob:
            sizes = [size for size in part.sizes if size >= BIG]
            frames = read_blob(self._shm, part.blob, sizes, unlink=False)
        return from_part(part, frames)

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
        """Called by the background thread while the main thread is in user code."""
        run = self._machine.running
        if run is None or self._output is None or self._link is None:
            return
        with self._output_lock:
            # Under the lock, so that it cannot overtake, or be overtaken by, the end of the call.
            if self._machine.running is run and (texts := self._output.collect(CHUNK)) and any(texts):
                self._link.send(_prints(run.seq, texts))
        self._end_patience(self._link)

    def _end_patience(self, link: Link) -> None:
        """A call that goes on although the engine has to end is interrupted, then left behind."""
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
