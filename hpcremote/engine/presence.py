"""An engine lets itself be watched: it says who it is, and its stack can be had at any time.

The stack is written by faulthandler from within the C signal handler. That works while C code holds the
GIL, which is when it is wanted, and touches nothing but this thread's own frames.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import re
import sys
import threading
from pathlib import Path

from hpcremote.connection import Connection
from hpcremote.engine.machine import Engine
from hpcremote.engine.signals import Signals
from hpcremote.errors import ConfigError
from hpcremote.net.connect import connect
from hpcremote.net.nodes import STACKS_SIGNAL, Node, this_rank
from hpcremote.net.relayed import FIRST, RelayedTransport, find_agent
from hpcremote.net.transport import Transport
from hpcremote.wire.walltime import in_job

_log = logging.getLogger("hpcremote.engine")

#: Names of interpreters. A program that has Python in it would be started a second time instead.
_PYTHON = re.compile("python|pypy")
#: Where this process' stacks are written, from the first time that it is watched to its end; -1: not yet.
_stacks = -1


class Presence:
    """This process on its node, from construction to :meth:`close`. Without it the engine works as well.

    Args:
        connection: the cluster's.
        uid: the rank's.
        lent: the process is a program's own, and goes on afterwards.

    Attributes:
        words: the folder for what the engine leaves behind.
    """

    def __init__(self, connection: Connection, uid: str, *, lent: bool) -> None:
        self._uid = uid
        self._node = Node(connection)
        self.words = self._node.words()
        self._rank = this_rank(uid, self.words, lent=lent)
        self._notes = self._create("notes", os.O_RDWR)
        self._noted = ""
        if _stacks < 0 and _is_caught(STACKS_SIGNAL):  # without that file, nobody sends it
            _log.warning("no stacks of this program can be had: it uses signal %d itself", STACKS_SIGNAL)
        else:
            _write_stacks_to(self._create("stacks", os.O_RDWR | os.O_APPEND))

    def _create(self, suffix: str, flags: int) -> int:
        return os.open(self._rank.file(suffix), flags | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def tend(self) -> None:
        """Be watched: see to it that there is an agent."""
        try:
            if not _PYTHON.search(os.path.basename(sys.executable or "")):
                raise ConfigError(f"sys.executable ({sys.executable!r}) is not Python, which is to run it")
            self._node.announce(self._rank)
            self._node.ensure()
        except (OSError, ConfigError) as error:
            _log.warning("there is no node agent for this engine: %s", error)

    def tend_soon(self) -> None:
        """Do so in a thread of its own: whoever reads the connection has to go on."""
        threading.Thread(target=self.tend, name="hpcremote-tend", daemon=True).start()

    def tick(self, machine: Engine) -> None:
        """Leave a note about the running call where the agent finds it; called many times a second."""
        if machine.mpi is None or machine.running is None or (text := machine.mpi.note()) == self._noted:
            return
        self._noted = text
        # Whoever reads in between finds an empty file, or half a note, and does without.
        with contextlib.suppress(OSError):  # no room
            os.ftruncate(self._notes, 0)
            os.pwrite(self._notes, text.encode(), 0)

    def close(self) -> None:
        """Be watched no more."""
        os.close(self._notes)
        with contextlib.suppress(OSError):
            for suffix in ("stacks", "notes"):
                self._rank.file(suffix).unlink(missing_ok=True)
            self._node.withdraw(self._uid)
            if self._rank.lent:
                self._node.ring()


class EnginePresence(Presence):
    """That of a process which is an engine and nothing else."""

    def __init__(self, connection: Connection, uid: str) -> None:
        super().__init__(connection, uid, lent=False)
        self._signals = Signals(self._node.signals(uid)) if in_job(os.environ) else None
        if self._signals is not None:
            self._signals.install()

    def connect(self, timeout: float) -> Transport:
        """Connect to the controller: by the node's agent where it relays, if one comes up.

        Raises:
            NotConnected: there is no controller.
        """
        if self._node.connection.relayed:
            try:
                self._node.announce(self._rank)
                if way := find_agent(self._node, self._uid, 0, FIRST):
                    return RelayedTransport(self._node, self._uid, way)
                why = self._node.last_log() or f"none was there within {FIRST:g} s"
            except (OSError, ConfigError) as error:
                why = str(error)
            _log.warning("this engine connects by itself, without its node's agent: %s", why)
        return connect(self._node.connection, timeout).transport

    def tick(self, machine: Engine) -> None:
        """Do so, and end where a signal asked for it and nobody does anything about it."""
        super().tick(machine)
        if self._signals is not None:
            self._signals.tick()

    def close(self) -> None:
        """Be watched no more."""
        if self._signals is not None:
            self._signals.close()
        super().close()


def _is_caught(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    (mask,) = [row.partition(":")[2] for row in status.splitlines() if row.startswith("SigCgt")]
    return bool(int(mask, 16) & 1 << (number - 1))


def _write_stacks_to(file: int) -> None:
    """Have this process' stacks written to *file*, for as long as it lives.

    Without a handler, a signal that comes late would end the process.
    """
    global _stacks  # noqa: PLW0603 - a process has one handler
    if _stacks >= 0:
        os.dup2(file, _stacks, inheritable=False)
        os.close(file)
        return
    _stacks = file
    faulthandler.register(STACKS_SIGNAL, file, all_threads=False, chain=False)
