"""Engine sets and ``view.comm`` as users see them, and the journal of executed code."""

from __future__ import annotations

import pytest

from hpcremote import EngineError, HPCRemoteError
from hpcremote.client import journal
from hpcremote.client.client import Client
from hpcremote.client.comm import comm_of
from hpcremote.client.journal import Journal
from hpcremote.client.view import DirectView
from hpcremote.wire.messages import EngineInfo
from tests.client.support import FakeLink


def info(
    number: int, rank: int, size: int, set_id: str, mpi: str = "MPICH 5", host: str = "node7"
) -> EngineInfo:
    return EngineInfo(number, f"uid{number}", set_id, rank, size, host, 1000 + number, True, "3.12", "", mpi)


#: Two MPI jobs, the first of which has lost a rank, and an engine without MPI.
ENGINES = {
    one.id: one
    for one in (
        info(0, 0, 3, "a"),
        info(2, 2, 3, "a", host="node8"),
        info(3, 0, 2, "b"),
        info(4, 1, 2, "b"),
        info(5, -1, 1, "c", mpi=""),
    )
}
ENDED = {
    "set": "dead", "base": 6, "size": 2, "hosts": ["node9"], "mpi": "MPICH 5",
    "cause": "engine 7: killed by SIGKILL",
}  # fmt: skip


