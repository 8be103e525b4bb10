"""A rank that ends while the others start, as what starts them writes it.

mpiexec ends with its ranks as a rule, and so does the job. But some stay, with ranks that wait in MPI_Init
for one that is no more.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

#: The log is read once in so many seconds; what is in it for so long will not be followed by an end.
_GLANCE, _SETTLED = 1.0, 3.0
#: What is written before ranks are started, by the command in a job and by ``job.Job``; and what a job's
#: script writes before all else.
_BEGUN = re.compile(
    r"^(?:hpcremote: \d+ ranks by |\$ |(?P<job>hpcremote: job \S+ has started on ))", re.MULTILINE
)


def ended_first(output: str, pattern: re.Pattern[str] | None, *, whole: bool = False) -> str:
    """Return which of the ranks that were started last ended first: ``RANK`` or ``PID@HOST``, or nothing.

    Args:
        output: what starts them has written, perhaps several times.
        pattern: a launcher's ``culprit``.
        whole: it is all of the log, so that ranks begin where that is written.
    """
    if pattern is None:
        return ""
    begun = [*_BEGUN.finditer(output)]
    if begun[-1]["job"] if begun else whole:
        return ""  # a job runs its setup, or is queued once more
    match = pattern.search(output, begun[-1].start() if begun else 0)
    if match is None:
        return ""
    found = match.groupdict()
    return found.get("rank") or f"{found['pid']}@{found['host']}"


class Culprit:
    """Looks for such a rank while a start is watched.

    Args:
        read: returns the end of the log.
        pattern: the launcher's ``culprit``.
    """

    def __init__(self, read: Callable[[], str], pattern: re.Pattern[str] | None) -> None:
        self._read = read
        self._pattern = pattern
        self._look_again = 0.0
        self._found = ""
        self._since = 0.0

    def look(self) -> str:
        """Return that it is said to have ended, once that has been there for a while; else nothing."""
        now = time.monotonic()
        if self._pattern is not None and now >= self._look_again:
            self._look_again = now + _GLANCE
            found = ended_first(self._read(), self._pattern, whole=True)
            if found != self._found:
                self._found, self._since = found, now
        if not self._found or now - self._since < _SETTLED:
            return ""
        pid, at, host = self._found.partition("@")
        who = f"process {pid} on {host}" if at else f"rank {pid}"
        return f"{who} ended before all engines were there"

    @property
    def found(self) -> bool:
        """Whether one is said to have ended, however short a time ago."""
        return bool(self._found)
