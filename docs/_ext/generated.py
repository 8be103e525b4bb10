"""Parts of the reference that come from the code itself.

A page says ``<!-- generated: wire -->`` where its part belongs; the part is made when the page is read,
so that no generated file can be out of date.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import itertools
import os
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def setup(app: Any) -> dict[str, bool]:
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def fill(app: Any, docname: str, source: list[str]) -> None:
    source[0] = MARK.sub(lambda match: PARTS[match[1]](), source[0])


def table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)


def markdown(text: str | None) -> str:
    """Turn the little reStructuredText of a docstring into Markdown."""
    text = inspect.cleandoc(text or "")
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", text)
    return text.replace("``", "`")


def first_paragraph(text: str | None) -> str:
    return " ".join(markdown(text).split("\n\n")[0].split())


# ---------------------------------------------------------------- wire messages


def wire() -> str:
    from hpcremote.wire import agentmessages, enginemessages, messages, parts

    out = []
    for title, classes in itertools.chain(*map(sections, (parts, messages, enginemessages, agentmessages))):
        out.append(f"## {title}\n")
        for cls in classes:
            out += [f"### {cls.__name__}\n", markdown(cls.__doc__), ""]
            fields = [(f"`{name}`", f"`{kind}`") for name, kind in fields_of(cls)]
            if fields:
                out += [table(("field", "type"), iter(fields)), ""]
    return "\n".join(out)


def sections(module: Any) -> Iterator[tuple[str, list[type]]]:
    """The classes of a module under the headings that its source has as ``# ------ heading`` lines."""
    source = inspect.getsource(module)
    heads = [(0, "Parts of messages")]
    heads += [
        (number, line.strip("# -"))
        for number, line in enumerate(source.splitlines(), 1)
        if re.fullmatch(r"# -{10,} .+", line)
    ]
    classes = [
        (node.lineno, getattr(module, node.name))
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name != "Message"
    ]
    for (start, title), end in zip(heads, [line for line, _ in heads[1:]] + [10**9], strict=True):
        if inside := [cls for line, cls in classes if start < line < end]:
            yield title, inside


def fields_of(cls: type) -> Iterator[tuple[str, str]]:
    for name in getattr(cls, "__struct_fields__", ()):
        yield name, str(inspect.get_annotations(cls).get(name, ""))


# ---------------------------------------------------------------- errors and exit codes


def errors() -> str:
    from hpcremote import errors as module

    tree = (inspect.getdoc(module) or "").split("::\n", 1)[1]
    drawing, _, rest = inspect.cleandoc(tree).partition("\n\n")
    return f"```text\n{textwrap.dedent(drawing)}\n```\n\n{markdown(rest)}"


def exit_codes() -> str:
    from hpcremote.cli import exits

    rows = re.findall(r"^(\d+) {2,}(.+)$", inspect.cleandoc(exits.__doc__ or ""), re.MULTILINE)
    return table(("code", "meaning"), (tuple(map(markdown, row)) for row in rows))


# ---------------------------------------------------------------- commands


def cli() -> str:
    from hpcremote.cli.main import COMMANDS

    out = [f"```text\n{help_of()}\n```\n"]
    for command in COMMANDS:
        text = help_of(command)
        out += [f"## hpcremote {command}\n", f"```text\n{text}\n```\n"]
        actions = text.partition("ACTION\n")[2].partition("\n\n")[0]
        for action in re.findall(r"^    (\w+)", actions, re.MULTILINE):
            out += [f"### hpcremote {command} {action}\n", f"```text\n{help_of(command, action)}\n```\n"]
    return "\n".join(out)


def help_of(*words: str) -> str:
    """What ``hpcremote WORDS --help`` prints."""
    from hpcremote.cli.main import main

    os.environ["COLUMNS"] = "90"
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue().strip()


# ---------------------------------------------------------------- profile keys


def profile_keys() -> str:
    from hpcremote.profile import keys

    return table(("key", "type", "default", "meaning"), (key_row(key) for key in keys()))


YAML_WORDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    "bool": "`true` or `false`",
    "Duration": "time, as in `2:00:00` or `90min`",
    "Memory": "amount, as in `4G`",
    "tuple[str, ...]": "list",
    "dict[str, str]": "mapping",
    "dict[str, Any]": "mapping of keys",
}


def key_row(key: Any) -> tuple[str, ...]:
    kind = (
        " or ".join(f"`{choice}`" for choice in key.choices) or YAML_WORDS[key.kind.removesuffix(" | None")]
    )
    if key.unit:
        kind += f", {key.unit}"
    default = "" if key.default in (None, "", (), {}) else f"`{str(key.default).lower()}`"
    return f"`{key.name}`", kind, default, key.doc


PARTS: dict[str, Callable[[], str]] = {
    "wire": wire,
    "errors": errors,
    "exit_codes": exit_codes,
    "cli": cli,
    "profile_keys": profile_keys,
}
