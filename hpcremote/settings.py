"""Settings files: YAML whose every mistake is named by file, line and key.

::

    file ──entries()──▶ Entry(key, text, "file:line") ──convert(entry, keys)──▶ a value of the key's type

YAML is only used for its shape: a plain value stays the text that was written until the key says what it
is, so ``on`` can be a word and ``1`` a text. ``$VAR``, ``${VAR}``, ``${VAR:-default}`` and a leading ``~``
are expanded; ``$$`` is a dollar.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcremote import quantities
from hpcremote.errors import ProfileError
from hpcremote.files import did_you_mean

if TYPE_CHECKING:
    from hpcremote.files import Traversable

_VARIABLE = re.compile(r"\$(?:\$|(\w+)|\{(\w+)(?::-([^}]*))?\}|)")
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
#: Plain values that mean "as if the key were not there".
NULLS = ("", "~", "null")
_DEPTH = 4

#: A time span, in seconds.
Duration = int
#: An amount of memory, in MiB.
Memory = int


class Key(NamedTuple):
    """A key of a profile, as the reference shows it. ``kind`` is a Python type in words."""

    name: str
    kind: str
    default: Any
    doc: str
    unit: str
    choices: tuple[str, ...]
    least: float | None
    most: int | None = None
    also: tuple[str, ...] = ()
    """Other names for it."""
    holds: tuple[str, ...] = ()
    """Names of the keys that a mapping has values of."""


#: Where a value comes from that is in no file: a program's argument, or the command line's.
OVERRIDE = "override"


class Entry(NamedTuple):
    """A key and what stands behind it: text, a list or a mapping of text; ``where`` is file and line."""

    key: str
    value: Any
    where: str

    def named(self, key: str) -> str:
        """Return *key* as errors begin with it."""
        return named(key, self.where)


def named(key: str, where: str) -> str:
    """Return a key as errors begin with it: after its file and line, if it stands in one."""
    return f"key {key!r}" if where == OVERRIDE else f"{where}: key {key!r}"


def entries(file: Traversable) -> Iterator[Entry]:
    """Yield what *file* says, as text: each kind of key knows how to read its own."""
    import yaml  # here: `import hpcremote` stays light

    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ProfileError(f"{file}:{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    if root is None:
        return
    if not isinstance(root, yaml.MappingNode):
        raise ProfileError(f"{file}:{root.start_mark.line + 1}: a profile is lines of `key: value`")
    first: dict[str, str] = {}
    for name, value in root.value:
        key, where = str(name.value), _where(file, name)
        if key in first:
            raise ProfileError(f"{where}: key {key!r} is there twice (first at {first[key]})")
        first[key] = where
        yield Entry(key, _plain(value, key, file), where)


def _where(file: Traversable, node: Any) -> str:
    return f"{file}:{node.start_mark.line + 1}"


def _plain(node: Any, key: str, file: Traversable) -> Any:
    """Return *node* as text (None for null), or as a list or mapping of such."""
    if key.count("/") > _DEPTH:  # an alias can even stand for what it stands in
        raise ProfileError(f"{_where(file, node)}: key {key.partition('/')[0]!r} is nested too deeply")
    if node.id == "sequence":
        return [_plain(item, f"{key}/-", file) for item in node.value]
    if node.id == "mapping":
        return {str(name.value): _plain(value, f"{key}/{name.value}", file) for name, value in node.value}
    if node.style is None and node.value.lower() in NULLS:
        return None
    return _expand(node.value, key.removesuffix("/-"), _where(file, node))


def _expand(text: str, key: str, where: str) -> str:
    def value_of(match: re.Match[str]) -> str:
        if match[0] in ("$", "$$"):
            return "$"
        name = match[1] or match[2]
        value = os.environ.get(name)
        if match[3] is not None:
            return value or match[3]
        if value is None:
            raise ProfileError(
                f"{where}: key {key!r}: the environment variable {name} is not set"
                f" (write ${{{name}:-something}} for a default, $$ for a dollar)"
            )
        return value

    expanded = _VARIABLE.sub(value_of, text)
    return os.path.expanduser(expanded) if expanded.startswith("~") else expanded


# ---------------------------------------------------------------- values


def canonical(name: str, keys: Sequence[Key]) -> str:
    """Return the key that *name* is, perhaps under another of its names."""
    return next((key.name for key in keys if name in key.also), name)


def convert(entry: Entry, keys: Sequence[Key], more: Sequence[str] = ("extends",)) -> Any:
    """Return the entry's value as the type of its key; *more* keys there are which nobody converts."""
    known = {name: key for key in keys for name in (key.name, *key.also)}
    key = known.get(entry.key)
    if key is None:
        near = did_you_mean(entry.key, [*known, *more])
        raise ProfileError(f"{entry.named(entry.key)} is not known{near}")
    if entry.value is None:
        return None
    read, words = _KINDS[key.kind]
    try:
        value = read(entry.value)
    except (ValueError, TypeError):
        raise ProfileError(
            f"{entry.named(key.name)} has to be {words}, not {repr(entry.value)[:60]}"
        ) from None
    if key.holds:
        return _held(entry, key, keys)
    if key.choices and value not in key.choices:
        near = did_you_mean(value, key.choices)
        raise ProfileError(
            f"{entry.named(key.name)} has to be one of {', '.join(key.choices)}, not {value!r}{near}"
        )
    if key.least is not None and not value >= key.least:
        found = f"{value} {key.unit}".rstrip()
        raise ProfileError(f"{entry.named(key.name)} has to be at least {key.least:g}, not {found}")
    if key.most is not None and not value <= key.most:
        raise ProfileError(f"{entry.named(key.name)} has to be at most {key.most}, not {value}")
    return value


