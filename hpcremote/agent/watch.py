"""See processes end that are not our children, and find out how.

A pidfd becomes readable when its process ends. How it ended is, in this order of trust: what it wrote down
itself (its last words), what the kernel kept of its exit (Linux 6.15 tells it to anybody who holds the
pidfd), and that the kernel killed somebody in its memory group meanwhile.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import struct
import time
from pathlib import Path

from hpcremote.net.nodes import Rank
from hpcremote.wire.lastwords import SILENT, cause_of, for_people

#: How much of what a rank wrote last is kept, in characters, and how much of its files is read, in bytes.
TAIL = 4_000
_READ = 65_536
#: How long the process' parent is given to take note of its end; only then the kernel tells us.
PATIENCE = 0.05
_INFO = struct.Struct("<QQ12i")  # struct pidfd_info, its first version
_EXIT = 1 << 3  # PIDFD_INFO_EXIT
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # PIDFD_GET_INFO


class Watched:
    """One rank's process.

    Attributes:
        rank: who it is.
        fd: readable when it has ended; -1 where the kernel has no pidfd: then ask :meth:`has_ended`.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.fd = -1
        with contextlib.suppress(OSError):  # old kernels, sandboxes; it has ended already
            self.fd = os.pidfd_open(rank.pid)
        self._events = memory_events(rank.pid)
        self._killed_before = _oom_kills(self._events)

    def has_ended(self) -> bool:
        """Ask the process table."""
        return not self.rank.alive()

    def cause(self, patience: float = PATIENCE) -> str:
        """Return how it ended, by what the kernel knows within *patience* seconds; "" if that is nothing."""
        status = self._status(time.monotonic() + patience)
        by_kill = status is None or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL)
        if by_kill and _oom_kills(self._events) > self._killed_before:
            return "killed by the kernel: its memory group (cgroup) had no memory left"
        if status is None:
            return ""
        if os.WIFSIGNALED(status):
            return _signal_words(os.WTERMSIG(status))
        return f"it ended with exit status {os.WEXITSTATUS(status)}"

    def _status(self, deadline: float) -> int | None:
        while self.fd >= 0:
            buffer = bytearray(_INFO.pack(_EXIT, *[0] * 13))
            try:
                fcntl.ioctl(self.fd, _GET_INFO, buffer)
                mask, *_, status = _INFO.unpack(buffer)
            except OSError:  # the kernel is older, or the process has not been reaped and is ours no more
                return None
            if mask & _EXIT:
                return int(status)
            if time.monotonic() > deadline:
                return None
            time.sleep(0.002)
        return None

    def close(self) -> None:
        """Let go."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _signal_words(number: int) -> str:
    if number == signal.SIGKILL:
        return "killed by SIGKILL (somebody's kill -9, or its launcher's)"
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"


def last_words(rank: Rank, cause: str) -> tuple[str, str]:
    """Return how a rank ended and what it wrote last, out of the files that it left; remove them.

    Args:
        rank: who ended.
        cause: what the kernel says; the rank's own words are better.
    """
    errors, output = _tail(rank.file("err")), _tail(rank.file("out"))
    for suffix in ("err", "out", "stacks", "notes"):
        rank.file(suffix).unlink(missing_ok=True)
    own = SILENT if errors is None else cause_of(errors)
    written = [text[-TAIL:].strip("\0\n") for text in (output or "", for_people(errors or ""))]
    return cause if own == SILENT and (cause or errors is None) else own, "\n".join(filter(None, written))


def _tail(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _READ))
            return file.read().decode(errors="replace")
    except OSError:
        return None


# ---------------------------------------------------------------- memory groups


def memory_events(pid: int, root: Path = Path("/sys/fs/cgroup"), proc: Path = Path("/proc")) -> Path | None:
    """Return the file in which the kernel counts the processes of this one's memory group that it killed."""
    try:
        rows = [line.split(":", 2) for line in (proc / str(pid) / "cgroup").read_text().splitlines()]
    except OSError:
        return None
    places = []
    for row in rows:
        if len(row) == 3:
            _, kinds, path = row
            if kinds == "":
                places += [root / path.lstrip("/") / "memory.events", root / "memory.events"]
            elif "memory" in kinds.split(","):
                # In a container the path is the host's, and its own group is mounted as the root.
                memory = root / "memory"
                places += [memory / path.lstrip("/") / "memory.oom_control", memory / "memory.oom_control"]
    return next((place for place in places if place.is_file()), None)


def _oom_kills(events: Path | None) -> int:
    if events is None:
        return 0
    try:
        rows = [line.split() for line in events.read_text().splitlines()]
    except OSError:  # the group went with its last process
        return 0
    return sum(int(row[1]) for row in rows if len(row) == 2 and row[0] == "oom_kill")