@pytest.fixture
def several(rc: Client, link: FakeLink, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(link, "engines", ENGINES)
    plain = link.query
    monkeypatch.setattr(
        link, "query", lambda what, timeout=10.0: [ENDED] if what == "ended sets" else plain(what)
    )
    return rc


def test_sets_are_views_of_exactly_their_engines(rc: Client) -> None:
    (only,) = rc.engine_sets
    assert isinstance(only, DirectView)
    assert only.apply_sync(abs, -1) == [1, 1, 1, 1]
    only["a"] = 3
    assert rc.set(0)["a"] == [3, 3, 3, 3]
    with pytest.raises(IndexError, match="there is no engine set 1; there are 1"):
        rc.set(1)


def test_what_a_set_tells(several: Client) -> None:
    first, second, single, dead = several.engine_sets
    assert [one.set_id for one in several.engine_sets] == ["a", "b", "c", "dead"]
    assert (first.ids, first.ranks, first.size, first.hosts) == ([0, 2], [0, 2], 3, ["node7", "node8"])
    assert first.targets == [0, 2]
    assert (second.ids, second.number, second.mpi, second.alive) == ([3, 4], 1, "MPICH 5", True)
    assert (single.ranks, single.mpi) == ([-1], "")
    assert repr(first) == "<EngineSet 0: engines 0 to 2, 1 of them lost, MPICH 5, on node7, node8>"
    assert repr(single) == "<EngineSet 2: engine 5, no MPI, on node7>"
    assert repr(dead) == "<EngineSet 3: engines 6 to 7, ended: engine 7: killed by SIGKILL>"


def test_a_set_that_has_ended_says_so(several: Client) -> None:
    dead = several.set(3)
    assert (dead.alive, dead.ids, dead.size, dead.hosts) == (False, [], 2, ["node9"])
    with pytest.raises(
        EngineError, match=r"engines 6 to 7\) has ended \(engine 7: killed by SIGKILL\); restart"
    ):
        dead.apply_async(abs, -1)


def test_engines_by_host(several: Client) -> None:
    views = several.by_host()
    assert {host: view.targets for host, view in views.items()} == {"node7": [0, 3, 4, 5], "node8": [2]}


def test_the_table_names_sets_and_what_engines_do(several: Client) -> None:
    several.link._workers[0].done = 7  # type: ignore[attr-defined]
    rows = [dict(zip(several.info().columns, row, strict=True)) for row in several.info().rows]
    assert [row["set"] for row in rows] == ["0", "0", "1", "1", "2"]
    assert [row["rank"] for row in rows] == ["0/3", "2/3", "0/2", "1/2", "-"]
    assert rows[0]["state"] == "idle"
    assert rows[4]["state"] == "?"  # the controller did not say


def test_the_table_says_who_is_busy(rc: Client, link: FakeLink) -> None:
    link.pause()
    rc[1].apply_async(abs, 1)
    rc[:2].apply_async(abs, 1)
    assert [row[6] for row in rc.info().rows] == ["busy", "busy, 1 queued", "idle", "idle"]
    link.resume()
    assert rc.wait(timeout=10)


def test_memory_has_a_column_where_it_is_known(rc: Client, link: FakeLink) -> None:
    assert "memory" not in rc.info().columns
    link.processes = {"2": {"memory": 50 * 2**20, "state": ""}}
    column = rc.info().columns.index("memory")
    assert [row[column] for row in rc.info().rows] == ["", "", "50 MiB", ""]


def test_the_table_says_who_is_stopped(rc: Client, link: FakeLink) -> None:
    link.noticed = {1: "stopped", 2: "waiting for I/O", 3: "stopped"}
    link.pause()
    rc[2].apply_async(abs, 1)
    for _ in range(2):
        rc[3].apply_async(abs, 1)
    assert [row[6] for row in rc.info().rows] == [
        "idle",
        "stopped",
        "waiting for I/O while busy",
        "stopped while busy, 1 queued",
    ]
    # What is seen now counts more than what was noticed.
    link.processes = {"0": {"memory": 1, "state": "stopped"}, "1": {"memory": 1, "state": ""}}
    assert [row[6] for row in rc.info().rows][:2] == ["stopped", "idle"]
    link.resume()
    assert rc.wait(timeout=10)


# ---------------------------------------------------------------- communicators


def test_the_communicator_of_a_view() -> None:
    whole = comm_of([3, 4], ENGINES)
    assert (whole.size, whole.ids, whole.ranks, whole.set_id, whole.whole) == (2, (3, 4), (0, 1), "b", True)
    assert not comm_of([4, 3], ENGINES).whole
    assert comm_of([2, 0], ENGINES).ranks == (2, 0)
    assert not comm_of([0, 2], ENGINES).whole


def test_where_there_is_no_communicator(several: Client) -> None:
    with pytest.raises(HPCRemoteError, match=r"over 2 engine sets.*engines 0 and 3-4.*one of them"):
        _ = several[0, 3, 4].comm
    with pytest.raises(HPCRemoteError, match="engine 5 is no MPI rank:"):
        _ = several[3, 5].comm
    with pytest.raises(EngineError, match="there is no engine 1"):
        comm_of([0, 1], ENGINES)


# ---------------------------------------------------------------- the journal


def codes(rc: Client, ids: list[int]) -> list[tuple[tuple[int, ...], str]]:
    return [(entry.ids, entry.code) for entry in rc.journal.take(ids)]


def test_code_that_went_well_is_kept_in_order(rc: Client, view: DirectView) -> None:
    view.execute("a = 1", block=True)
    rc[1].execute("b = 2", block=True)
    with pytest.raises(HPCRemoteError):
        view.execute("1 / 0", block=True)
    with view.sync_imports(local=False, quiet=True):
        import json  # noqa: F401
    assert codes(rc, [1, 2]) == [((1, 2), "a = 1"), ((1,), "b = 2"), ((1, 2), "import json")]
    assert codes(rc, [1, 2]) == []
    assert codes(rc, [0]) == [((0,), "a = 1"), ((0,), "import json")]


def test_code_that_has_not_finished_is_not_replayed(rc: Client, view: DirectView, link: FakeLink) -> None:
    link.pause()
    view.execute("a = 1", block=False)
    assert codes(rc, [0, 1, 2, 3]) == []
    link.resume()
    assert rc.wait(timeout=10)


def test_the_journal_is_bounded(rc: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST", 3)
    monkeypatch.setattr(journal, "MOST_TEXT", 20)
    for text in ("a = 1", "b = 2", "c = 3", "d = 4", "e = '0123456789'"):
        rc[0].execute(text, block=True)
    assert [code for _, code in codes(rc, [0])] == ["e = '0123456789'"]
    assert rc.journal.forgotten == 4
    assert codes(rc, [0]) == []
    assert Journal().take([0]) == []