def inner(where: str, key: str) -> str:
    """Return where values stand that a key holds."""
    return key if where == OVERRIDE else f"{where}: {key}"


def _held(entry: Entry, key: Key, keys: Sequence[Key]) -> dict[str, Any]:
    """Return values of other keys by these keys' names, as they were written; each is seen to be right."""
    inside = [one for one in keys if one.name in key.holds]
    found = {}
    for name, value in _anything(entry.value).items():
        convert(Entry(name, value, inner(entry.where, key.name)), inside, ())
        if value is not None:
            found[canonical(name, inside)] = value
    return found


def _text(value: object) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError
    return str(value)


def _integer(value: object) -> int:
    if isinstance(value, (bool, float)):
        raise TypeError
    return int(value)  # type: ignore[call-overload, no-any-return]


def _number(value: object) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)  # type: ignore[arg-type]


def _duration(value: object) -> int:
    return quantities.duration(_text(_plain_number(value)))


def _memory(value: object) -> int:
    return quantities.megabytes(_text(_plain_number(value)))


def _plain_number(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    try:
        return _BOOLEANS[_text(value).lower()]
    except KeyError:
        raise ValueError from None


def _written_out(value: object) -> object:
    """Return the list or mapping that a text is in YAML: it comes from a command line."""
    if not isinstance(value, str):
        return value
    import yaml  # here: `import hpcremote` stays light

    try:
        return yaml.load(value, Loader=yaml.BaseLoader)  # noqa: S506 - it makes texts, lists, mappings, no more
    except yaml.YAMLError:
        raise ValueError from None


def _texts(value: object) -> tuple[str, ...]:
    value = _written_out(value)
    if not isinstance(value, (list, tuple)):
        raise TypeError
    return tuple(_text(item) for item in value)


def _anything(value: object) -> dict[str, Any]:
    value = _written_out(value)
    if not isinstance(value, Mapping):
        raise TypeError
    return dict(value)


def _mapping(value: object) -> dict[str, str]:
    value = _written_out(value)
    if not isinstance(value, Mapping):
        raise TypeError
    return {_text(name): _text(item) for name, item in value.items()}


_KINDS: dict[str, tuple[Callable[[object], Any], str]] = {
    "str": (_text, "text"),
    "int": (_integer, "a whole number"),
    "int | None": (_integer, "a whole number"),
    "float": (_number, "a number"),
    "bool": (_boolean, "true or false"),
    "Duration | None": (_duration, "a time: H:MM:SS, D-HH:MM:SS, 90min, or a number of minutes"),
    "Memory | None": (_memory, "an amount of memory: 4G, 512M, or a number of megabytes"),
    "tuple[str, ...]": (_texts, "a list of words, as in [--bind-to, core]"),
    "dict[str, str]": (_mapping, "a mapping of names to text, as in {OMP_NUM_THREADS: 1}"),
    "dict[str, Any]": (_anything, "a mapping of keys to values, as in {queue: service}"),
}
