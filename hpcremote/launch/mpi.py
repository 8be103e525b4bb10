"""Which mpiexec, which flavour of it, and does it fit the MPI library that mpi4py loads?

The last question costs a process that loads MPI, so it is asked when a start went wrong, not before.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcremote.errors import LaunchError
from hpcremote.launch import text
from hpcremote.launch.process import how_it_ended
from hpcremote.launch.spec import Flavour, Launcher, Program

#: Seconds that an mpiexec has to tell its version, and that Python has to load the MPI library.
_VERSION_SECONDS, _LOAD_SECONDS = 10.0, 20.0
#: Run by the engines' Python, so that it finds what they find; MPI_Init is not called.
_PROBE = """
import mpi4py
mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI
try:
    lines = open("/proc/self/maps").read().split("\\n")
except OSError:
    lines = []
paths = sorted({line.split(None, 5)[-1] for line in lines if "/libmpi" in line})
print(paths[0] if paths else "")
print(MPI.Get_library_version())
"""


@dataclass(frozen=True)
class Starter:
    """The program that starts the ranks, as found here."""

    path: str
    flavour: Flavour
    version: str

    def __str__(self) -> str:
        return f"{self.flavour.name} {self.version}".strip() + f" ({self.path})"


def find(program: Program, named: str, python: str, env: Mapping[str, str], values: text.Values) -> str:
    """Return the path of *program*: the one *named*, else the one beside *python*, else that on PATH.

    Raises:
        LaunchError: there is none.
    """
    path = _by_name(named, env) if named else _by_search(program, python, env)
    if path is None:
        raise LaunchError(text.fill(program.missing, values))
    return path


def identify(launcher: Launcher, path: str, chosen: str, env: Mapping[str, str]) -> Starter:
    """Return flavour and version of the program at *path*; the flavour is *chosen* unless that is "auto".

    Raises:
        LaunchError: it cannot be run.
    """
    lines = launcher.program.version if launcher.program else ()
    asked = text.command(lines, {"program": path})
    code, said = _ask(asked, env, _VERSION_SECONDS)
    if code != 0:
        words = text.tail(said, 3)
        raise LaunchError(
            f"{text.shown(asked)} {_how(code)}{': ' if words else ''}{words}; "
            "`mpiexec:` in the profile names another one"
        )
    flavours = _allowed(launcher, chosen)
    flavour, version = text.recognise(flavours, said) or (flavours[0], "")
    return Starter(path, flavour, version)


def identify_by_library(
    launcher: Launcher, path: str, chosen: str, python: str, env: Mapping[str, str]
) -> Starter:
    """Return the program at *path* with the flavour of the MPI library that *python* loads, or the *chosen*.

    Raises:
        LaunchError: that library cannot be loaded.
    """
    flavours = _allowed(launcher, chosen)
    library = look(python, env)
    if library.trouble:
        raise LaunchError(library.trouble)
    flavour, version = text.library(flavours, library.said) or (flavours[0], "")
    return Starter(path, flavour, version)


def _allowed(launcher: Launcher, chosen: str) -> list[Flavour]:
    flavours = [one for one in launcher.flavours if chosen in ("auto", one.key)]
    if not flavours:
        known = ", ".join(one.key for one in launcher.flavours if one.key)
        raise LaunchError(f"mpi: {chosen} (from the profile): launcher {launcher.name} knows only {known}")
    return flavours


def _by_name(named: str, env: Mapping[str, str]) -> str:
    path = shutil.which(os.path.expanduser(named), path=env.get("PATH"))
    if path is None:
        raise LaunchError(f"mpiexec: {named} (from the profile) is not a program that can be run here")
    return path


def _by_search(program: Program, python: str, env: Mapping[str, str]) -> str | None:
    # mpi4py, too, takes the library of its own environment before that of the system.
    beside = dict.fromkeys([str(Path(python).parent), str(Path(sys.prefix, "bin"))])
    for folder in [*beside, env.get("PATH", os.defpath)]:
        for name in program.names:
            if path := shutil.which(name, path=folder):
                return path
    return None


def _how(code: int | str) -> str:
    return code if isinstance(code, str) else f"fails ({how_it_ended(code)})"


def _ask(words: Sequence[str], env: Mapping[str, str], seconds: float) -> tuple[int | str, str]:
    """Return a command's exit code, or why it has none, and what it said."""
    try:
        asked = subprocess.run(
            words,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"did not answer within {seconds:g} s", ""
    except OSError as error:
        return f"cannot be run ({error.strerror})", ""
    return asked.returncode, asked.stdout.decode(errors="replace")


@dataclass(frozen=True)
class Library:
    """The MPI library that mpi4py loads: what it says of itself and where it is, or why there is none."""

    said: str = ""
    path: str = ""
    trouble: str = ""


def look(python: str, env: Mapping[str, str]) -> Library:
    """Return the MPI library that *python* loads by mpi4py."""
    code, said = _ask([python, "-c", _PROBE], env, _LOAD_SECONDS)
    if code != 0:
        return Library(trouble=f"{python} cannot load MPI by mpi4py: {text.tail(said, 1) or _how(code)}")
    path, _, version = said.partition("\n")
    return Library(version.strip("\0 \n"), path)


def why_lonely(launcher: Launcher, starter: Starter, library: Library) -> str:
    """Return why the ranks of *starter* cannot find each other, or nothing if the library fits it."""
    if library.trouble:
        return library.trouble
    mine = (starter.flavour.name, starter.version, starter.path)
    return text.mismatch(launcher.flavours, mine, library.said, library.path)


def no_reason(starter: Starter, library: Library) -> str:
    """Return what can be said when ranks are lonely though everything fits."""
    return (
        f"mpiexec is {starter}, mpi4py loads the same kind of MPI ({library.path}), and yet the ranks did "
        f"not find each other: was that library built for another process manager (PMI)? "
        f"Name its own mpiexec (mpiexec: /path/to/mpiexec)"
    )
