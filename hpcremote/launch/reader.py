"""YAML files of launchers, read value by value; whatever is wrong is said with file, line and key. Pure."""

from __future__ import annotations

import re
from typing import Any, cast

import yaml

from hpcremote import files
from hpcremote.errors import LauncherError

Path = tuple[Any, ...]
Patterns = dict[str, re.Pattern[str]]


class Reader:
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

    def wrong(self, path: Path, what: str) -> LauncherError:
        """Return the error that says *what* is wrong at *path*."""
        key = ".".join(str(step) for step in path)
        return LauncherError(
            f"{self._source}:{self._line(path)}: {f'{key}: ' if key else 'the launcher '}{what}"
        )

    def _line(self, path: Path) -> int:
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

    def _at(self, path: Path) -> Any:
        data = self._data
        for step in path:
            data = data[step]
        return data

    def mapping(self, path: Path, needed: str, optional: str) -> dict[str, Any]:
        """Return the mapping at *path*; it has all *needed* keys and beyond those only *optional* ones."""
        data = self._at(path)
        if not isinstance(data, dict):
            raise self.wrong(path, f"is {kind_of(data)} where a mapping (key: value) is needed")
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
            raise self.wrong((key,), f"is {kind_of(data)} where a list is needed")
        return len(data)

    def string(self, part: dict[str, Any], key: str, path: Path = ()) -> str:
        """Return the text under *key*."""
        if not isinstance(part[key], str):
            raise self.wrong((*path, key), f"is {kind_of(part[key])} where text is needed")
        return str(part[key]).strip()

    def boolean(self, part: dict[str, Any], key: str, path: Path = ()) -> bool:
        """Return true or false under *key*."""
        if not isinstance(part[key], bool):
            raise self.wrong((*path, key), f"is {kind_of(part[key])} where true or false is needed")
        return bool(part[key])

    def choice(self, part: dict[str, Any], key: str, allowed: tuple[str, ...]) -> str:
        """Return the text under *key*, one of *allowed*."""
        if part[key] not in allowed:
            raise self.wrong((key,), f"is {part[key]!r}; it can be: {', '.join(allowed)}")
        return str(part[key])

    def lines(self, part: dict[str, Any], key: str, path: Path = ()) -> tuple[str, ...]:
        """Return the list of texts under *key*, or an empty one."""
        data = part.get(key) or []
        if not isinstance(data, list) or any(isinstance(item, (list, dict)) or item is None for item in data):
            raise self.wrong((*path, key), f"is {kind_of(data)} where a list of words is needed")
        return tuple(str(item) for item in data)

    def table(self, part: dict[str, Any], key: str, path: Path = ()) -> dict[str, str]:
        """Return the mapping of names to texts under *key*, or an empty one."""
        data = part.get(key) or {}
        if not isinstance(data, dict) or any(isinstance(v, (list, dict)) or v is None for v in data.values()):
            raise self.wrong((*path, key), f"is {kind_of(data)} where names with texts are needed")
        return {str(name): str(value) for name, value in data.items()}

    def optional(self, part: dict[str, Any], key: str, path: Path = ()) -> re.Pattern[str] | None:
        """Return the regular expression under *key*, or None if there is none."""
        return self.pattern(part, key, path) if key in part else None

    def patterns(self, part: dict[str, Any], key: str, allowed: tuple[str, ...], path: Path = ()) -> Patterns:
        """Return the mapping of some of the *allowed* words to regular expressions under *key*."""
        if key not in part:
            return {}
        inner = self.mapping((*path, key), "", " ".join(allowed))
        return {name: self.pattern(inner, name, (*path, key)) for name in inner}

    def pattern(self, part: dict[str, Any], key: str, path: Path = ()) -> re.Pattern[str]:
        """Return the regular expression under *key*."""
        try:
            return re.compile(self.string(part, key, path), re.DOTALL)
        except re.error as error:
            raise self.wrong((*path, key), f"is not a regular expression: {error}") from None


def kind_of(data: object) -> str:
    """Return what kind of YAML it is, in words."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return names.get(type(data), "a number")
