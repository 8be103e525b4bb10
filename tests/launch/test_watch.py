"""How far a start is, from what the controller says."""

from __future__ import annotations

import pytest

from hpcremote.launch.watch import reached


@pytest.mark.parametrize(
    ("engines", "starting", "counts"),
    [
        (0, {}, (0, 0, 0)),
        (0, {"started": 4}, (4, 0, 0)),
        (0, {"MPI_Init": 3}, (3, 0, 0)),
        (0, {"started": 1, "MPI_Init": 2, "joined": 1}, (4, 1, 0)),
        (2, {"MPI_Init": 1, "joined": 1}, (4, 3, 2)),
        (4, {"started": 0, "MPI_Init": 0, "joined": 0}, (4, 4, 4)),
    ],
)
def test_reached(engines, starting, counts):
    assert reached({"engines": engines, "starting": starting, "failed": []}) == counts
