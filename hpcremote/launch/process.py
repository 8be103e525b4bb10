"""Processes of this machine: start them on their own, tell whether they live, end them for sure.

* Each is started in a session of its own, so that Ctrl-C in the terminal does not reach it.
* A process is known by pid *and* start time, so that a pid that was given to somebody else since is
  never signalled.
* All processes of a cluster carry its *mark* in their environment and hand it on. That finds what no
  process group finds: mpiexec puts ranks into sessions of their own, and when it is killed they are
  nobody's children any more.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from hpcremote import files
from hpcremote.errors import LaunchError

#: The environment variable that holds a cluster's mark. It is no secret.
MARK = "HPCREMOTE_MARK"
_PROC = Path("/proc")
_LOOK_AGAIN = 0.02
#: Seconds that the others have to end when the processes that are written down have.
_STRAY = 1.0


@dataclass(frozen=True)
class Process:
    """A process that we or somebody else started: its pid, and when it started (``files.process_start``)."""

    pid: int
    started: int | None

    def alive(self) -> bool:
        """Say whether this very process runs (a zombie does not)."""
        return self.started is not None and files.process_start(self.pid) == self.started


def of_pid(pid: int) -> Process:
    """Return the process that has *pid* now."""
    return Process(pid, files.process_start(pid))


class Child:
    """A process that we started."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        log: Path,
        leash: bool,
        given: str = "",
    ) -> None:
        """Start it, its output going to the end of file *log*, its standard input being *given*.

        With *leash* its standard input is a pipe from us, which it reads to learn that we are gone.

        Raises:
            LaunchError: the program or the working directory is not there, or may not be used.
        """
        self.words = list(words)
        self.log = log
        try:
            with open_log(log) as file, _with_text(given) as text:
                self._popen = subprocess.Popen(
                    self.words,
                    env=dict(env),
                    cwd=cwd,
                    stdin=subprocess.PIPE if leash else text,
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
        except OSError as error:
            missing = f"the working directory {cwd}" if error.filename == cwd else self.words[0]
            raise LaunchError(f"cannot start {shlex.join(self.words)}: {missing}: {error.strerror}") from None
        self.process = of_pid(self._popen.pid)

    def exit_code(self) -> int | None:
        """Return how it ended (negative: by that signal), or None while it runs."""
        return self._popen.poll()

    def wait(self) -> None:
        """Wait until it has ended."""
        self._popen.wait()

    def release(self) -> None:
        """Tell it to live on without us."""
        self._write_to_leash(b"live on\n")

    def drop_leash(self) -> None:
        """Close our end of the pipe; a process that was not released ends."""
        self._write_to_leash(b"")

    def _write_to_leash(self, data: bytes) -> None:
        pipe, self._popen.stdin = self._popen.stdin, None
        if pipe is None:
            return
        try:
            with pipe:
                pipe.write(data)
        except BrokenPipeError:
            pass  # it ended: exit_code() says so

    def forget(self) -> None:
        """Stop minding it: it is meant to outlive us, and Python shall not warn that it still runs."""
        self.release()
        if self._popen.poll() is None:
            self._popen.returncode = 0


@contextlib.contextmanager
def _with_text(given: str) -> Iterator[BinaryIO | int]:
    """Give something to read from that has this text."""
    if not given:
        yield subprocess.DEVNULL
        return
    with tempfile.TemporaryFile() as file:
        file.write(given.encode())
        file.seek(0)
        yield cast("BinaryIO", file)


def open_log(path: Path) -> BinaryIO:
    """Return a log, private, open to be written at its end."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab", 0)


def how_it_ended(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def of_set(mark: str, number: int) -> str:
    """Return what the processes of one of a cluster's engine sets carry."""
    return f"{mark}.{number}"


def marked(mark: str) -> list[Process]:
    """Return every process of ours on this machine that carries *mark*, save ourselves.

    The mark of a set begins with that of its cluster: ``mark.2``. An empty one is nobody's.
    """
    if not mark or not _PROC.joinpath("self/environ").exists():
        return []
    wanted = f"{MARK}={mark}".encode()
    inner = wanted + b"."

    def carries(pid: int) -> bool:
        return any(one == wanted or one.startswith(inner) for one in _environ(pid))

    pids = (int(name) for name in os.listdir(_PROC) if name.isdigit())
    found = [of_pid(pid) for pid in pids if pid != os.getpid() and carries(pid)]
    return [process for process in found if process.started is not None]


def _environ(pid: int) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:  # another user's, or gone
        return []


def send(processes: Iterable[Process], number: int, *, group: bool = False) -> None:
    """Send a signal to those that still are who they were; with *group* to their process groups."""
    for process in processes:
        if not process.alive():
            continue
        try:
            if group and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, number)
            else:
                os.kill(process.pid, number)
        except ProcessLookupError:
            continue


def wait_gone(processes: Iterable[Process], children: Iterable[Child], seconds: float) -> bool:
    """Wait until none of *processes* runs, at most *seconds*; say whether that is so."""
    deadline = time.monotonic() + seconds
    left = list(processes)
    while True:
        # A child is asked for its exit code: that reaps it, and waits for its last thread. (/proc shows
        # a process as a zombie once its main thread has ended.)
        ours = {child.process: child.exit_code() is None for child in children}
        left = [process for process in left if ours.get(process, process.alive())]
        if not left or time.monotonic() >= deadline:
            return not left
        time.sleep(_LOOK_AGAIN)


def surely_marked(mark: str) -> list[Process]:
    """Return what carries *mark*; nothing only if two looks find nothing.

    One look misses what forks and ends between the list of processes and the look at it, and what is just
    becoming another program: its environment reads empty meanwhile.
    """
    return marked(mark) or marked(mark)


def _wait_unmarked(mark: str, seconds: float) -> bool:
    """Wait until nothing carries *mark*, at most *seconds*; say whether that is so."""
    deadline = time.monotonic() + seconds
    # Looked up again: one that was just starting may have forked, as a node agent does.
    while left := surely_marked(mark):
        if not wait_gone(left, (), deadline - time.monotonic()):
            return False
    return True


def end(
    known: Iterable[Process], mark: str, children: Sequence[Child], *, polite: float, firm: float = 3.0
) -> None:
    """End *known* and everything that carries *mark*: wait, then SIGTERM, then SIGKILL.

    Args:
        known: processes that are written down.
        mark: what the others carry; empty: there are no others.
        children: those that we started ourselves, and have to reap.
        polite: seconds that they have to end by themselves, having been asked.
        firm: seconds between SIGTERM and SIGKILL.

    Raises:
        LaunchError: some outlived even that (stuck in the kernel, as on a dead file system).
    """
    processes = list(dict.fromkeys(known))
    # Nobody has asked what these left behind, a user's child process perhaps, to end.
    if wait_gone(processes, children, polite) and _wait_unmarked(mark, min(polite, _STRAY)):
        return
    for number, seconds in ((signal.SIGTERM, firm), (signal.SIGKILL, firm)):
        # Looked up again each time: what was just starting has children by now.
        processes = [one for one in dict.fromkeys([*processes, *marked(mark)]) if one.alive()]
        send(processes, number, group=True)
        if wait_gone(processes, children, seconds) and not surely_marked(mark):
            return
    left = [one.pid for one in dict.fromkeys([*processes, *marked(mark)]) if one.alive()]
    if left:
        raise LaunchError(f"processes {', '.join(map(str, left))} do not end, not even by SIGKILL: see ps -l")
