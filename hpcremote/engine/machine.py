"""What an engine has to do next. Pure: the link feeds it messages, the executor asks it for work.

::

    Run ──▶ queue ──next()──▶ Job         in the order of seq, one at a time
    Drop ─▶ a run that has not started is answered ``aborted``
    Given ▶ a definition; the run that waits for it may go on
    Stop ─▶ nothing more is begun
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame


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
    """

    def __init__(self, has: Callable[[bytes], bool], define: Callable[[bytes, bytes], None]) -> None:
        self._has = has
        self._define = define
        self._queue: deque[tuple[m.Run, Sequence[Frame]]] = deque()
        self._asked: bytes = b""
        self._undefined: set[bytes] = set()
        self.joined: m.Joined | None = None
        self.refused = ""
        self.stopping = ""
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
            self._queue.append((message, frames))
        elif isinstance(message, m.Given):
            self._given(message)
        elif isinstance(message, m.Drop):
            return self._drop(set(message.seqs))
        elif isinstance(message, m.Joined):
            self.joined = message
        elif isinstance(message, m.Refused):
            self.refused = message.reason
        elif isinstance(message, m.Stop):
            self.stopping = message.reason
        return []

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
        if run.digest and not self._has(run.digest) and run.digest not in self._undefined:
            if self._asked == run.digest:
                return None
            self._asked = run.digest
            return m.Lacking(run.seq, run.digest)
        self._queue.popleft()
        self._asked = b""
        self.running = run
        undefined = bool(run.digest) and not self._has(run.digest)
        self._undefined.discard(run.digest)
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

    def _drop(self, seqs: set[int]) -> list[m.AnyMessage]:
        dropped = [run.seq for run, _ in self._queue if run.seq in seqs]
        if not dropped:
            return []
        self._queue = deque(item for item in self._queue if item[0].seq not in seqs)
        self._asked = b""
        return [m.Done(seq, "aborted", m.Part()) for seq in dropped]
