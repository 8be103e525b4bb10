"""The batch system of docs/howto/launcher-for-your-site.md: the files of that page, dropped into a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import hpcremote
from hpcremote.errors import LaunchError
from tests.integration.support import ROOT

PAGE = ROOT / "docs" / "howto" / "launcher-for-your-site.md"
FILE = re.compile(r"^```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.mpi


@pytest.fixture
def ours(fake: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))
    fake("jq")
    found = FILE.findall(PAGE.read_text())
    assert [name for name, _ in found] == ["jq.yaml", "jq.sh.in", "ours.yaml"]
    for name, text in found:
        folder = tmp_path / "home" / ("profiles" if name == "ours.yaml" else "launchers")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return "ours"


def test_a_session(ours: str) -> None:
    with hpcremote.Cluster(n=2, profile=ours) as rc:
        assert rc.ids == [0, 1]
        first, second = rc[:].apply_sync(os.getenv, "J_ID")
        assert first == second
        assert str(first).isdigit()


def test_a_refusal_with_the_sites_own_remedy(ours: str) -> None:
    with pytest.raises(
        LaunchError, match="`jclasses` lists the classes; `queue:` in profile ours chooses one"
    ):
        hpcremote.Cluster(n=2, profile=ours, queue="nowhere").start()


def test_what_the_files_have_no_place_for(ours: str) -> None:
    with pytest.raises(LaunchError, match="key 'memory': launcher 'jq' has no place for it"):
        hpcremote.Cluster(n=2, profile=ours, memory="4G").start()
