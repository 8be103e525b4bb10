"""The engine process, from its connection file to its end.

The order matters: the connection comes first, so that a start that fails can say so; then MPI_Init;
then the set registers; and only then is output redirected, so that what MPI prints while it starts is
in the launcher's log.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcremote import files
from hpcremote._version import __version__
from hpcremote.engine import mpi
from hpcremote.engine.executor import Executor
from hpcremote.engine.lastwords import LastWords
from hpcremote.engine.link import Link
from hpcremote.engine.machine import Engine
from hpcremote.engine.namespace import Namespace
from hpcremote.engine.operations import Operations
from hpcremote.engine.output import Capture
from hpcremote.errors import ConfigError, HPCRemoteError, LaunchError
from hpcremote.ids import new_uid
from hpcremote.wire import messages as m

if TYPE_CHECKING:
    from hpcremote.connection import Connection

_log = logging.getLogger("hpcremote.engine")

#: How long the controller may take to greet a complete set, and ranks to come together, in seconds.
REGISTRATION = 120.0
#: How long the process may take to end (MPI_Finalize waits for the other ranks), in seconds.
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
    connection = _await_file(find, wait)
    namespace = Namespace()
    operations = Operations(namespace)
    machine = Engine(operations.functions.__contains__, operations.functions.define)
    executor = Executor(machine, operations)
    link = Link(connection, machine, timeout=wait, tick=executor.tick)
    try:
        _register(link, machine, uid, expect, use_mpi=use_mpi)
        if machine.joined is None:
            return 0
        namespace.engine = f"engine {machine.joined.engine}"
        namespace.install()
        return _serve(link, machine.joined, executor, uid)
    except HPCRemoteError as error:
        link.send([(m.Leaving(str(error)), ())])
        raise
    finally:
        link.close()
        # From here on nothing may hold the process up: not a thread of the user's, not a lost rank.
        faulthandler.dump_traceback_later(FAREWELL, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115


def _await_file(find: Callable[[], Connection], wait: float) -> Connection:
    deadline = time.monotonic() + wait
    pause = 0.01
    while True:
        try:
            return find()
        except (ConfigError, HPCRemoteError) as error:
            if time.monotonic() + pause > deadline:
                raise type(error)(f"{error} (waited {wait:g} s)") from None
        time.sleep(pause)
        pause = min(0.25, pause * 1.2)


def _register(link: Link, machine: Engine, uid: str, expect: int | None, *, use_mpi: bool) -> None:
    host, pid = socket.gethostname(), os.getpid()
    if use_mpi:
        link.introduce(m.Phase(uid, host, pid, "MPI_Init"))
        place = mpi.join_world(uid, expect)
    else:
        place = mpi.alone(uid)
    hello: list[m.AnyMessage] = [m.Join(uid, place.set_id, place.rank, m.PROTOCOL, __version__)]
    if place.members:
        hello.append(m.Register(place.set_id, place.size, place.members))
    link.introduce(m.Phase(uid, host, pid, "MPI_Init"), *hello)
    link.wait(
        lambda: bool(machine.joined or machine.refused or machine.stopping or link.lost_since), REGISTRATION
    )
    if machine.refused:
        raise LaunchError(f"the controller refused this engine: {machine.refused}")
    if machine.joined is None and not machine.stopping:
        why = "the controller went away" if link.lost_since else f"no answer within {REGISTRATION:g} s"
        raise LaunchError(f"rank {place.rank} of {place.size} could not register: {why}")


def _serve(link: Link, joined: m.Joined, executor: Executor, uid: str) -> int:
    folder = link.connection.shm if link.connection.machine == files.machine_id() else ""
    capture = Capture(folder or str(files.private_dir(files.runtime_dir())), uid)
    gc.freeze()  # what is here now stays: the collector need not look at it again
    words = LastWords(2)
    words.install()
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
