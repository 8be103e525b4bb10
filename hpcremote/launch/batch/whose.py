"""Whose commands these are: several batch systems have a ``qsub``."""

from __future__ import annotations

import contextlib
import shlex

from hpcremote import files
from hpcremote.errors import LauncherError, LaunchError
from hpcremote.launch import catalog
from hpcremote.launch.batch import commands
from hpcremote.launch.batch.scheduler import Scheduler

#: Seconds for a command to say whose it is: some ask a server first, which may be down.
_PATIENCE = 10.0


def are_theirs(scheduler: Scheduler) -> bool:
    """Say whether the commands that are here are this scheduler's, as far as it can be told.

    Raises:
        LaunchError: they are not here, or do not answer.
    """
    how = scheduler.recognise
    return how is None or bool(how.pattern.search(commands.run(how.command, seconds=_PATIENCE).all))


def check(scheduler: Scheduler) -> None:
    """Refuse commands that are surely another scheduler's: it might take a script that is not for it.

    Raises:
        LaunchError: they are.
    """
    try:
        owner = "" if are_theirs(scheduler) else _owner(scheduler)
    except LaunchError:
        return  # to submit says more
    if owner and scheduler.recognise is not None:
        raise LaunchError(
            f"{_program(scheduler)} here is that of {owner}, and not of {scheduler.name}, by what "
            f"`{shlex.join(scheduler.recognise.command)}` says: use `scheduler: {owner}`"
        )


def _owner(scheduler: Scheduler) -> str:
    for name in files.available("launchers"):
        try:
            one = catalog.read(name)
        except LauncherError:
            continue  # one that is wrong is told when it is used
        same = isinstance(one, Scheduler) and one.recognise and _program(one) == _program(scheduler)
        if isinstance(one, Scheduler) and same and name != scheduler.name:
            with contextlib.suppress(LaunchError):  # it does not answer
                if are_theirs(one):
                    return name
    return ""


def _program(scheduler: Scheduler) -> str:
    return scheduler.submit.command[0].split()[0]
