"""How soon the client knows that a rank has failed, or has died.

::

    raise    rank 1: time.time(), raise ──▶ its error is in ``ar.failures``; the others are in an allreduce
    death    client: SIGKILL to rank 1  ──▶ the call that all ranks are in is over, with an EngineError

Client and engines are on one machine, so they have one clock.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import common

import hpcremote

#: How often each; every sample ends in a release of the other ranks, or in a restart of the set.
TIMES = 3
#: Seconds that rank 1 leaves the others to come to the allreduce.
AHEAD = 0.1

#: Seconds after which the others are released from it.
GRACE = 0.5

#: What the engines run; a module of this folder would not travel to them.
RANKS = """
import os, time
import hpcremote

def raises(ahead):
    comm = hpcremote.comm()
    if comm.rank == 1:
        time.sleep(ahead)
        raise ValueError(time.time())
    comm.allreduce(1)

def waits():
    hpcremote.comm().recv()

def number():
    return os.getpid()
"""


def raised(everyone: Any) -> float:
    """Have rank 1 raise; return the seconds until its error was here."""
    ar = everyone.call(hpcremote.Reference("raises"), (AHEAD,), block=False, grace=GRACE)
    ar.wait(30, return_when=hpcremote.FIRST_EXCEPTION)
    known, failures = time.time(), ar.failures
    if list(failures) != [1] or ar.ready():
        raise ValueError(f"rank 1 should have failed, and the others wait, not {failures}")
    ar.exception(30)
    return known - float(failures[1].evalue)


def died(everyone: Any) -> float:
    """Kill rank 1; return the seconds until the call on all ranks had failed."""
    pid = everyone.apply_sync(hpcremote.Reference("number"))[1]
    ar = everyone.apply_async(hpcremote.Reference("waits"))
    ar.wait(AHEAD)
    began = time.perf_counter()
    os.kill(pid, signal.SIGKILL)
    error = ar.exception(30)
    took = time.perf_counter() - began
    if not isinstance(error.errors[1], hpcremote.EngineError):
        raise ValueError(f"rank 1 was killed, and this is what became of its call: {error}")
    return took


def measure(client: Any, metrics: list[str]) -> None:
    """Measure what was asked for of this module; the engines have ended after it."""
    if "raise" in metrics:
        with common.bounded(60):
            client[:].execute(RANKS, block=True)
            common.report("raise", "s", [raised(client[:]) for _ in range(TIMES)])
    if "death" in metrics:
        with common.bounded(90):
            common.report("death", "s", [_died_of_new(client, number) for number in range(TIMES)])


def _died_of_new(client: Any, number: int) -> float:
    """Do so with a set that is started for it, but for the first time."""
    if number:
        client.set(0).restart()
    client[:].execute(RANKS, block=True)
    return died(client[:])
