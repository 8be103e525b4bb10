"""Is there an MPI library, and does mpiexec belong to it?"""

from __future__ import annotations

from typing import NamedTuple

from hpcremote.doctor.finding import Finding, ok, problem
from hpcremote.errors import HPCRemoteError
from hpcremote.launch import catalog, job, mpi, text
from hpcremote.profile import Profile

_GROUP = "MPI"
_GET = "pip install 'hpcremote[mpich]', load the site's MPI, or name its mpiexec in the profile (mpiexec:)"


class Seen(NamedTuple):
    """What was found: empty texts for what was not. ``trouble``: why there is no program to start ranks."""

    starter: str = ""
    trouble: str = ""
    library: str = ""
    library_trouble: str = ""
    mismatch: str = ""


def probe(profile: Profile) -> Seen | None:
    """Look for what the profile's launcher needs; None if it needs no MPI."""
    launcher = catalog.load(profile.launcher)
    if not launcher.mpi or launcher.program is None:
        return None
    env, python = {**job.base_environment(profile, ""), **profile.environment}, job.python_of(profile)
    library = mpi.look(python, env)
    kind = text.library(launcher.flavours, library.said)
    name = f"{kind[0].name} {kind[1]}" if kind else library.said.partition("\n")[0]
    said = f"{name} ({library.path})" if library.said else ""
    values = {"python": python, "profile": profile.name}
    try:
        if launcher.chosen_by == "library":
            path = mpi.find(launcher.program, "", python, env, values)
            starter = mpi.identify_by_library(launcher, path, profile.mpi, python, env)
            return Seen(str(starter), "", said, library.trouble)
        path = mpi.find(launcher.program, profile.mpiexec, python, env, values)
        starter = mpi.identify(launcher, path, profile.mpi, env)
    except HPCRemoteError as error:
        return Seen("", str(error), said, library.trouble)
    lonely = "" if library.trouble else mpi.why_lonely(launcher, starter, library)
    return Seen(str(starter), "", said, library.trouble, lonely)


def judge(seen: Seen | None) -> list[Finding]:
    """Say what it means."""
    if seen is None:
        return [ok(_GROUP, "the profile's launcher starts plain processes: no MPI is needed")]
    found = []
    if seen.trouble:
        found.append(problem(_GROUP, seen.trouble, _GET))
    else:
        found.append(ok(_GROUP, f"ranks are started by {seen.starter}"))
    if seen.library_trouble:
        found.append(problem(_GROUP, seen.library_trouble, _GET))
    elif seen.mismatch:
        found.append(problem(_GROUP, seen.mismatch, "use an mpiexec and a library that belong together"))
    else:
        found.append(ok(_GROUP, f"mpi4py loads {seen.library}"))
    return found
