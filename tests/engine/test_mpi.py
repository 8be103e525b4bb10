"""What a rank says of itself, without MPI."""

from __future__ import annotations

import pickle
import socket
import sys

import pytest

from hpcremote.engine import mpi
from hpcremote.wire.messages import Member


def row(rank: int, host: str, python: tuple[int, ...], version: str) -> Member:
    """Return what a rank on a node with another Python would send to rank 0, as it arrives there."""
    with pytest.MonkeyPatch.context() as other:
        other.setattr(socket, "gethostname", lambda: host)
        other.setattr(sys, "version_info", python)
        other.setattr(mpi, "__version__", version)
        return pickle.loads(pickle.dumps(mpi._member(f"uid{rank}", rank, "MPICH 5")))  # type: ignore[no-any-return]


def test_ranks_tell_their_own_versions_and_are_counted_by_host():
    rows = [
        row(0, "node7", (3, 13, 1, "final", 0), "0.2.0"),
        row(1, "node8", (3, 10, 4, "final", 0), "0.1.0"),
        row(2, "node7", (3, 13, 1, "final", 0), "0.2.0"),
    ]
    told = [(one.rank, one.host, one.local_rank, one.python, one.version) for one in mpi._count_by_host(rows)]
    assert told == [
        (0, "node7", 0, "3.13.1", "0.2.0"),
        (1, "node8", 0, "3.10.4", "0.1.0"),
        (2, "node7", 1, "3.13.1", "0.2.0"),
    ]


@pytest.mark.parametrize(
    ("cores", "crowded"),
    [
        (["0-1", "0-1", "0-1"], {"node7"}),
        (["0", "2", "4-5"], set()),  # each has its own
        (["0-3", "0-3", "0-3"], set()),
        (["3", "3", "3"], {"node7"}),
        (["", "", ""], set()),  # nothing is known
    ],
)
def test_where_ranks_share_cores(cores: list[str], crowded: set[str]):
    rows = [mpi._member("uid", rank, "MPICH 5") for rank in range(4)]
    for one, (host, own) in zip(rows, [*(("node7", own) for own in cores), ("node8", "0-1")], strict=True):
        one.host, one.cores = host, own
    assert mpi._crowded(rows) == crowded


def test_an_engine_without_mpi_tells_its_own_too():
    (member,) = mpi.alone("uid").members
    assert member.python == ".".join(map(str, sys.version_info[:3]))
    assert (member.uid, member.host, member.mpi) == ("uid", socket.gethostname(), "")
