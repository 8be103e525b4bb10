"""Are there the commands of a batch system?"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from typing import NamedTuple

from hpcremote import files
from hpcremote.doctor.finding import Finding, ok, problem, warning
from hpcremote.errors import LauncherError, LaunchError
from hpcremote.launch import catalog, unused
from hpcremote.launch.batch import whose
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.profile import Profile

_GROUP = "batch"


class Seen(NamedTuple):
    """Which of the known schedulers have which commands here, and which one the profile wants.

    ``foreign`` has those whose commands are here by name, and are not theirs by what they say when asked so.
    """

    wanted: str
    present: dict[str, list[str]]
    missing: dict[str, list[str]]
    inside: str = ""
    unused: str = ""
    trouble: str = ""
    foreign: Mapping[str, str] = {}


def probe(profile: Profile) -> Seen:
    """Look for the commands that the schedulers' files name; those that several have are asked whose."""
    present: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    foreign: dict[str, str] = {}
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
            if one.recognise and not missing[name] and not _recognised(one):
                foreign[name] = shlex.join(one.recognise.command)
            inside = name if one.inside and os.environ.get(one.inside) else inside
    return Seen(profile.scheduler, present, missing, inside, unused.told(profile), trouble, foreign)


def _recognised(one: Scheduler) -> bool:
    try:
        return whose.are_theirs(one)
    except LaunchError:
        return False  # it does not answer


def judge(seen: Seen) -> list[Finding]:
    """Say what it means."""
    found = []
    if seen.trouble:
        found.append(problem(_GROUP, seen.trouble, "mend or remove that file"))
    if seen.wanted and seen.missing.get(seen.wanted):
        text = f"scheduler: {seen.wanted} needs {', '.join(seen.missing[seen.wanted])}, not found on PATH"
        found.append(problem(_GROUP, text, "run this on a login node of the cluster, or load its module"))
    whole = [
        name
        for name, programs in seen.present.items()
        if programs and not seen.missing[name] and name not in seen.foreign
    ]
    if seen.wanted in seen.foreign:
        found.append(_of_another(seen, whole))
    elif seen.wanted in whole:
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
    if seen.unused:
        what, _, remedy = seen.unused.partition("; ")
        found.append(warning(_GROUP, what, remedy))
    if seen.inside:
        found.append(ok(_GROUP, f"this is inside a job of {seen.inside}"))
    return found


def _of_another(seen: Seen, whole: list[str]) -> Finding:
    """The commands have the names of those that are wanted."""
    programs = seen.present[seen.wanted]
    owners = [name for name in whole if set(programs) & set(seen.present[name])]
    said = f"{', '.join(programs)} are here, but not those of {seen.wanted}"
    if owners:
        owner = " or ".join(owners)
        return problem(_GROUP, f"{said}: they are of {owner}", f"scheduler: {owners[0]} in the profile")
    return warning(
        _GROUP,
        f"{said}, by what `{seen.foreign[seen.wanted]}` says",
        f"see `{seen.foreign[seen.wanted]}`: another batch system, or one that does not answer here?",
    )
