"""The engine process, from its connection file to its end.

The order matters: the connection comes first, so that a start that fails can say so; then MPI_Init;
then the set registers; and only then is output redirected, so that what MPI prints while it starts is
in the launcher's log.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import logging
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from hpcremote.engine import mpi
from hpcremote.engine.executor import Executor
from hpcremote.engine.joining import await_file, register
from hpcremote.engine.lastwords import LastWords
from hpcremote.engine.link import Link
from hpcremote.engine.machine import Engine
from hpcremote.engine.namespace import Namespace
from hpcremote.engine.operations import Operations
from hpcremote.engine.output import Capture
from hpcremote.engine.presence import EnginePresence
from hpcremote.errors import HPCRemoteError
from hpcremote.ids import new_uid
from hpcremote.wire import messages as m

if TYPE_CHECKING:
    from hpcremote.connection import Connection

_log = logging.getLogger("hpcremote.engine")

#: How long the process may take to end, in seconds. (Python has ended this watch when it calls MPI_Finalize.)
FAREWELL = 10.0


def run(find: Callable[[], Connection], *, wait: float, expect: int | None, use_mpi: bool) -> int:
    """Be an engine until told to end; return the exit status.

    Args:
        find: returns the engine's connection, or raises a ConfigError while there is none.
        wait: seconds to wait for the connection file and for the controller to answer.
        expect: how many ranks were started together, if known.
        use_mpi: whether to call MPI_Init.

    Raises:
        HPCRemoteError: no connection file, no controller, no MPI, or refused.
    """
    uid = new_uid()
    connection = await_file(find, wait)
    namespace = Namespace()
    operations = Operations(namespace)
    machine = Engine(operations.functions.__contains__, operations.functions.define)
    executor = Executor(machine, operations)
    atexit.register(_skip_finalize, machine)  # before anything of the user's, so that it is the last one
    presence = EnginePresence(connection, uid)
    machine.tend = presence.tend_soon

    def tick() -> None:
        executor.tick()
        presence.tick(machine)

    try:
        link = Link(connection, machine, presence.connect(wait), tick=tick)
    except BaseException:
        presence.close()
        raise
    try:
        presence.tend()
        _register(link, machine, uid, expect, use_mpi=use_mpi)
        if machine.joined is None:
            return 0
        namespace.install()
        return _serve(link, machine.joined, executor, Capture(presence.words, uid))
    except HPCRemoteError as error:
        link.send([(m.Leaving(str(error)), ())])
        raise
    finally:
        link.close()
        presence.close()
        # From here on nothing may hold the process up: not a thread of the user's, not a lost rank.
        faulthandler.dump_traceback_later(FAREWELL, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115


def _skip_finalize(machine: Engine) -> None:
    """End the process if another rank has ended before it: MPI_Finalize would wait for that one for ever."""
    if machine.bereft and mpi.has_begun():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(1)


def _register(link: Link, machine: Engine, uid: str, expect: int | None, *, use_mpi: bool) -> None:
    host, pid = socket.gethostname(), os.getpid()
    if use_mpi:
        link.introduce(m.Phase(uid, host, pid, "MPI_Init"))
        place, internal = mpi.join_world(uid, expect)
        side = mpi.side_of(internal, place, replace=link.connection.comm_world)
        machine.mpi = side
        register(link, machine, uid, place)
        if machine.joined is not None:
            side.place(machine.joined.engine)
    else:
        register(link, machine, uid, mpi.alone(uid))


def _stop_listening() -> None:
    """Have nothing to read on standard input.

    Launchers give ranks a pipe there to which nobody writes: ``input()`` or a debugger would wait for ever.
    """
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing != 0:
        os.dup2(nothing, 0)
        os.close(nothing)


def _serve(link: Link, joined: m.Joined, executor: Executor, capture: Capture) -> int:
    gc.freeze()  # what is here now stays: the collector need not look at it again
    words = LastWords(2)
    words.install()
    _stop_listening()
    try:
        reason = executor.run(
            link, capture, shm=joined.shm, controller_timeout=link.connection.controller_timeout
        )
    finally:
        words.uninstall()
        capture.close()
    _log.info("engine %d ends: %s", joined.engine, reason)
    link.send([(m.Leaving(f"stopped: {reason}"), ())])
    return 0
