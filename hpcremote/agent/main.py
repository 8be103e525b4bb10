"""The node agent's process, from its lock to its end."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from hpcremote.agent.server import Server
from hpcremote.connection import Connection
from hpcremote.errors import LaunchError
from hpcremote.net.connect import connect
from hpcremote.net.nodes import Node
from hpcremote.wire.walltime import WARNINGS, in_job

#: How long the controller may take to answer, in seconds.
CONNECT = 20.0


def run(connection: Connection, lock: int | None) -> int:
    """Watch the ranks of this node until the last one has gone; return the exit status.

    Args:
        connection: the engines' connection.
        lock: descriptor that holds the node's lock, or None to take it.

    Raises:
        HPCRemoteError: no controller, or the node has an agent.
    """
    node = Node(connection)
    if lock is None:
        lock = node.take_lock()
        if lock is None:
            raise LaunchError(f"an agent watches the ranks of this node already ({node.folder / 'lock'})")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the ranks; we end when they do
    _use_any_core()
    signal.signal(signal.SIGTERM, _end)
    done = False
    try:
        server = Server(node, connect(connection, CONNECT).transport)
        if in_job(os.environ):
            for number in WARNINGS:  # we end with our ranks, and they when the controller says so
                signal.signal(number, lambda one, _frame: server.signalled(one))
        gc.freeze()
        server.run()
        done = True
    finally:
        _leave(node, lock, heal=done)
    server.close()
    return 0


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def detach() -> None:
    """Leave the parent, its session and its terminal: nobody's child, so that nobody waits for it."""
    if os.fork():
        os._exit(0)
    os.setsid()


def _use_any_core() -> None:
    """The rank that started us may be bound to a core, which is for its work."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, range(os.cpu_count() or 1))


def _leave(node: Node, lock: int, *, heal: bool) -> None:
    """Take our files away and free the lock.

    With *heal*, a rank that came since we looked last gets a successor: it found the lock taken, and counts
    on us. Where we failed, it would fail as well; then what we said in our log is left to be told.
    """
    node.bell.unlink(missing_ok=True)
    node.link.unlink(missing_ok=True)
    (node.folder / "lock").unlink(missing_ok=True)
    os.close(lock)
    left = any(rank.alive() for rank in node.ranks())
    if left and heal:
        node.ensure()
    elif not left and str(node.folder) != node.connection.shm:  # that one is the controller's own
        for path in (node.log, *node.folder.glob("*.rank")):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty, or gone
            node.folder.rmdir()
