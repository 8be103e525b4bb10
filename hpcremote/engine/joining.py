"""How an engine gets into a cluster: its connection file, and the registration of its set."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from hpcremote._version import __version__
from hpcremote.engine.link import Link
from hpcremote.engine.machine import Engine
from hpcremote.engine.mpi import Place
from hpcremote.errors import ConfigError, HPCRemoteError, LaunchError
from hpcremote.wire import messages as m
from hpcremote.wire import walltime

if TYPE_CHECKING:
    from hpcremote.connection import Connection

#: How long the controller may take to greet a complete set, and ranks to come together, in seconds.
REGISTRATION = 120.0


def await_file(find: Callable[[], Connection], wait: float) -> Connection:
    """Return what *find* returns; while it raises, ask again for *wait* seconds."""
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


def register(link: Link, machine: Engine, uid: str, place: Place) -> None:
    """Register this rank, and on rank 0 its whole set; wait until the set is complete.

    ``machine.joined`` is None afterwards if the cluster ends just then.

    Raises:
        LaunchError: the controller refused, went away, or the set was not complete in time.
    """
    hello: list[m.AnyMessage] = [m.Join(uid, place.set_id, place.rank, m.PROTOCOL, __version__)]
    if place.members:
        environ = os.environ  # set by hpcremote.launch, if that has started us
        mark, replaces = environ.get("HPCREMOTE_MARK", ""), environ.get("HPCREMOTE_REPLACES", "")
        left, job = _time_left(), walltime.system(environ)
        key = environ.get("HPCREMOTE_JOB", "")
        hello.append(m.Register(place.set_id, place.size, place.members, mark, replaces, left, job, key))
    link.introduce(m.Phase(uid, socket.gethostname(), os.getpid(), "MPI_Init"), *hello)
    link.wait(
        lambda: bool(machine.joined or machine.refused or machine.stopping or link.lost_since), REGISTRATION
    )
    if machine.refused:
        raise LaunchError(f"the controller refused this engine: {machine.refused}")
    if machine.joined is None and not machine.stopping:
        why = "the controller went away" if link.lost_since else f"no answer within {REGISTRATION:g} s"
        raise LaunchError(f"rank {place.rank} of {place.size} could not register: {why}")


def _time_left() -> float:
    """Return in how many seconds our job ends, or -1 if nobody knows.

    Raises:
        LaunchError: somebody has set HPCREMOTE_ENDS to what is no time.
    """
    try:
        left = walltime.known(os.environ, time.time())
    except ValueError as error:
        raise LaunchError(str(error)) from None
    return -1.0 if left is None else left
