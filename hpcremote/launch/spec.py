"""Launcher files: YAML text to :class:`Launcher`. Pure: it reads and starts nothing.

::

    launchers/mpiexec.yaml ──parse──▶ Launcher ─┬─ program   what must be found, and how it tells its version
                                                ├─ flavours  what differs between MPICH, Open MPI, Intel MPI
                                                ├─ command   how the ranks are started
                                                └─ hints     what refusals mean, in a sentence with a remedy

A launcher is data, so that a site can add one by writing a file. There are no conditions and no
expressions in it: see ``launch.text`` for the one rule of how commands are filled in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hpcremote.launch.reader import Reader

#: How the ranks start: the command is run once for each engine, for all of them, or for each host.
RANKS = ("each", "together", "host")
#: What tells the flavour: the version of the program, or the MPI library that mpi4py loads.
CHOSEN_BY = ("program", "library")
_RARE = "chosen_by culprit label hints"


@dataclass(frozen=True)
class Hint:
    """What it means when a program says *pattern*."""

    pattern: re.Pattern[str]
    say: str


@dataclass(frozen=True)
class Flavour:
    """One kind of the program: how to recognise it, and its own words. Profiles choose it by *key*."""

    name: str
    key: str
    recognise: re.Pattern[str]
    library: re.Pattern[str]
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    install: str = ""


@dataclass(frozen=True)
class Program:
    """What starts the ranks: names to look for, how to ask its version, what to say without it."""

    names: tuple[str, ...]
    version: tuple[str, ...]
    missing: str


@dataclass(frozen=True)
class Launcher:
    """How engines are started. ``command`` is empty where each flavour has its own.

    ``culprit`` finds the rank that failed first in what the program says, ``label`` which rank wrote a line.
    """

    name: str
    source: str
    about: str
    mpi: bool
    ranks: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Program | None = None
    flavours: tuple[Flavour, ...] = ()
    chosen_by: str = "program"
    culprit: re.Pattern[str] | None = None
    label: re.Pattern[str] | None = None
    hints: tuple[Hint, ...] = ()


def parse(text: str, name: str, source: str) -> Launcher:
    """Return the launcher that *text*, the content of file *source*, describes.

    Raises:
        LauncherError: bad YAML, an unknown or missing key, a wrong type, or a bad pattern. The
            message has the file, the line and the key.
    """
    read = Reader(text, source)
    top = read.mapping((), "about mpi ranks", f"command environment program flavours {_RARE}")
    launcher = Launcher(
        name=name,
        source=source,
        about=read.string(top, "about"),
        mpi=read.boolean(top, "mpi"),
        ranks=read.choice(top, "ranks", RANKS),
        command=read.lines(top, "command"),
        environment=read.table(top, "environment"),
        program=_program(read) if "program" in top else None,
        flavours=tuple(_flavour(read, i) for i in range(read.length("flavours"))),
        chosen_by=read.choice(top, "chosen_by", CHOSEN_BY) if "chosen_by" in top else "program",
        culprit=_culprit(read, top),
        label=_label(read, top),
        hints=hints(read),
    )
    if bool(launcher.command) == bool(launcher.flavours):
        raise read.wrong((), "needs either a command, or flavours that each have one")
    if launcher.flavours and launcher.program is None:
        raise read.wrong((), "has flavours, and no program whose version could tell which one it is")
    return launcher


def _culprit(read: Reader, top: dict[str, Any]) -> re.Pattern[str] | None:
    found = read.optional(top, "culprit")
    if found is not None and not (
        {"rank"} <= found.groupindex.keys() or {"pid", "host"} <= found.groupindex.keys()
    ):
        raise read.wrong(("culprit",), "needs a group (?P<rank>...), or (?P<pid>...) and (?P<host>...)")
    return found


def _label(read: Reader, top: dict[str, Any]) -> re.Pattern[str] | None:
    found = read.optional(top, "label")
    if found is not None and "rank" not in found.groupindex:
        raise read.wrong(("label",), "needs a group (?P<rank>...)")
    return found


def _program(read: Reader) -> Program:
    part = read.mapping(("program",), "names version missing", "")
    path = ("program",)
    return Program(
        read.lines(part, "names", path), read.lines(part, "version", path), read.string(part, "missing", path)
    )


def _flavour(read: Reader, index: int) -> Flavour:
    path = ("flavours", index)
    part = read.mapping(path, "name key recognise library command", "environment values install")
    return Flavour(
        name=read.string(part, "name", path),
        key=read.string(part, "key", path),
        recognise=read.pattern(part, "recognise", path),
        library=read.pattern(part, "library", path),
        command=read.lines(part, "command", path),
        environment=read.table(part, "environment", path),
        values=read.table(part, "values", path),
        install=read.string(part, "install", path) if "install" in part else "",
    )


def hints(read: Reader) -> tuple[Hint, ...]:
    """Return what stands under ``hints``."""
    return tuple(_hint(read, i) for i in range(read.length("hints")))


def _hint(read: Reader, index: int) -> Hint:
    path = ("hints", index)
    part = read.mapping(path, "pattern say", "")
    return Hint(read.pattern(part, "pattern", path), read.string(part, "say", path))
