"""Are there the commands of a batch system?"""

from __future__ import annotations

import os
import shutil
from typing import NamedTuple

from hpcremote import files
from hpcremote.doctor.finding import Finding, ok, problem
from hpcremote.errors import LauncherError
from hpcremote.launch import catalog
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.profile import Profile

_GROUP = "batch"


class Seen(NamedTuple):
    """Which of the known schedulers have which commands here, and which one the profile wants."""

    wanted: str
    present: dict[str, list[str]]
    missing: dict[str, list[str]]
    inside: str = ""
    trouble: str = ""


def probe(profile: Profile) -> Seen:
    """Look for the commands that the schedulers' files name; none is run."""
    present: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    inside = trouble = ""
    for name in files.available("launchers"):
        try:
            one = catalog.read(name)
        except LauncherError as error:
            trouble = str(error)
            continue
        if isinstance(one, Scheduler):
            words = [one.submit.command, one.status.command, one.cancel]
            programs = dict.fromkeys(
                line.split()[0] for line in (next(iter(lines), "") for lines in words) if line
            )
            present[name] = [program for program in programs if shutil.which(program)]
            missing[name] = [program for program in programs if not shutil.which(program)]
            inside = name if one.inside and os.environ.get(one.inside) else inside
    return Seen(profile.scheduler, present, missing, inside, trouble)


def judge(seen: Seen) -> list[Finding]:
    """Say what it means."""
    found = []
    if seen.trouble:
        found.append(problem(_GROUP, seen.trouble, "mend or remove that file"))
    if seen.wanted and seen.missing.get(seen.wanted):
        text = f"scheduler: {seen.wanted} needs {', '.join(seen.missing[seen.wanted])}, not found on PATH"
        found.append(problem(_GROUP, text, "run this on a login node of the cluster, or load its module"))
    whole = [name for name, programs in seen.present.items() if programs and not seen.missing[name]]
    if seen.wanted in whole:
        found.append(
            ok(_GROUP, f"{', '.join(seen.present[seen.wanted])}: the commands of {seen.wanted} are here")
        )
    elif not seen.wanted:
        text = (
            f"found: {', '.join(whole)} (scheduler: in a profile uses one)"
            if whole
            else "no batch system here"
        )
        found.append(ok(_GROUP, text))
    if seen.inside:
        found.append(ok(_GROUP, f"this is inside a job of {seen.inside}"))
    return found
