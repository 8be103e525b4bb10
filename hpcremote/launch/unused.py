"""What a profile asks for that only a batch system could give, where it names none."""

from __future__ import annotations

import re

from hpcremote.errors import LauncherError
from hpcremote.launch import catalog
from hpcremote.profile import Profile
from hpcremote.settings import OVERRIDE

#: Keys about a job, or about where in one engines are.
_OF_JOBS = (
    *("controller_job", "nodes", "ranks_per_node", "threads_per_rank", "gpus_per_node", "memory", "walltime"),
    *("queue", "account", "qos", "constraint", "reservation", "parallel_environment", "job_name", "setup"),
    "directives",
)


def told(profile: Profile) -> str:
    """Return which keys have no effect, and what to do; nothing if all have, or no job is wanted just now.

    That is where the scheduler is unset for this time only, as inside a job. (What a scheduler's own files
    have no place for is refused: see ``batch.script``.)
    """
    if profile.scheduler:
        return _without_own_job(profile)
    if profile.sources.get("scheduler") == OVERRIDE:
        return ""
    found = [key for key in _OF_JOBS if getattr(profile, key) and key not in _used(profile)]
    if not found:
        return ""
    listed = ", ".join(_named(profile, key) for key in found)
    have = "has" if len(found) == 1 else "have"
    hosts = " (hosts: names machines without one)" if "nodes" in found else ""
    return (
        f"profile {profile.name!r} names no scheduler: {listed} {have} no effect; name one (scheduler: slurm)"
        f"{hosts}, or leave {'it' if len(found) == 1 else 'them'} out"
    )


def _without_own_job(profile: Profile) -> str:
    # In a file it may be for those who want such a job.
    asked = profile.sources.get("controller_job") == OVERRIDE
    if not asked or profile.controller == "own-job":
        return ""
    return (
        f"profile {profile.name!r}: {_named(profile, 'controller_job')} has no effect with controller: "
        f"{profile.controller}; set controller: own-job, or leave it out"
    )


def _named(profile: Profile, key: str) -> str:
    where = profile.sources.get(key, OVERRIDE)
    return key if where == OVERRIDE else f"{key} ({where})"


def _used(profile: Profile) -> set[str]:
    """Return the keys that have their meaning without a job, too."""
    try:
        launcher = catalog.load(profile.launcher)
    except LauncherError:  # a start says so
        return set(_OF_JOBS)
    lines = [*launcher.command, *(line for one in launcher.flavours for line in one.command)]
    used = {name for line in lines for name in re.findall(r"\$(\w+)", line)}
    if profile.nodes in (None, 1):
        used |= {"nodes"} | ({"ranks_per_node"} if not profile.hosts else set())
    return used
