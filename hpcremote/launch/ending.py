"""The end of a cluster of this machine: its controller, processes, jobs and files, in that order.

What is known of it is what is written down under its lock: who starts it holds that until all of it is.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from hpcremote.launch import memory, process, record, remote
from hpcremote.launch.batch import commands, jobs
from hpcremote.launch.process import Child

#: How long a controller that was asked to end may take beyond what it gives its engines.
_LEEWAY = 2.0
#: How long to wait for somebody else who is ending the same cluster, beyond that.
OTHERS = 10.0


def end(
    what: record.Record, children: Sequence[Child] = (), *, polite: float, keep_logs: bool = False
) -> None:
    """End a cluster of this machine: ask its controller, wait *polite* seconds, then SIGTERM, SIGKILL.

    Raises:
        AlreadyRunning: another process is ending it.
        LaunchError: some process cannot be ended.
    """
    with record.locked(what.folder, polite + OTHERS + patience_with(what)):
        end_locked(what, children, polite, keep_logs=keep_logs)


def patience_with(what: record.Record) -> float:
    """Return for how many seconds more to wait for the lock of a cluster that starts: jobs are submitted."""
    return commands.PATIENCE if what.state == "starting" else 0.0


def end_locked(
    what: record.Record, children: Sequence[Child], polite: float, *, keep_logs: bool = False
) -> None:
    """As :func:`end`, for who holds the cluster's lock."""
    found = record.read(what.folder)  # the controller may have tidied up itself meanwhile
    mine = found is not None and found.mark == what.mark
    if found is not None and mine:
        if found.state == "starting" and found.owner.alive():
            polite = 0.0  # as by who starts it: nothing in it is worth waiting for
        what = _being_stopped(what, found)
    controller = what.controller
    asked = mine and polite > 0 and controller is not None and controller.alive()
    try:
        if what.jobs and polite <= 0:
            jobs.cancel(what.jobs)
    finally:  # the scheduler may refuse
        if asked and controller is not None:
            process.send([controller], signal.SIGTERM)
        for child in children:
            child.drop_leash()
        process.end(what.processes, what.mark, children, polite=polite + _LEEWAY if asked else 0.0)
    if what.jobs and polite > 0:
        jobs.cancel(what.jobs, patience=polite)
    try:
        remote.end(what.folder, what.mark)
    finally:
        record.forget(what, keep_logs=keep_logs)


def _being_stopped(known: record.Record, found: record.Record) -> record.Record:
    """Write down that a cluster is being stopped, and return all that is *known* of it or was *found*."""
    begun = known.jobs if found.state == "starting" else ()  # later some may have ended, and been taken out
    submitted = {one.id: one for one in (*begun, *found.jobs)}
    changes: dict[str, Any] = {
        "controller": found.controller or known.controller,
        "engines": tuple(dict.fromkeys((*found.engines, *known.engines))),  # they may have been restarted
        "jobs": tuple(submitted.values()),
        "state": "stopping",
    }
    if found.state == "starting":
        changes["memory"] = {**found.memory, found.mark: memory.mapped(process.marked(found.mark))}
    return found.changed_at_the_end(**changes)
