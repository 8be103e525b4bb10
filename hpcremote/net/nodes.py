"""What the ranks of one node and their agent share: a folder, in which they find each other.

::

    runtime_dir()/<cluster>/     <uid>.rank    a rank says who it is: pid, and where it leaves its words
                                 lock          held (flock) by the agent for as long as it lives
                                 bell          the agent's socket: a byte there says "look who is here"
                                 link          the agent's socket for ranks that it relays for
                                 <uid>.signals a FIFO: signals that a rank was sent, in batch jobs
                                 agent.log     what the agent says; its successor tells it

Each rank tries the lock, before MPI_Init and when the controller finds its node without an agent. Who gets
it starts the agent and hands it the lock. So there is one at most, and its death frees the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from hpcremote import files
from hpcremote.connection import Connection
from hpcremote.ids import is_uid
from hpcremote.wire.walltime import job_of

_log = logging.getLogger("hpcremote")

#: Makes a rank write its Python stack to its stacks file. MPICH, Open MPI, UCX and Python leave it alone;
#: HPCToolkit and PAPI use the first four real-time signals.
STACKS_SIGNAL = signal.SIGRTMIN + 11
#: The agent's end of the lock.
LOCK_FD = 3
_ABOVE = 10  # our own descriptors are moved here, out of the way of 0 to 3
_LOG_TAIL = 2_000


class Rank(NamedTuple):
    """A process that is watched.

    ``started``: as :func:`hpcremote.files.process_start` has it. ``lent``: it is a program's own, which goes
    on when it is withdrawn. ``job``: the batch job that it is in.
    """

    uid: str
    pid: int
    started: int
    words: str
    lent: bool = False
    job: str = ""

    def file(self, suffix: str) -> Path:
        """Return the file that it leaves words in: ``out``, ``err`` or ``stacks``."""
        return Path(self.words) / f"{self.uid}.{suffix}"

    def alive(self) -> bool:
        """Say whether this very process runs."""
        return files.process_start(self.pid) == self.started


class Node:
    """The folder of one cluster on this node."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        name = connection.cluster_uid[:16]
        if not connection.is_local:  # nodes may share their /tmp
            name += f"-{crc32(os.uname().nodename.encode()):08x}"
        self.folder = files.runtime_dir() / name
        self.bell = self.folder / "bell"
        self.link = self.folder / "link"
        self.log = self.folder / "agent.log"

    def words(self) -> str:
        """Return the folder for what ranks leave behind: where the controller looks, if it is near."""
        near = self.connection.shm and self.connection.is_local
        return self.connection.shm if near else str(files.private_dir(self.folder))

    # ------------------------------------------------------------ who is here

    def announce(self, rank: Rank) -> None:
        """Say that this rank is here."""
        files.private_dir(self.folder)
        begun = self.folder / f".{rank.uid}"
        begun.write_text(json.dumps(rank._asdict()))
        begun.rename(self.folder / f"{rank.uid}.rank")
        self.ring()

    def signals(self, uid: str) -> Path:
        """Return where a rank hands on the signals that it is sent."""
        return files.private_dir(self.folder) / f"{uid}.signals"

    def withdraw(self, uid: str) -> None:
        """Forget a rank."""
        (self.folder / f"{uid}.signals").unlink(missing_ok=True)
        (self.folder / f"{uid}.rank").unlink(missing_ok=True)

    def ranks(self) -> list[Rank]:
        """Return the ranks that have announced themselves."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(self.folder.glob("*.rank")):
                with contextlib.suppress(FileNotFoundError, ValueError, TypeError):
                    rank = Rank(**json.loads(path.read_text()))
                    if is_uid(rank.uid):
                        found.append(rank)
        return found

    def ring(self) -> None:
        """Have the agent look around."""
        # Nobody there: who starts looks by itself. Full: it will look.
        nobody = contextlib.suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as bell, nobody:
            bell.sendto(b"\1", str(self.bell))

    # ------------------------------------------------------------ who watches

    def take_lock(self) -> int | None:
        """Return a descriptor that holds the lock, or None if an agent has it."""
        while True:
            path = files.private_dir(self.folder) / "lock"
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # an agent that ended has just taken the folder away
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock), path.stat()):
                    return lock
            except BlockingIOError:
                os.close(lock)
                return None
            except FileNotFoundError:  # the one that we opened is not there any more
                pass
            os.close(lock)

    def ensure(self) -> bool:
        """Start an agent if there is none; return whether there was none.

        Raises:
            OSError, ConfigError: the folder cannot be used, or no process be started.
        """
        lock = self.take_lock()
        if lock is None:
            return False
        try:
            if last_words := self.last_log():
                _log.warning("the node agent had ended, and is started anew; it said: %s", last_words)
            pid = self._spawn(lock)
        finally:
            os.close(lock)
        threading.Thread(target=_reap, args=(pid,), name="hpcremote-reap", daemon=True).start()
        return True

    def last_log(self) -> str:
        """Return the end of what the agent has said."""
        try:
            return self.log.read_text(errors="replace")[-_LOG_TAIL:].strip()
        except OSError:
            return ""

    def _spawn(self, lock: int) -> int:
        """Start the agent's process: no shell, no descriptor of ours but the lock, no secret on the disk."""
        end, begin = os.pipe2(os.O_CLOEXEC)
        log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in (end, log, lock)]
        try:
            os.write(begin, self.connection.to_json().encode())
            os.close(begin)
            actions = [
                (os.POSIX_SPAWN_DUP2, high[0], 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, high[1], 2),
                (os.POSIX_SPAWN_DUP2, high[2], LOCK_FD),
                # An MPI launcher takes a rank for alive while somebody has its descriptors.
                *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited() if fd > LOCK_FD),
            ]
            words = [sys.executable, "-m", "hpcremote", "agent", "--file", "-", "--lock", str(LOCK_FD)]
            env = _of_all_sets(os.environ)
            return os.posix_spawn(sys.executable, words, env, file_actions=actions, setsigmask=())
        finally:
            for fd in (end, log, *high):
                os.close(fd)


def _of_all_sets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of an agent: it watches the ranks of all sets, and does not end with one.

    The mark of a set begins with that of its cluster: ``mark.2``.
    """
    mark = environ.get("HPCREMOTE_MARK", "")
    return {**environ, "HPCREMOTE_MARK": mark.partition(".")[0]} if mark else dict(environ)


def _inherited() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists
            if os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def _reap(pid: int) -> None:
    """The agent leaves its parent at once; what is left of the process that was started is taken away."""
    with contextlib.suppress(ChildProcessError):  # the user's code waited for any child
        _, status = os.waitpid(pid, 0)
        if status:
            _log.warning("the node agent did not start (status %d)", status)


def this_rank(uid: str, words: str, *, lent: bool = False) -> Rank:
    """Return what identifies this process."""
    return Rank(uid, os.getpid(), files.process_start(os.getpid()) or 0, words, lent, job_of(os.environ))
