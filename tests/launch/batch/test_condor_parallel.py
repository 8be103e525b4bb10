"""HTCondor's parallel universe: its script and command, with all keys set and with none."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcremote import files, profile
from hpcremote.errors import LaunchError
from hpcremote.launch.batch.draft import Draft, draft

NAME = "htcondor-parallel"
GOLDEN = Path(__file__).parents[2] / "golden" / "scripts"
ALL: dict[str, Any] = {
    "nodes": 2,
    "ranks_per_node": 4,
    "threads_per_rank": 3,
    "gpus_per_node": 2,
    "memory": "16G",
    "walltime": "1:30:00",
    "account": "sea-ice",
    "constraint": "icelake",
    "job_name": "ice",
    "setup": ["module load mpich"],
    "directives": ["rank = Memory"],
}


def drafted(n: int, **keys: Any) -> Draft:
    fixed = {"python": "/opt/python/bin/python", "working_dir": "/home/ann/ice"}
    folder = Path(f"/home/ada/.hpcremote/clusters/{NAME}/main")
    return draft(profile.load(NAME, {**fixed, **keys}), n, folder, "c0ffee")


@pytest.mark.parametrize("which", ["all", "none"])
def test_script_and_command(which: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "user_dir", lambda: Path("/home/ada/.hpcremote"))
    made = drafted(8, **(ALL if which == "all" else {}))
    assert f"$ {made.command}\n\n{made.script}" == (GOLDEN / f"{NAME}-{which}.txt").read_text()
    (tmp_path / "job.sh").write_text(made.script)
    bash = shutil.which("bash")
    assert bash is not None
    assert subprocess.run([bash, "-n", str(tmp_path / "job.sh")], capture_output=True).stderr == b""


def test_ranks_that_do_not_divide_by_machines_have_room() -> None:
    made = drafted(5, nodes=2)
    assert "machine_count=2" in made.words
    assert "request_cpus=3" in made.words
    assert 'print $2 ":3"' in made.script


def test_there_are_no_queues() -> None:
    with pytest.raises(LaunchError, match="key 'queue': launcher 'htcondor-parallel' has no place for it"):
        drafted(2, queue="short")
