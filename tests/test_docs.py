"""The documentation is true: its Python runs against four MPI ranks, its commands and links exist.

A page becomes one script, run as a user would run it, in a process and a folder of its own. Every line
of the script has the number that it has on the page, so a traceback points into the page. A comment
``# → value`` behind an expression is checked against the expression's ``repr``. A block with
``<!-- not run: why -->`` above it is left out; one with a ``:caption: name.py`` becomes that file.
"""

from __future__ import annotations

import ast
import codeop
import contextlib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import hpcremote

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs").glob("*/*.md"))]
RANKS = 4

FENCE = re.compile(r"^```(?:\{code-block\} )?(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CAPTION = re.compile(r"^:caption: (\S+)\n\n?")
CHECK = re.compile(r"^(?P<code>.*?)\s*# → (?P<value>.*)$")

CHECKER = """
def check(where, value, expected):
    if "".join(repr(value).split()) != "".join(expected.split()):
        raise SystemExit(f"{where}: the page says {expected}, and it is {value!r}")
"""


class Block(NamedTuple):
    language: str
    line: int
    text: str
    skipped: bool


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in FENCE.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        yield Block(
            match[1], text.count("\n", 0, match.start(2)) + 1, match[2], before.startswith("<!-- not run:")
        )


def python_blocks(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.language == "python" and not block.skipped]


def script_of(page: Path, folder: Path) -> str:
    """Write the files that the page shows into *folder* and return its other blocks as one script."""
    lines = [""] * (page.read_text().count("\n") + 1)
    lines[0] = "from page_check import check as _check"
    for block in python_blocks(page):
        if caption := CAPTION.match(block.text):
            (folder / caption[1]).write_text(block.text[caption.end() :])
            continue
        code = block.text.splitlines()
        lines[block.line - 1 : block.line - 1 + len(code)] = checked(page, block, code)
    return "\n".join(lines) + "\n"


def checked(page: Path, block: Block, code: list[str]) -> list[str]:
    """Turn ``expression  # → value`` into a call that compares the two."""
    code = list(code)
    single = {
        node.lineno
        for node in ast.parse(block.text).body
        if isinstance(node, ast.Expr) and node.lineno == node.end_lineno
    }
    for number, line in enumerate(code, 1):
        if match := CHECK.match(line):
            where = f"{page.relative_to(ROOT)}:{block.line + number - 1}"
            assert number in single, f"{where}: only an expression on one line can have a value"
            code[number - 1] = f"_check({where!r}, ({match['code']}), {match['value']!r})"
    return code


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], hpcremote.Client]]:
    """Four ranks under profile ``mpi``: the environment in which a script finds them, and a client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HPCREMOTE_DIR", str(tmp_path_factory.mktemp("home")))
        work = str(tmp_path_factory.mktemp("work"))  # pages write files
        with hpcremote.Cluster(n=RANKS, profile="mpi", working_dir=work) as rc:
            yield dict(os.environ), rc


@pytest.mark.mpi
@pytest.mark.parametrize(
    "page", [page for page in PAGES if python_blocks(page)], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_code_of_a_page_runs(
    page: Path, cluster: tuple[dict[str, str], hpcremote.Client], tmp_path: Path
) -> None:
    env, rc = cluster
    rc.clear(block=True)  # each page begins with engines that know nothing
    script = tmp_path / f"{page.stem.replace('-', '_')}.py"
    script.write_text(script_of(page, tmp_path))
    (tmp_path / "page_check.py").write_text(CHECKER)
    done = subprocess.run(
        [sys.executable, "-W", "error", script.name],
        check=False, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, f"{page}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_what_the_readme_shows_can_be_pasted_at_a_prompt() -> None:
    for block in python_blocks(ROOT / "README.md"):
        typed: list[str] = []
        for line in [*block.text.splitlines(), ""]:
            typed.append(line)
            if codeop.compile_command("\n".join(typed)) is not None:  # a SyntaxError: a blank line is missing
                typed = []
        assert typed == []


def test_a_wrong_value_would_be_found(tmp_path: Path) -> None:
    block = Block("python", 3, "1 + 1  # → 3\n", skipped=False)
    code = checked(ROOT / "README.md", block, block.text.splitlines())
    scope: dict[str, object] = {}
    exec(CHECKER.replace("check(", "_check("), scope)
    with pytest.raises(SystemExit, match=r"README.md:3: the page says 3, and it is 2"):
        exec("\n".join(code), scope)


# ---------------------------------------------------------------- commands


def commands() -> Iterator[tuple[str, str]]:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for block in blocks(page):
            if block.language != "console" or block.skipped:
                continue
            for number, line in enumerate(block.text.splitlines()):
                if match := re.search(r"(?:^|&&|-n \d+) ?(?:\$ )?hpcremote (?P<words>[^#&>]*)", line):
                    yield f"{page.relative_to(ROOT)}:{block.line + number}", match["words"].strip()


@pytest.mark.parametrize(("where", "words"), list(commands()))
def test_a_command_of_the_docs_exists(
    where: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hpcremote.cli.main import main

    monkeypatch.setenv("COLUMNS", "200")
    parts = shlex.split(words)
    named = parts[:2] if parts[0] == "profile" else parts[:1]
    with contextlib.suppress(SystemExit):
        assert main([*named, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: hpcremote"), f"{where}: there is no hpcremote {' '.join(named)}"
    for option in (part for part in parts if part.startswith("-")):
        assert re.search(rf"(^|[\s,\[]){re.escape(option)}\b", shown), (
            f"{where}: there is no {option}\n{shown}"
        )


# ---------------------------------------------------------------- links


def links() -> Iterator[tuple[Path, str]]:
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            if "://" not in target:
                yield page, target


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to {target}"


def test_every_page_is_in_a_table_of_contents() -> None:
    listed: set[Path] = set()
    for page in (ROOT / "docs").rglob("index.md"):
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            entries = [line for line in block.split() if not line.startswith(":")]
            listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    pages = {page.resolve() for page in PAGES} - {ROOT / "README.md", ROOT / "docs" / "index.md"}
    assert pages - listed == set()


# ---------------------------------------------------------------- guarantees

GUARANTEES = ROOT / "docs" / "reference" / "guarantees.md"
GUARANTEE = re.compile(r"^\*\*.+?(?=^\*\*|^## |\Z)", re.MULTILINE | re.DOTALL)


def named_tests(text: str) -> list[str]:
    return re.findall(r"^\* `(tests/\S+::\w+)`", text, re.MULTILINE)


@pytest.mark.parametrize("named", named_tests(GUARANTEES.read_text()))
def test_a_test_of_a_guarantee_exists(named: str) -> None:
    path, _, function = named.partition("::")
    found = ast.parse((ROOT / path).read_text()).body
    functions = {each.name for each in found if isinstance(each, ast.FunctionDef)}
    # What pytest collects of a property test that is a state machine: TestOrdering = Ordering.TestCase
    machines = {ast.unparse(each.targets[0]) for each in found if isinstance(each, ast.Assign)}
    assert function in functions | {name for name in machines if name.startswith("Test")}


def runs_under_open_mpi(named: str) -> bool:
    """Say whether a test, or one of its cases, has the mark."""
    path, _, function = named.partition("::")
    found = ast.parse((ROOT / path).read_text()).body
    for each in found:
        of_all = isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == "pytestmark"
        of_it = isinstance(each, ast.FunctionDef) and each.name == function
        marks = each.decorator_list if isinstance(each, ast.FunctionDef) else [each]
        if (of_all or of_it) and any("mark.openmpi" in ast.unparse(mark) for mark in marks):
            return True
    return False


@pytest.mark.parametrize("line", re.findall(r"^\* `tests/.*$", GUARANTEES.read_text(), re.MULTILINE))
def test_a_guarantee_that_is_tested_under_open_mpi_says_so(line: str) -> None:
    (named,) = named_tests(line)
    assert ("also under Open MPI" in line) == runs_under_open_mpi(named)


def test_every_guarantee_has_a_test() -> None:
    guarantees = GUARANTEE.findall(GUARANTEES.read_text())
    assert len(guarantees) > 20
    assert [each for each in guarantees if not named_tests(each)] == []


def test_every_generated_part_of_the_reference_is_made() -> None:
    spec = importlib.util.spec_from_file_location("generated", ROOT / "docs" / "_ext" / "generated.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = {name: make() for name, make in module.PARTS.items()}
    assert [name for name, text in made.items() if len(text.splitlines()) < 3] == []
    named = {name for page in PAGES for name in module.MARK.findall(page.read_text())}
    assert named == set(made)
