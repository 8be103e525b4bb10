"""The house rules on size: one idea a file, small classes, small functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcremote

PACKAGE = Path(hpcremote.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
MAX_FILE, MAX_CLASS, MAX_FUNCTION = 400, 300, 50

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def length_without_docstring(node: Definition) -> int:
    assert node.end_lineno is not None
    total = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node, clean=False) is None:
        return total
    docstring = node.body[0]
    assert docstring.end_lineno is not None
    return total - (docstring.end_lineno - docstring.lineno + 1)


def too_long(path: Path) -> Iterator[str]:
    text = path.read_text()
    name = path.relative_to(PACKAGE.parent)
    if (lines := len(text.splitlines())) > MAX_FILE:
        yield f"{name}: {lines} lines, more than {MAX_FILE}: which two ideas does it hold?"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, Definition):
            continue
        limit = MAX_CLASS if isinstance(node, ast.ClassDef) else MAX_FUNCTION
        if (lines := length_without_docstring(node)) > limit:
            yield f"{name}:{node.lineno}: {node.name} has {lines} lines, more than {limit}"


def test_there_is_something_to_measure() -> None:
    assert PACKAGE / "wire" / "messages.py" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_too_long(path: Path) -> None:
    assert list(too_long(path)) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
