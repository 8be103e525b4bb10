"""Keys of jobs in profiles that name no scheduler."""

from __future__ import annotations

import pytest

from hpcremote import Cluster, profile
from hpcremote.launch import unused


def told(name: str, **keys: object) -> str:
    return unused.told(profile.load(name, keys))


def test_keys_of_jobs_have_no_effect_without_one() -> None:
    assert told("mpi", walltime="2:00:00", queue="long") == (
        "profile 'mpi' names no scheduler: walltime, queue have no effect; name one (scheduler: slurm), or "
        "leave them out"
    )


def test_a_key_of_a_file_is_named_with_its_line(tmp_path) -> None:
    file = tmp_path / "lab.yaml"
    file.write_text("extends: mpi\n\nwalltime: 2:00:00\n")
    assert f": walltime ({file}:3) has no effect" in told(str(file))


def test_where_nodes_can_be_named_without_a_scheduler() -> None:
    said = told("mpi", nodes=2, ranks_per_node=4)
    assert "nodes, ranks_per_node have no effect" in said
    assert "(hosts: names machines without one)" in said
    assert "ranks_per_node has no effect" in told("mpi", hosts=["a:2"], ranks_per_node=4)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mpi", {}),
        ("mpi", {"nodes": 1, "ranks_per_node": 3}),  # three engines here
        ("slurm", {"walltime": "10"}),
        ("slurm", {"walltime": "10", "scheduler": ""}),  # said so for this time: inside a job, perhaps
        ("mpi", {"launcher": "srun", "threads_per_rank": 2}),  # srun has a place for it
        ("mpi", {"launcher": "none-such", "walltime": "10"}),  # a start says what is wrong there
    ],
)
def test_what_has_its_effect_or_is_another_matter_is_not_told(name: str, keys: dict[str, object]) -> None:
    assert told(name, **keys) == ""


def test_what_a_controllers_own_job_asks_for_where_it_has_none() -> None:
    asked = {"controller_job": {"queue": "service"}}
    assert told("slurm", **asked) == (
        "profile 'slurm': controller_job has no effect with controller: here; set controller: own-job, or "
        "leave it out"
    )
    assert told("slurm", controller="own-job", **asked) == ""


def test_a_cluster_warns_where_it_is_made() -> None:
    with pytest.warns(UserWarning, match=r"walltime has no effect") as caught:
        Cluster(n=1, profile="local", walltime="2:00:00")
    assert [one.filename for one in caught] == [__file__]
