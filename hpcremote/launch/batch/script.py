"""Job scripts from templates. Pure.

A template is a shell script with ``@name@`` where a value goes:

* a line that names a value which is not set is left out, with its line end;
* a part ``@(:mem=@memory_mb@mb)@`` that does so is left out, and the rest of its line stays;
* in a comment (directives are comments) a text stands as it is; elsewhere it is quoted for the shell;
* a list repeats the line for each item, which stands as it is (``@setup@``);
* a command (a tuple of words) is quoted word by word;
* an empty text vanishes with the spaces before it, which is how ``@if_probe@`` keeps or drops its line;
* a line ``@include NAME@`` stands for another template;
* a second empty line in a row is left out.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence

from hpcremote import quantities
from hpcremote.errors import LaunchError
from hpcremote.profile import Profile

#: A text or number; lines as they are; a command; nothing: not set.
Value = str | int | list[str] | tuple[str, ...] | None
Values = Mapping[str, Value]

_NAME = re.compile(r"@(\w+)@")
_PART = re.compile(r"@\((.*?)\)@")
_INCLUDE = re.compile(r"@include ([\w.-]+)@")


def render(template: str, values: Values, include: Callable[[str], str]) -> str:
    """Return the script; *include* gives another template's text by its name."""
    lines: list[str] = []
    for line in _expanded(template, include):
        lines += _rendered(line, values)
    kept = [line for number, line in enumerate(lines) if line or (number and lines[number - 1])]
    return "\n".join(kept).rstrip("\n") + "\n"


def _expanded(template: str, include: Callable[[str], str]) -> list[str]:
    lines: list[str] = []
    for line in template.splitlines():
        match = _INCLUDE.fullmatch(line.strip())
        lines += _expanded(include(match[1]), include) if match else [line]
    return lines


def _rendered(line: str, values: Values) -> list[str]:
    line = _PART.sub(lambda part: "" if _lacks(part[1], values) else part[1], line)
    if _lacks(line, values):
        return []
    names = [match[1] for match in _NAME.finditer(line)]
    for name in names:
        items = values[name]
        if isinstance(items, list):
            return [line.replace(f"@{name}@", item) for item in items]
    comment = line.lstrip().startswith("#")
    filled = _NAME.sub(lambda match: _shown(values[match[1]], comment=comment), line)
    return [filled.rstrip() if any(values[name] == "" for name in names) else filled]


def _lacks(line: str, values: Values) -> bool:
    return any(values.get(match[1]) in (None, [], ()) for match in _NAME.finditer(line))


def _shown(value: Value, *, comment: bool) -> str:
    if isinstance(value, tuple):
        return shlex.join(value)
    text = str(value)
    if comment:
        return f'"{text}"' if re.search(r"\s", text) else text
    return shlex.quote(text) if text else ""


# ---------------------------------------------------------------- values

#: What a profile can ask a scheduler for, and the names by which a template or command may take it.
_TAKEN_AS = {
    "nodes": "nodes ranks_per_node cores_per_node",
    "ranks_per_node": "nodes ranks_per_node cores_per_node",
    "threads_per_rank": "threads_per_rank cores_per_node cores",
    "gpus_per_node": "gpus_per_node",
    "memory": "memory_mb memory_kb memory_per_rank_mb",
    "walltime": "walltime walltime_minutes walltime_seconds",
    "queue": "queue",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "reservation": "reservation",
    "parallel_environment": "parallel_environment",
    "directives": "directives",
}


def check_use(profile: Profile, template: str, command: Sequence[str]) -> None:
    """Refuse what the profile asks for and the scheduler's files have no place for: it would be ignored.

    Raises:
        LaunchError: there is such a key.
    """
    named = {match[1] for match in _NAME.finditer(template)}
    named |= {match[1] for line in command for match in re.finditer(r"\$(\w+)", line)}
    for key, names in _TAKEN_AS.items():
        asked = getattr(profile, key)
        if asked in (None, "", ()) or named & set(names.split()) or (key == "nodes" and asked == 1):
            continue
        raise LaunchError(
            f"{profile.named(key)}: launcher {profile.scheduler!r} has no place for it; leave it out, "
            f"or say it in the scheduler's own words (directives:)"
        )


def resources(profile: Profile, n: int, defaults: Mapping[str, str]) -> dict[str, Value]:
    """Return what a job of *n* engines asks for, by the names that templates know.

    Raises:
        LaunchError: the numbers contradict each other, or a value would break the script.
    """
    nodes, per_node = _layout(profile, n, defaults)
    memory, walltime = profile.memory, profile.walltime
    values: dict[str, Value] = {
        "n": n,
        "nodes": nodes,
        "ranks_per_node": per_node,
        "threads_per_rank": profile.threads_per_rank,
        "cores_per_node": per_node * (profile.threads_per_rank or 1) if per_node else None,
        "cores": n * (profile.threads_per_rank or 1),
        "gpus_per_node": profile.gpus_per_node,
        "memory_mb": memory,
        "memory_kb": memory * 1024 if memory else None,
        "memory_per_rank_mb": math.ceil(memory / (per_node or n)) if memory else None,
        "walltime": quantities.clock(walltime) if walltime else None,
        "walltime_minutes": math.ceil(walltime / 60) if walltime else None,
        "walltime_seconds": walltime,
        "job_name": profile.job_name or "hpcremote",
        "setup": list(profile.setup),
        "directives": [re.sub(r"^#\S+\s+", "", line) for line in profile.directives],
    }
    for key in ("queue", "account", "qos", "constraint", "reservation", "parallel_environment"):
        values[key] = getattr(profile, key) or None
    values = {**defaults, **{key: value for key, value in values.items() if value is not None}}
    for key, value in values.items():
        if isinstance(value, str) and "\n" in value:
            raise LaunchError(
                f"{profile.named(key)} has more than one line, which cannot be put into a script"
            )
    return values


def _layout(profile: Profile, n: int, defaults: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return how many nodes, and how many engines a node at most: both are known, or none is."""
    nodes, per_node = profile.nodes, profile.ranks_per_node
    if nodes is None and per_node is not None:
        nodes = math.ceil(n / per_node)
    elif nodes is None and "nodes" in defaults:
        nodes = int(defaults["nodes"])
    if nodes is not None and per_node is None:
        per_node = math.ceil(n / nodes)
    if nodes is not None and n < nodes:
        raise LaunchError(
            f"{n} engines on {nodes} nodes: some would have none (n, nodes in profile {profile.name!r})"
        )
    if nodes is not None and per_node is not None and n > nodes * per_node:
        raise LaunchError(
            f"{n} engines do not fit on {nodes} nodes with {per_node} each "
            f"(n, nodes, ranks_per_node in profile {profile.name!r})"
        )
    return nodes, per_node


def environment(table: Mapping[str, str], path: Sequence[str] = ()) -> list[str]:
    """Return assignments for the shell; folders in *path* come before those of PYTHONPATH."""
    lines = [f"{name}={shlex.quote(value)}" for name, value in table.items()]
    if path:
        lines.append(f"PYTHONPATH={shlex.quote(':'.join(path))}${{PYTHONPATH:+:$PYTHONPATH}}")
    return lines
