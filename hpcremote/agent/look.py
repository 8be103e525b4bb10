"""Look at a process from outside: its Python stack, what the kernel says it does, its C stack.

::

    truncate the file ─▶ signal ─▶ faulthandler writes ─▶ the handler has returned, says the kernel ─▶ read

The signal's handler runs in the process' main thread even while C code holds the GIL. That it is done is
seen by the signal being neither pending nor blocked any more once something was written: what it writes has
no end mark, and between being pending and being blocked the kernel shows neither.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hpcremote.net.nodes import STACKS_SIGNAL, Rank

#: How often a dump that is under way is looked at, in seconds.
_POLL = 0.002
#: Stacks of C code that a tool may write, in bytes; the rest is cut.
_NATIVE = 64_000
_WIDTH = 200
#: What a rank may note.
_NOTE = 64_000
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in the kernel, cannot be interrupted (D)",
    "T": "stopped by a signal (T); SIGCONT lets it go on",
    "t": "stopped by a debugger (t)",
    "Z": "ended (Z)",
    "X": "ended (X)",
}


class _Status(NamedTuple):
    """What the kernel says of the main thread."""

    state: str
    catches: bool  # the signal has a handler
    busy: bool  # the signal is on its way, or its handler runs


class Dump:
    """One Python stack that was asked for."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._path = rank.file("stacks")
        self.text = ""
        self.done = not self._ask()

    def _ask(self) -> bool:
        """Ask for the stack, if the process can be asked: without a handler the signal would end it."""
        status = _status(self._rank.pid)
        if status is None or not status.catches or status.state in "TtZX" or not self._rank.alive():
            return False
        try:
            os.truncate(self._path, 0)
            _signal_main_thread(self._rank.pid, STACKS_SIGNAL)
        except OSError:  # it has just ended
            return False
        return True

    def poll(self) -> None:
        """See whether it is there."""
        try:
            begun = self._path.stat().st_size > 0
            status = _status(self._rank.pid)
            if begun and status is not None and not status.busy:
                self.text = self._path.read_text(errors="replace")
                self.done = True
            self.done = self.done or status is None
        except OSError:
            self.done = True

    def give_up(self) -> None:
        """Take what there is."""
        if not self.done:
            self.done = True
            try:
                self.text = self._path.read_text(errors="replace")
            except OSError:
                self.text = ""


def look(ranks: Sequence[Rank], timeout: float) -> dict[str, str]:
    """Return the Python stacks of ranks, by uid; empty where none could be had within *timeout* seconds."""
    deadline = time.monotonic() + timeout
    dumps = {rank.uid: Dump(rank) for rank in ranks}
    while waiting := [dump for dump in dumps.values() if not dump.done]:
        if time.monotonic() > deadline:
            for dump in waiting:
                dump.give_up()
            break
        for dump in waiting:
            dump.poll()
        if not all(dump.done for dump in waiting):
            time.sleep(_POLL)
    return {uid: dump.text for uid, dump in dumps.items()}


def note(rank: Rank) -> str:
    """Return what a rank has noted of its collectives, if it has."""
    try:
        return rank.file("notes").read_text(errors="replace")[:_NOTE]
    except OSError:
        return ""


def _signal_main_thread(pid: int, number: int) -> None:
    """Send a signal to the main thread: of those sent to a process, any thread may take them."""
    libc = ctypes.CDLL(None, use_errno=True)
    tgkill = getattr(libc, "tgkill", None)  # glibc 2.30
    if tgkill is None:
        os.kill(pid, number)
    elif tgkill(pid, pid, number):
        raise OSError(ctypes.get_errno(), "tgkill")


def _status(pid: int) -> _Status | None:
    fields = _fields(pid)
    if not fields:
        return None
    bit = 1 << (STACKS_SIGNAL - 1)
    flags = {
        name: bool(int(fields.get(name, "0"), 16) & bit) for name in ("SigPnd", "ShdPnd", "SigBlk", "SigCgt")
    }
    busy = flags["SigPnd"] or flags["ShdPnd"] or flags["SigBlk"]
    return _Status(fields.get("State", "?")[:1], flags["SigCgt"], busy)


def _fields(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/status").read_text(errors="replace")
    except OSError:
        return {}
    rows = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in rows}


def state_letter(pid: int) -> str:
    """Return the kernel's letter for what a process' main thread does, or ""."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].strip()[:1]


def memory(pid: int) -> int:
    """Return how much memory a process has resident, in bytes; 0 if that cannot be known."""
    fields = _proc(pid, "statm").split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 1 else 0


def describe(pid: int) -> str:
    """Return what the kernel says that the process does, in a few words."""
    letter = state_letter(pid)
    if not letter:
        return "ended"
    words = [_STATES.get(letter, f"in state {letter}")]
    if (where := _proc(pid, "wchan")) not in ("", "0"):
        words.append(f"in the kernel's {where}")
    call = _proc(pid, "syscall").split()
    if call and call[0].lstrip("-").isdigit() and int(call[0]) >= 0:
        words.append(f"system call {call[0]}")
    return ", ".join(words)


def _proc(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace").strip()
    except OSError:  # hidden from us, as is usual
        return ""


# ---------------------------------------------------------------- C


def _tool(pid: int) -> list[str]:
    """Return the words of a command that writes the C stack of a process, or nothing."""
    commands = {
        "py-spy": ["dump", "--native", "--pid", str(pid)],
        "eu-stack": ["--pid", str(pid)],
        "gdb": ["--nx", "--batch", "--pid", str(pid), "--eval-command", "bt"],
    }
    for name, words in commands.items():
        if path := shutil.which(name):
            return [path, *words]
    return []


def native(pid: int, timeout: float) -> str:
    """Return the C stack of a process, or why it cannot be had. The process stands still meanwhile."""
    words = _tool(pid)
    if not words:
        return "no C stack: none of py-spy, eu-stack, gdb is on the node's PATH"
    end, begin = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, begin, 1),
        (os.POSIX_SPAWN_DUP2, begin, 2),
    ]
    try:
        # With a group of its own: tools start others.
        child = os.posix_spawn(words[0], words, os.environ, file_actions=actions, setpgroup=0)
    except OSError as error:
        os.close(end)
        return f"no C stack: {words[0]}: {error.strerror}"
    finally:
        os.close(begin)
    try:
        text = _read(end, time.monotonic() + timeout)
    finally:
        os.close(end)
        text_is_whole = os.waitpid(child, os.WNOHANG)[0] == child
        if not text_is_whole:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return _calls(text) or f"no C stack: {Path(words[0]).name} wrote nothing within {timeout:.1f} s"


def _calls(text: str) -> str:
    """Return the lines of a C stack, if it is gdb's without what else that says; of other tools all."""
    lines = [line for line in text.splitlines() if line.startswith("#")]
    return "\n".join(line if len(line) <= _WIDTH else f"{line[:_WIDTH]}..." for line in lines) or text


def _read(fd: int, deadline: float) -> str:
    import select

    ready = select.poll()
    ready.register(fd, select.POLLIN)
    text = b""
    while len(text) < _NATIVE and (left := deadline - time.monotonic()) > 0:
        if ready.poll(left * 1000):
            more = os.read(fd, 65_536)
            if not more:
                break
            text += more
    return text[:_NATIVE].decode(errors="replace").strip()
