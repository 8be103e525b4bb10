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
from typing import Any, cast

import yaml

from hpcremote import files
from hpcremote.errors import LauncherError

#: How the ranks start: the command is run once for each engine, or once for all of them.
RANKS = ("each", "together")


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
    install: str = ""


@dataclass(frozen=True)
class Program:
    """What starts the ranks: names to look for, how to ask its version, what to say without it."""

    names: tuple[str, ...]
    version: tuple[str, ...]
    missing: str


@dataclass(frozen=True)
class Launcher:
    """How engines are started. ``command`` is empty where each flavour has its own."""

    name: str
    source: str
    about: str
    mpi: bool
    ranks: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    program: Program | None = None
    flavours: tuple[Flavour, ...] = ()
    hints: tuple[Hint, ...] = ()


def parse(text: str, name: str, source: str) -> Launcher:
    """Return the launcher that *text*, the content of file *source*, describes.

    Raises:
        LauncherError: bad YAML, an unknown or missing key, a wrong type, or a bad pattern. The
            message has the file, the line and the key.
    """
    read = _Reader(text, source)
    top = read.mapping((), "about mpi ranks", "command environment program flavours hints")
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
        hints=tuple(_hint(read, i) for i in range(read.length("hints"))),
    )
    if bool(launcher.command) == bool(launcher.flavours):
        raise read.wrong((), "needs either a command, or flavours that each have one")
    if launcher.flavours and launcher.program is None:
        raise read.wrong((), "has flavours, and no program whose version could tell which one it is")
    return launcher


def _program(read: _Reader) -> Program:
    part = read.mapping(("program",), "names version missing", "")
    path = ("program",)
    return Program(
        read.lines(part, "names", path), read.lines(part, "version", path), read.string(part, "missing", path)
    )


def _flavour(read: _Reader, index: int) -> Flavour:
    path = ("flavours", index)
    part = read.mapping(path, "name key recognise library command", "environment install")
    return Flavour(
        name=read.string(part, "name", path),
        key=read.string(part, "key", path),
        recognise=read.pattern(part, "recognise", path),
        library=read.pattern(part, "library", path),
        command=read.lines(part, "command", path),
        environment=read.table(part, "environment", path),
        install=read.string(part, "install", path) if "install" in part else "",
    )


def _hint(read: _Reader, index: int) -> Hint:
    path = ("hints", index)
    part = read.mapping(path, "pattern say", "")
    return Hint(read.pattern(part, "pattern", path), read.string(part, "say", path))


_Path = tuple[Any, ...]


class _Reader:
    """Takes values out of a YAML document; whatever is wrong is said with file, line and key."""

    def __init__(self, text: str, source: str) -> None:
        self._source = source
        try:
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
            self._data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{source}:{mark.line + 1}" if mark else source
            raise LauncherError(f"{where}: not YAML: {getattr(error, 'problem', None) or error}") from None

    def wrong(self, path: _Path, what: str) -> LauncherError:
        """Return the error that says *what* is wrong at *path*."""
        key = ".".join(str(step) for step in path)
        return LauncherError(
            f"{self._source}:{self._line(path)}: {f'{key}: ' if key else 'the launcher '}{what}"
        )

    def _line(self, path: _Path) -> int:
        node, line = self._root, 1
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = [(key, value) for key, value in node.value if key.value == step]
                if not found:
                    break
                line, node = found[0][0].start_mark.line + 1, found[0][1]
            elif isinstance(node, yaml.SequenceNode):
                node = node.value[step]
                line = node.start_mark.line + 1
        return int(line)

    def _at(self, path: _Path) -> Any:
        data = self._data
        for step in path:
            data = data[step]
        return data

    def mapping(self, path: _Path, needed: str, optional: str) -> dict[str, Any]:
        """Return the mapping at *path*; it has all *needed* keys and beyond those only *optional* ones."""
        data = self._at(path)
        if not isinstance(data, dict):
            raise self.wrong(path, f"is {_kind(data)} where a mapping (key: value) is needed")
        known = [*needed.split(), *optional.split()]
        for key in data:
            if key not in known:
                hint = files.did_you_mean(str(key), known) or f"; it can be: {', '.join(known)}"
                raise self.wrong((*path, key), f"there is no such key{hint}")
        for key in needed.split():
            if key not in data:
                raise self.wrong(path, f"lacks the key {key!r}")
        return cast("dict[str, Any]", data)

    def length(self, key: str) -> int:
        """Return how many entries the list under top-level *key* has."""
        data = self._data.get(key) or []
        if not isinstance(data, list):
            raise self.wrong((key,), f"is {_kind(data)} where a list is needed")
        return len(data)

    def string(self, part: dict[str, Any], key: str, path: _Path = ()) -> str:
        """Return the text under *key*."""
        if not isinstance(part[key], str):
            raise self.wrong((*path, key), f"is {_kind(part[key])} where text is needed")
        return str(part[key]).strip()

    def boolean(self, part: dict[str, Any], key: str) -> bool:
        """Return true or false under *key*."""
        if not isinstance(part[key], bool):
            raise self.wrong((key,), f"is {_kind(part[key])} where true or false is needed")
        return bool(part[key])

    def choice(self, part: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
        """Return the text under *key*, one of *allowed*."""
        if part[key] not in allowed:
            raise self.wrong((key,), f"is {part[key]!r}; it can be: {', '.join(allowed)}")
        return str(part[key])

    def lines(self, part: dict[str, Any], key: str, path: _Path = ()) -> tuple[str, ...]:
        """Return the list of texts under *key*, or an empty one."""
        data = part.get(key) or []
        if not isinstance(data, list) or any(isinstance(item, (list, dict)) or item is None for item in data):
            raise self.wrong((*path, key), f"is {_kind(data)} where a list of words is needed")
        return tuple(str(item) for item in data)

    def table(self, part: dict[str, Any], key: str, path: _Path = ()) -> dict[str, str]:
        """Return the mapping of names to texts under *key*, or an empty one."""
        data = part.get(key) or {}
        if not isinstance(data, dict) or any(isinstance(v, (list, dict)) or v is None for v in data.values()):
            raise self.wrong((*path, key), f"is {_kind(data)} where names with texts are needed")
        return {str(name): str(value) for name, value in data.items()}

    def pattern(self, part: dict[str, Any], key: str, path: _Path = ()) -> re.Pattern[str]:
        """Return the regular expression under *key*."""
        try:
            return re.compile(self.string(part, key, path), re.DOTALL)
        except re.error as error:
            raise self.wrong((*path, key), f"is not a regular expression: {error}") from None


def _kind(data: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(data), "a number")
