"""Grid Engine's parallel environments spread ranks over nodes: a layout is theirs to give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpcremote import Cluster, profile
from hpcremote.errors import LaunchError
from hpcremote.launch import catalog
from hpcremote.launch.batch import spread
from hpcremote.launch.batch.draft import Draft, draft, of_controller

LAYOUT = {"nodes": 2, "ranks_per_node": 2}
#: As `qconf -sp NAME` prints it.
SHOWN = """\
pe_name            tight
slots              9999
start_proc_args    NONE
allocation_rule    {}
control_slaves     TRUE
job_is_first_task  FALSE
"""


def drafted(folder: Path, **keys: Any) -> Draft:
    chosen = profile.load("sge", keys)
    return draft(chosen, chosen.engines, folder, "c0ffee")


def test_as_many_slots_are_asked_for_and_the_script_says_who_spreads_them(tmp_path: Path) -> None:
    script = drafted(tmp_path, **LAYOUT, parallel_environment="tight").script
    assert "#$ -pe tight 4\n# 2 nodes with 2 ranks each: up to the allocation_rule of tight (" in script
    assert "allocation_rule" not in drafted(tmp_path, n=4).script


def test_a_start_says_who_spreads_them_if_that_was_asked_for(tmp_path: Path) -> None:
    assert "up to parallel environment mpi (its allocation_rule; `qconf -sp mpi`" in spread.note(
        drafted(tmp_path, nodes=2)
    )
    assert spread.note(drafted(tmp_path, n=4)) == ""
    own = {**LAYOUT, "controller": "own-job", "controller_job": {"walltime": "1:00:00"}}
    assert spread.note(of_controller(profile.load("sge", own), tmp_path, "c0ffee", [])) == ""


@pytest.mark.parametrize("key", ["threads_per_rank", "qos"])
def test_what_grid_engine_has_no_place_for_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=f"key '{key}': launcher 'sge' has no place for it"):
        drafted(tmp_path, n=4, **{key: 2 if key == "threads_per_rank" else "high"})


@pytest.mark.parametrize(("keys", "part"), [(LAYOUT, "4096M"), ({"n": 4}, "2048M")])
def test_memory_is_a_slots_part_and_gpus_are_as_they_were_said(
    keys: dict[str, int], part: str, tmp_path: Path
) -> None:
    script = drafted(tmp_path, **keys, memory="8G", gpus_per_node=2).script
    assert f"#$ -l mem_free={part}\n" in script
    assert "#$ -l gpu=2\n" in script


@pytest.mark.parametrize(
    ("rule", "nodes", "each", "puts"),
    [
        ("$round_robin", 2, 2, ""),
        ("$fill_up", 2, 2, ""),
        ("2", 2, 2, ""),
        ("1", 2, 2, "1 rank on each node"),
        ("16", 2, 2, "16 ranks on each node"),
        ("$pe_slots", 2, 2, "all ranks on one node"),
        ("$pe_slots", 1, 4, ""),
    ],
)
def test_what_contradicts_the_layout(rule: str, nodes: int, each: int, puts: str) -> None:
    how = catalog.scheduler("sge").spread
    assert how is not None
    assert spread.contradiction(how, SHOWN.format(rule), nodes, each) == puts


def test_it_is_refused_before_anything_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `qconf` tells; elsewhere a dry run shows the script."""
    cluster = Cluster(profile="sge", **LAYOUT)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "#$ -pe mpi 4" in cluster.dry_run()
    (tmp_path / "rule").write_text(SHOWN.format("1"))
    (tmp_path / "qconf").write_text(f'#!/bin/sh\n[ "$*" = "-sp mpi" ] && exec /bin/cat {tmp_path}/rule\n')
    (tmp_path / "qconf").chmod(0o755)
    for attempt in (cluster.dry_run, cluster.start):
        with pytest.raises(LaunchError) as caught:
            attempt()
        assert str(caught.value).startswith(
            "sge puts 1 rank on each node, which contradicts nodes: 2, ranks_per_node: 2 (profile 'sge'): "
            "how ranks are spread over nodes is up to parallel environment mpi"
        )
