"""What the ranks of this node and the controller say to each other, handed on by the agent.

::

    rank ──batch──▶ ┌───────┐ ──bundle──▶
    rank ──batch──▶ │ Relay │             controller     all that has come since the last time is one bundle
    rank ◀──batch── └───────┘ ◀──bundle──                what is the same for several ranks is in it once

To a rank the agent is what the controller is on its own machine: a Unix stream, and the kernel says whose.
Nothing is looked into, but for who a rank is. What is under way when the agent dies is sent again by the two
ends (``wire/session.py``).
"""

from __future__ import annotations

import contextlib
import itertools
import select
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpcremote.net.locals import Locals
from hpcremote.wire.frames import FrameError
from hpcremote.wire.lanes import bundle, unbundle
from hpcremote.wire.session import Resume, decode, is_control


class Relay:
    """The streams of this node's ranks.

    Args:
        poll: where descriptors are registered.
        path: where ranks find it.
    """

    def __init__(self, poll: select.epoll, path: Path) -> None:
        self._poll = poll
        self._path = path
        self._numbers = itertools.count(1)  # never used again, whatever becomes of connections
        self._locals: Locals | None = None
        self._lanes: dict[int, int] = {}  # by descriptor
        self._names: dict[int, bytes] = {}  # by lane
        self._fds: dict[str, int] = {}  # by uid
        self._entries: list[tuple[list[int], list[Any]]] = []
        self._paused = False

    def open(self) -> None:
        """Let ranks come.

        Raises:
            ConfigError: the socket cannot be made.
        """
        if self._locals is None:
            self._path.unlink(missing_ok=True)
            self._locals = Locals(self._poll, str(self._path))
            self._paused = False

    def shut(self, linger: float = 0.0) -> None:
        """Let all ranks go: they come again when there is a way to the controller, or another agent."""
        if self._locals is None:
            return
        self._path.unlink(missing_ok=True)
        self._locals.close(linger)
        self._locals = None
        for known in (self._lanes, self._names, self._fds):
            known.clear()
        self._entries.clear()

    # ------------------------------------------------------------ from ranks

    def on(self, fd: int, events: int) -> None:
        """A descriptor has fired."""
        if self._locals is None:
            return
        if fd == self._locals.listener:
            for new, name in self._locals.accept():
                lane = self._lanes[new] = next(self._numbers)
                self._names[lane] = name
        elif fd in self._lanes:
            self._read(fd, events)

    def _read(self, fd: int, events: int) -> None:
        assert self._locals is not None  # noqa: S101 - for the type checker
        lane = self._lanes[fd]
        batches, ended = self._locals.read(fd, events)
        for head, frames in batches:
            if is_control(head):
                self._note(fd, head)
            self._entries.append(([lane], [head, *frames]))
        if ended is not None:
            del self._lanes[fd], self._names[lane]
            self._fds = {uid: one for uid, one in self._fds.items() if one != fd}
            self._entries.append(([lane], []))

    def _note(self, fd: int, head: bytes) -> None:
        with contextlib.suppress(FrameError):  # the controller says so
            word = decode(head)
            if isinstance(word, Resume):
                self._fds[word.session] = fd

    def ended(self, uid: str) -> None:
        """A rank's process has ended: somebody else may hold its end of the stream, a child perhaps."""
        fd = self._fds.pop(uid, None)
        if fd is None or self._locals is None or fd not in self._lanes:
            return
        readable = select.poll()
        readable.register(fd, select.POLLIN)
        while fd in self._lanes and readable.poll(0):
            self._read(fd, select.EPOLLIN)
        if fd in self._lanes:
            self._locals.cut(self._names[self._lanes[fd]])
            self._read(fd, select.EPOLLIN)

    def take(self) -> list[Any]:
        """Return a bundle of what ranks have said since the last time, or nothing."""
        if not self._entries:
            return []
        entries, self._entries = self._entries, []
        return bundle(entries)

    def pause(self, paused: bool) -> None:
        """Let ranks wait with what they have to say, or not."""
        if self._locals is not None and paused != self._paused:
            self._paused = paused
            self._locals.pause(paused)

    # ------------------------------------------------------------ to ranks

    def deliver(self, head: bytes, frames: Sequence[Any]) -> None:
        """Hand a bundle out.

        Raises:
            FrameError: it is none.
        """
        for lanes, batch, share in unbundle(head, frames):
            whole = [batch, *share]
            for lane in lanes:
                name = self._names.get(lane)
                if name is not None and self._locals is not None:
                    self._locals.send(name, whole)
