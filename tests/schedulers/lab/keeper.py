"""Namespaces with a life of their own: what runs in them ends with them, and they end with us."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil

#: Seconds for what takes the kernel milliseconds; the machine may be busy.
PATIENCE = 30.0

# Process 1 of the namespace reads until we are gone. As it ignores SIGCHLD, the kernel itself buries orphans.
_INIT = "echo ready; exec env --ignore-signal=CHLD cat >/dev/null"


class Keeper:
    """New namespaces, kept by a process 1 that is on a leash.

    The leash is a pipe. When we let go of it, by :meth:`end` or by dying in whatever way, process 1 reads the
    end of it and ends, the kernel kills all others in its process-id space, and with the last of them go
    mounts and network interfaces.

    Args:
        kinds: of namespace, as ``unshare`` names its options; ``pid`` is always among them.
    """

    def __init__(self, *kinds: str) -> None:
        self._kinds = kinds
        options = [f"--{kind}" for kind in (*kinds, "pid")]
        if "mount" in kinds:
            options.append("--mount-proc")
        self._process = subprocess.Popen(
            ["unshare", *options, "--fork", "--kill-child", "sh", "-c", _INIT],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,  # Ctrl-C at the terminal is for the tests, not for the machines
        )  # fmt: skip
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise RuntimeError(f"cannot make namespaces: {self._process.communicate()[1].strip()}")

    @property
    def pid(self) -> int:
        """The process through whose ``/proc/PID/ns`` the namespaces are entered."""
        return self._process.pid

    def words(self, words: Sequence[str | Path], cwd: Path | None = None) -> list[str]:
        """Return the command that runs *words* inside."""
        return enter(self.pid, self._kinds, words, cwd)

    def only_net(self, words: Sequence[str | Path]) -> list[str]:
        """Return the command that runs *words* with the network of inside, and all else as it is here."""
        return ["nsenter", "-t", str(self.pid), "--net", "--", *map(str, words)]

    def processes(self) -> Iterator[psutil.Process]:
        """Yield what runs inside, except process 1; zombies do not run."""
        space = os.readlink(f"/proc/{self.pid}/ns/pid_for_children")
        first = {child.pid for child in psutil.Process(self.pid).children()}
        for process in psutil.process_iter():
            try:
                inside = os.readlink(f"/proc/{process.pid}/ns/pid") == space
                if inside and process.pid not in first and process.status() != psutil.STATUS_ZOMBIE:
                    yield process
            except (OSError, psutil.NoSuchProcess):
                continue  # it has ended meanwhile

    def end(self) -> None:
        """Kill what runs inside, at once; return when nothing of it is left."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE)  # process 1 can only be buried after all others
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None
            pipe.close()


def enter(pid: int, kinds: Sequence[str], words: Sequence[str | Path], cwd: Path | None) -> list[str]:
    """Return the command that runs *words* in the namespaces of a keeper."""
    doors = [*(f"--{kind}" for kind in kinds), f"--pid=/proc/{pid}/ns/pid_for_children"]
    where = [] if cwd is None else [f"--wdns={cwd}"]
    return ["nsenter", "-t", str(pid), *doors, *where, "--", *map(str, words)]


class Program(subprocess.Popen[str]):
    """A program inside namespaces. Signals reach it, not the ``nsenter`` that waits and ends as it does."""

    def send_signal(self, sig: int) -> None:
        if self.poll() is not None:
            return
        try:
            for child in psutil.Process(self.pid).children():
                child.send_signal(sig)
        except psutil.NoSuchProcess:
            self.wait(PATIENCE)

    def kill_all(self) -> None:
        """Kill it and those of its children that have stayed in its session."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)

    def finish(self, input: str | None, seconds: float) -> subprocess.CompletedProcess[str]:
        """Wait for its end and return what it has written.

        Raises:
            TimeoutError: it has not ended; it is killed, and the text has what it wrote.
        """
        try:
            out, err = self.communicate(input, seconds)
        except subprocess.TimeoutExpired:
            self.kill_all()
            out, err = self.communicate(timeout=PATIENCE)
            text = f"{self.args!r} has not ended after {seconds:g} s\n{out}\n{err}"
            raise TimeoutError(text) from None
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)


def start(words: Sequence[str], **options: Any) -> Program:
    """Start a command made by :meth:`Keeper.words`, with pipes and nothing to read."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return Program(words, text=True, start_new_session=True, **(pipes | options))
