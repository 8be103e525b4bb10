"""How a process ended, out of the last words that it wrote (see :mod:`hpcremote.engine.lastwords`)."""

from __future__ import annotations

import re

#: Begins a line that says how the process ends.
MARK = "hpcremote: last words: "
#: What an end without last words means: nothing but SIGKILL leaves no time for them.
SILENT = "killed by SIGKILL (out of memory, or somebody's kill -9)"

_FATAL = re.compile(r"^Fatal Python error: (.+)$")
#: faulthandler's own form for one thread: what an engine registers it for is SIGTERM.
_TERMINATED = "Stack (most recent call first):"
#: What may follow the first line of a report of faulthandler's.
_REPORT = re.compile(
    r"\s|$|Current thread |Thread 0x|Stack \(most|Extension modules: |Python runtime state: |<no "
)
_SIGNALS = {
    "segmentation fault": "SIGSEGV",
    "aborted": "SIGABRT",
    "bus error": "SIGBUS",
    "floating point exception": "SIGFPE",
    "floating-point exception": "SIGFPE",
    "illegal instruction": "SIGILL",
}


def cause_of(text: str) -> str:
    """Return how the process ended that wrote *text* to its standard error.

    Only the end of the text counts: the same words further up are output like any other.
    """
    for line in reversed(text.splitlines()):
        if line.startswith(MARK):
            return line[len(MARK) :].strip()
        if fatal := _FATAL.match(line):
            return _signal(fatal[1])
        if line == _TERMINATED:
            return "terminated by SIGTERM"
        if not _REPORT.match(line):
            return SILENT
    return SILENT


def _signal(what: str) -> str:
    name = _SIGNALS.get(what.strip().lower())
    return f"{what.strip().lower()} ({name})" if name else f"fatal Python error: {what.strip()}"


def without_marks(text: str) -> str:
    """Return *text* as the user's code wrote it, without our own lines."""
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(MARK))
