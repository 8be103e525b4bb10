"""An engine lets itself be watched: it says who it is, and its stack can be had at any time.

The stack is written by faulthandler from within the C signal handler. That works while C code holds the
GIL, which is when it is wanted, and touches nothing but this thread's own frames.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading

from hpcremote.connection import Connection
from hpcremote.engine.signals import Signals
from hpcremote.errors import ConfigError
from hpcremote.net.connect import connect
from hpcremote.net.nodes import STACKS_SIGNAL, Node, this_rank
from hpcremote.net.relayed import FIRST, RelayedTransport, find_agent
from hpcremote.net.transport import Transport
from hpcremote.wire.walltime import in_job

_log = logging.getLogger("hpcremote.engine")


class Presence:
    """This process on its node, from construction to :meth:`close`. Without it the engine works as well.

    Attributes:
        words: the folder for what the engine leaves behind.
    """

    def __init__(self, connection: Connection, uid: str) -> None:
        self._uid = uid
        self._node = Node(connection)
        self.words = self._node.words()
        self._rank = this_rank(uid, self.words)
        path = self._rank.file("stacks")
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        path = self._rank.file("notes")
        self._notes = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._noted = ""
        self._signals = Signals(self._node.signals(uid)) if in_job(os.environ) else None
        if self._signals is not None:
            self._signals.install()
        # For the rest of the process: without a handler, a signal that comes late would end it.
        faulthandler.register(STACKS_SIGNAL, self._file, all_threads=False, chain=False)

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

    def tend(self) -> None:
        """Be watched: see to it that there is an agent."""
        try:
            self._node.announce(self._rank)
            self._node.ensure()
        except (OSError, ConfigError) as error:
            _log.warning("there is no node agent for this engine: %s", error)

    def tend_soon(self) -> None:
        """Do so in a thread of its own: whoever reads the connection has to go on."""
        threading.Thread(target=self.tend, name="hpcremote-tend", daemon=True).start()

    def note(self, text: str) -> None:
        """Leave a note about the running call where the agent finds it (called many times a second)."""
        if text != self._noted:
            self._noted = text
            # Whoever reads in between finds an empty file, or half a note, and does without.
            with contextlib.suppress(OSError):  # no room
                os.ftruncate(self._notes, 0)
                os.pwrite(self._notes, text.encode(), 0)

    def tick(self) -> None:
        """Called now and then while a call runs."""
        if self._signals is not None:
            self._signals.tick()

    def close(self) -> None:
        """Be watched no more."""
        if self._signals is not None:
            self._signals.close()
        with contextlib.suppress(OSError):
            for suffix in ("stacks", "notes"):
                self._rank.file(suffix).unlink(missing_ok=True)
            self._node.withdraw(self._uid)
