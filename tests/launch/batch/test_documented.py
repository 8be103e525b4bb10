"""What docs/howto/batch-others.md shows of job scripts is what a dry run prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpcremote import files
from hpcremote.cluster import Cluster
from tests.integration.support import ROOT

_PAGE = (ROOT / "docs" / "howto" / "batch-others.md").read_text()
_SHOWN = re.findall(r"```yaml\n(extends: (\S+)\n.*?)```\n\n```text\n(.*?)```", _PAGE, re.DOTALL)


@pytest.mark.parametrize(("profile", "name", "shown"), _SHOWN, ids=[one[1] for one in _SHOWN])
def test_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str, name: str, shown: str
) -> None:
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path))
    folder = files.private_dir(files.user_dir() / "profiles")
    (folder / "ice.yaml").write_text(profile)
    said = Cluster(profile="ice", cluster_id="default").dry_run()
    command, *directives = shown.splitlines()
    assert set(directives) <= set(said.splitlines()), said
    begin = " ".join(command.split()[:2])
    (real,) = [line for line in said.splitlines() if line.startswith(f"{begin} ")]
    parts = command.replace("~/.hpcremote", str(files.user_dir())).split("...")
    assert all(part.strip() in real for part in parts), real


def test_all_of_them_are_shown() -> None:
    others = {"pbs", "torque", "lsf", "flux", "htcondor", "htcondor-parallel"}
    assert {name for _, name, _ in _SHOWN} == others
