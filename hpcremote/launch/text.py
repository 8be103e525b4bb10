"""Words in, words out: commands from templates, and sense from what programs print. Pure.

The one rule of templates. A command is a list of *lines*, each a few words; ``$name`` in a word is
filled in from *values*:

* a line that names a value which is not set (absent or None) is left out;
* a list as a word of its own (``$engine``) gives its items as words; beside other words
  (``-x $export``) the line is repeated for each item;
* an empty text as a word of its own vanishes, which is how ``$if_root`` keeps or drops its line;
* a word that has spaces stands in double quotes (``"jobid stat"``);
* ``$$`` is a dollar.

Values are never split or quoted: no shell sees them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from hpcremote.launch.spec import Flavour, Hint

Value = str | int | Sequence[str] | None
Values = Mapping[str, Value]

_WORD = re.compile(r'"([^"]*)"|(\S+)')
#: What job scripts say of their job begins so, too.
_COMPLAINT = re.compile(r"^hpcremote: (?!job \S+ has started on |the ranks have ended)(.+)$", re.MULTILINE)
_NAME = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})")


def command(lines: Iterable[str], values: Values) -> list[str]:
    """Return the words of a command."""
    return [word for line in lines for word in words(line, values)]


def words(line: str, values: Values) -> list[str]:
    """Return the words of one line, none if it names a value that is not set."""
    parts = [quoted or plain for quoted, plain in _WORD.findall(line)]
    names = [name for part in parts for name in _names(part)]
    if any(values.get(name) is None for name in names):
        return []
    for name in names:
        items = values[name]
        if not isinstance(items, (str, int, type(None))):
            if line.strip() in (f"${name}", f"${{{name}}}"):
                return list(items)
            return [word for item in items for word in words(line, {**values, name: item})]
    return [word for word in (fill(part, values) for part in parts) if word]


def environment(table: Mapping[str, str], values: Values) -> dict[str, str]:
    """Return the variables whose values are set."""
    filled = {name: words(text, values) for name, text in table.items()}
    return {name: " ".join(parts) for name, parts in filled.items() if parts}


def fill(text: str, values: Values) -> str:
    """Return *text* with every ``$name`` filled in; one that is not set stays as it is."""

    def value(match: re.Match[str]) -> str:
        if match[1]:
            return "$"
        found = values.get(match[2] or match[3])
        if found is None:
            return match[0]
        return str(found) if isinstance(found, (str, int)) else " ".join(found)

    return _NAME.sub(value, text)


def _names(word: str) -> list[str]:
    return [match[2] or match[3] for match in _NAME.finditer(word) if not match[1]]


def recognise(flavours: Iterable[Flavour], output: str) -> tuple[Flavour, str] | None:
    """Return the first flavour that *output* (of the version command) belongs to, and its version."""
    for flavour in flavours:
        if match := flavour.recognise.search(output):
            return flavour, match["version"]
    return None


def library(flavours: Iterable[Flavour], said: str) -> tuple[Flavour, str] | None:
    """Return the flavour and version of the MPI library that describes itself as *said*."""
    for flavour in flavours:
        if match := flavour.library.search(said):
            return flavour, next((version for version in match.groups() if version), "")
    return None


def explain(hints: Iterable[Hint], output: str, values: Values) -> str:
    """Return what a refusal in *output* means, or nothing; a hint may say what its pattern's groups found."""
    for hint in hints:
        if match := hint.pattern.search(output):
            return fill(hint.say, {**values, **match.groupdict()})
    return ""


def tail(output: str, count: int) -> str:
    """Return the last *count* lines that say something."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip(" -=\t")]
    return "\n".join(lines[-count:])


def complaint(output: str) -> str:
    """Return the last complaint of a command of ours in *output*: such a line begins with our name."""
    said = _COMPLAINT.findall(output)
    return str(said[-1]) if said else ""


def shown(words: Sequence[str]) -> str:
    """Return a command as one would type it."""
    return shlex.join(words)


def mismatch(flavours: Sequence[Flavour], program: tuple[str, str, str], said: str, path: str) -> str:
    """Return why ranks started by *program* do not find each other, or nothing if the library fits.

    Args:
        flavours: of the launcher.
        program: flavour, version and path of mpiexec.
        said: what the library that mpi4py loads says of itself.
        path: where that library is.
    """
    name, version, where = program
    found = library(flavours, said)
    loaded = f"{found[0].name} {found[1]}" if found else said.splitlines()[0] if said else "no MPI library"
    if found and found[0].name == name:
        return ""
    remedy = f"; or install the library that fits it ({fits})" if (fits := _install(flavours, name)) else ""
    return (
        f"mpiexec is {f'{name} {version}'.strip()} ({where}) but mpi4py loads {loaded} "
        f"({path or 'path unknown'}): the two do not work together. Name the mpiexec of that library "
        f"(mpiexec: /path/to/mpiexec){remedy}"
    )


def _install(flavours: Iterable[Flavour], name: str) -> str:
    return next((flavour.install for flavour in flavours if flavour.name == name), "")
