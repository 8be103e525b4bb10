"""How many files and processes may one have?"""

from __future__ import annotations

import os
import resource
from typing import NamedTuple

from hpcremote.doctor.finding import Finding, ok, problem, warning
from hpcremote.profile import Profile

_GROUP = "limits"
_NONE = resource.RLIM_INFINITY


class Seen(NamedTuple):
    """Limits (-1: none), the engines that are asked for, and the cores of this machine."""

    files: int
    processes: int
    engines: int
    cores: int
    elsewhere: bool = False


def probe(profile: Profile) -> Seen:
    """Ask the system."""
    return Seen(
        resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        resource.getrlimit(resource.RLIMIT_NPROC)[0],
        profile.engines,
        len(os.sched_getaffinity(0)),
        bool(profile.scheduler or profile.hosts),
    )


def judge(seen: Seen) -> list[Finding]:
    """Say what it means: the controller needs a descriptor for each engine, an engine some threads."""
    found = []
    need = seen.engines + 100
    if seen.files != _NONE and seen.files < need:
        text = f"{seen.files} open files are allowed, and {seen.engines} engines need {need}"
        found.append(
            problem(_GROUP, text, f"ulimit -n {max(4096, need)} before the start, or in its setup lines")
        )
    if seen.processes != _NONE and seen.processes < 8 * seen.engines + 100:
        text = f"{seen.processes} processes and threads are allowed, and {seen.engines} engines may need more"
        found.append(problem(_GROUP, text, "ulimit -u, or ask the site"))
    if not seen.elsewhere and seen.engines > seen.cores:
        text = f"{seen.engines} engines share {seen.cores} cores: MPI waits by spinning, so that all get slow"
        found.append(warning(_GROUP, text, "start fewer (n:), or use more nodes"))
    if not found:
        shown = "any number of" if seen.files == _NONE else str(seen.files)
        found.append(
            ok(_GROUP, f"{shown} open files are allowed; {seen.engines} engines, {seen.cores} cores here")
        )
    return found
