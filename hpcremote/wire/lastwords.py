"""How a process ended, out of the last words that it wrote (see :mod:`hpcremote.engine.lastwords`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile

#: Begins a line that says how the process ends.
MARK = "hpcremote: last words: "
#: What an end without last words means: nothing but SIGKILL leaves no time for them.
SILENT = "killed by SIGKILL (out of memory, or somebody's kill -9)"

_FATAL = re.compile(r"^Fatal Python error: (.+)$")
#: faulthandler's own form for one thread: what an engine registers it for is SIGTERM.
_TERMINATED = "Stack (most recent call first):"
#: What may follow the first line of a report of faulthandler's.
_REPORT = re.compile(
    r"\s|$|Current thread|Thread 0x|Stack \(most|Extension modules: |Python runtime state: |<"
)
#: The stack of the thread that crashed, or that a signal met; other threads' have other titles.
_STACK = re.compile(r"(Current thread 0x\w+ .*|Stack )\(most recent call first\):$")
#: What Open MPI writes about a fatal signal, after Python's report: a C stack.
_LIBRARY = re.compile(
    r"^\[(\S+:\d+)\] \*\*\* Process received signal \*\*\*\n(?:\[\1\] .*\n)*"
    r"\[\1\] \*\*\* End of error message \*\*\*\s*\Z",
    re.MULTILINE,
)
#: A frame of ours: it called what stands above it.
_OURS = re.compile(r'\s+File ".*/hpcremote/(cli|engine|net|wire)/\w+\.py", line ')
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
    lines = _without_library(text)[0].splitlines()
    last = _last_words(lines)
    if last is None:
        return SILENT
    if lines[last].startswith(MARK):
        return lines[last][len(MARK) :].strip()
    fatal = _FATAL.match(lines[last])
    return _signal(fatal[1]) if fatal else "terminated by SIGTERM"


def _without_library(text: str) -> tuple[str, str]:
    """Return *text* without the MPI library's report of a signal at its end, and that report."""
    found = _LIBRARY.search(text)
    return (text[: found.start()], f"{found[0].rstrip()}\n") if found else (text, "")


def _last_words(lines: Sequence[str]) -> int | None:
    """Return which line begins the last words, if the text ends with some."""
    for index in range(len(lines) - 1, -1, -1):
        line = lines[index]
        if line.startswith(MARK) or line == _TERMINATED or _FATAL.match(line):
            return index
        if not _REPORT.match(line):
            return None
    return None


def _signal(what: str) -> str:
    name = _SIGNALS.get(what.strip().lower())
    return f"{what.strip().lower()} ({name})" if name else f"fatal Python error: {what.strip()}"


def for_people(text: str) -> str:
    """Return *text* as the user's code wrote it, without what is ours.

    That is our own lines and, in the report of a fault that it ends with, all but the user's frames in the
    thread that crashed: who called them, what other threads did, which modules are loaded. These frames come
    last, also where the MPI library has written the C stack after them.
    """
    text, library = _without_library(text)
    lines = text.splitlines(keepends=True)
    bare = [line.rstrip("\r\n") for line in lines]
    last = _last_words(bare)
    tail: list[str] = []
    if last is not None and not bare[last].startswith(MARK):
        tail = [*([lines[last]] if _FATAL.match(bare[last]) else []), *_users_frames(bare[last:])]
        lines = lines[:last]
    return "".join([*(line for line in lines if not line.startswith(MARK)), library, *tail])


def _users_frames(report: Sequence[str]) -> list[str]:
    begin = next((index for index, line in enumerate(report) if _STACK.match(line)), len(report))
    frames = list(
        takewhile(lambda line: line.startswith("  ") and not _OURS.match(line), report[begin + 1 :])
    )
    return [f"{line}\n" for line in (_TERMINATED, *frames)] if frames else []
