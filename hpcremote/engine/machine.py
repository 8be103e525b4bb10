"""What an engine has to do next. Pure: the link feeds it messages, the executor asks it for work.

::

    Run ──▶ queue ──next()──▶ Job         in the order of seq, one at a time
    Drop ─▶ a run that has not started is answered ``aborted``; with ``interrupt`` a running one is stopped
    Release, Settled, Renew, Stock ▶ to the MPI side (engine.comm), which may be in the middle of waiting
    Given ▶ a definition; the run that waits for it may go on
    Stop ─▶ nothing more is begun
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hpcremote.engine.communication import Communication
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame
from hpcremote.wire.targets import expand


class Job(NamedTuple):
    """A run that may begin now. ``undefined``: nobody has its function any more."""

    run: m.Run
    frames: Sequence[Frame]
    undefined: bool


class Engine:
    """The state of one engine.

    Args:
        has: says whether the definition of a digest is here.
        define: keeps a definition.

    Attributes:
        mpi: the MPI side, once there is one.
        interrupt: stops a run that has started; called by whichever thread reads.
        tend: sees to it that there is a node agent; called by whichever thread reads.
        bereft: whether another rank of its set has ended, so that MPI_Finalize does not come to its end.
    """

    def __init__(self, has: Callable[[bytes], bool], define: Callable[[bytes, bytes], None]) -> None:
        self._has = has
        self._define = define
        self._queue: deque[tuple[m.Run, Sequence[Frame]]] = deque()
        self._asked: bytes = b""
        self._undefined: set[bytes] = set()
        self.mpi: Communication | None = None
        self.interrupt: Callable[[int], None] = lambda seq: None
        self.tend: Callable[[], None] = lambda: None
        self.joined: m.Joined | None = None
        self.refused = ""
        self.stopping = ""
        self.bereft = False
        self.running: m.Run | None = None

    @property
    def queued(self) -> int:
        """How many runs wait."""
        return len(self._queue)

    def handle(self, message: m.AnyMessage, frames: Sequence[Frame]) -> list[m.AnyMessage]:
        """Take in a message and return the answers to it."""
        kind = type(message)
        if kind is m.Run:
            assert isinstance(message, m.Run)  # noqa: S101 - for the type checker
            if len(message.targets) > 1:
                message.targets = expand(message.targets)
            self._queue.append((message, frames))
        elif isinstance(message, m.Given):
            self._given(message)
        elif isinstance(message, m.Drop):
            return self._drop(set(message.seqs), interrupt=message.interrupt)
        elif isinstance(message, m.Joined):
            self.joined = message
        elif isinstance(message, m.Refused):
            self.refused = message.reason
        elif isinstance(message, m.Stop):
            self.stopping = message.reason
        elif isinstance(message, m.Tend):
            self.tend()
        elif self.mpi is not None:
            self._about_mates(self.mpi, message)
        return []

    def _about_mates(self, mpi: Communication, message: m.AnyMessage) -> None:
        if isinstance(message, m.Bereft):
            self.bereft = True
        elif isinstance(message, m.Release):
            mpi.release(message.seq, message.why)
        elif isinstance(message, m.Settled):
            mpi.settled(message.seq)
        elif isinstance(message, m.Renew | m.Stock):
            mpi.renew(message)

    def upcoming(self) -> int:
        """Return the number of the next run; a large one if there is none."""
        queue = self._queue
        return queue[0][0].seq if queue else sys.maxsize

    def ready(self) -> bool:
        """Say whether :meth:`next` would return something, or the engine has to end."""
        if self.stopping or self.refused:
            return True
        if not self._queue:
            return False
        digest = self._queue[0][0].digest
        return not digest or self._has(digest) or digest in self._undefined or self._asked != digest

    def next(self) -> Job | m.Lacking | None:
        """Return the next job, or the request for what it lacks, or None if there is nothing to do."""
        if not self._queue:
            return None
        run, frames = self._queue[0]
        digest = run.digest
        undefined = bool(digest) and not self._has(digest)
        if undefined and digest not in self._undefined:
            if self._asked == digest:
                return None
            self._asked = digest
            return m.Lacking(run.seq, digest)
        self._queue.popleft()
        self._asked = b""
        self.running = run
        if self._undefined:
            self._undefined.discard(digest)
        return Job(run, frames, undefined)

    def finished(self) -> None:
        """The job that :meth:`next` returned has ended."""
        self.running = None

    def _given(self, given: m.Given) -> None:
        if given.data:
            self._define(given.digest, given.data)
            self._undefined.discard(given.digest)
        else:
            self._undefined.add(given.digest)

    def _drop(self, seqs: set[int], *, interrupt: bool) -> list[m.AnyMessage]:
        running = self.running
        if interrupt and running is not None and running.seq in seqs:
            self.interrupt(running.seq)
        dropped = [run.seq for run, _ in self._queue if run.seq in seqs]
        if not dropped:
            return []
        self._queue = deque(item for item in self._queue if item[0].seq not in seqs)
        self._asked = b""
        return [m.Done(seq, "aborted", m.Part()) for seq in dropped]
