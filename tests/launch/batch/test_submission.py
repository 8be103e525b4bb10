"""What is said of a job that waits, without a batch system: its poller is one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from hpcremote import profile
from hpcremote.launch.batch import more, poller, submission
from hpcremote.launch.batch.draft import draft
from hpcremote.launch.batch.polling import Seen
from hpcremote.launch.batch.submission import Submission
from hpcremote.launch.record import Submitted


class Held:
    """A poller to which every job is held."""

    def watch(self, _job: str) -> None: ...

    def end(self, _job: str) -> None: ...

    def seen(self, _job: str) -> Seen:
        return Seen("stuck", "H")


@pytest.mark.parametrize("name", ["pbs", "torque"])
@pytest.mark.parametrize("after", ["", "7"])
def test_what_waits_for_another_job_is_held_and_will_start(
    name: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PBS holds a job until the one that it depends on has begun; one that somebody held stays."""
    made = draft(profile.load(name), 4, tmp_path, "c0ffee", after=after)
    job = Submitted("8", name, "job", 4, 0.0, "", str(made.log), "mpiexec")
    monkeypatch.setattr(submission, "submit", lambda *_: job)
    monkeypatch.setattr(poller, "of", lambda _: Held())
    waits = cast("Submission", Submission(made, lambda _: None))
    assert ("will not start by itself" in waits.ended()) is not bool(after)


@pytest.mark.parametrize(
    ("keys", "n", "nodes", "each"),
    [
        ({"nodes": 2, "ranks_per_node": 2}, 4, 2, 2),  # as many as at first
        ({"nodes": 2, "ranks_per_node": 2}, 8, 4, 2),
        ({"nodes": 2, "ranks_per_node": 2}, 5, 3, 2),
        ({"nodes": 2, "ranks_per_node": 2}, 1, 1, 1),
        ({"nodes": 3, "n": 6}, 2, 2, None),
        ({"nodes": 3, "n": 6}, 9, 3, None),
        ({"n": 4}, 2, None, None),
    ],
)
def test_a_set_that_is_added_takes_the_nodes_that_it_needs(
    keys: dict[str, int], n: int, nodes: int | None, each: int | None
) -> None:
    found = more.laid_out(profile.load("slurm", keys), n)
    assert (found.nodes, found.ranks_per_node) == (nodes, each)
