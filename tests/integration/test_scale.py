"""A thousand ranks on one controller, over the connections of eight nodes' agents: everybody's own outcome.

The ranks are simulated (``benchmarks/simulated.py``), with real sockets, keys and frames.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import hpcremote
from benchmarks.scale import controller
from benchmarks.simulated import PER_NODE, Nodes, Outcome
from hpcremote import connection, errors
from hpcremote.wire import failure, payload

RANKS = 1_000
SOON = 20.0


class Thousand:
    """A controller, the nodes, and a client; ``failing`` and ``silent`` ranks can be chosen."""

    def __init__(self, home: Path) -> None:
        self.failing: set[int] = set()
        self.silent: set[int] = set()
        self.nodes = Nodes(connection.read(home / "engine.json", "engine"), RANKS, self._outcome)
        self.rc = hpcremote.Client(home / "client.json")
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        self.rc.wait_for_engines(RANKS, timeout=SOON)

    def _serve(self) -> None:
        self.nodes.register()
        self.nodes.serve()

    def _outcome(self, rank: int) -> Outcome | None:
        if rank in self.silent:
            return None
        if rank in self.failing:
            return "error", payload.to_part([failure.capture(ValueError(f"on {rank}"))])[0]
        return "ok", payload.to_part(payload.dump_result(rank))[0]

    def until_left(self, ids: list[int]) -> None:
        assert self.rc.link.wait(lambda: len(self.rc.link.engines) <= len(ids), SOON)
        assert self.rc.ids == ids

    def close(self) -> None:
        self.nodes.stop()
        self._thread.join(SOON)
        self.rc.close()


@pytest.fixture
def thousand(tmp_path: Path) -> Iterator[Thousand]:
    with controller(tmp_path):
        (home,) = tmp_path.glob("clusters/*/*")
        made = Thousand(home)
        try:
            yield made
        finally:
            made.close()


def work() -> None:
    """What it is does not matter: nobody runs it."""


def test_a_view_of_any_ranks_has_their_values_in_its_order(thousand: Thousand) -> None:
    rc = thousand.rc
    assert rc.ids == list(range(RANKS))
    assert {info.host for info in rc.link.engines.values()} == {f"node{number}" for number in range(8)}
    for ids in (list(range(RANKS)), [700, 3, 5], list(range(RANKS - 1, -1, -1)), list(range(0, RANKS, 7))):
        assert rc[ids].apply_sync(work) == ids
    results = [rc[:].apply_async(work) for _ in range(5)]
    assert [result.get(SOON) for result in results] == [list(range(RANKS))] * 5


def test_an_error_on_one_rank_is_that_ranks(thousand: Thousand) -> None:
    thousand.failing = {777}
    result = thousand.rc[:].apply_async(work)
    with pytest.raises(
        errors.CompositeError, match=r"on 1 of 1000 engines: ValueError\(on 777\) on engine 777"
    ):
        result.get(SOON)
    values = result.get(return_exceptions=True)
    assert isinstance(values.pop(777), errors.RemoteError)
    assert values == [rank for rank in range(RANKS) if rank != 777]


def test_ranks_that_go_are_missed_at_once_and_the_others_go_on(thousand: Thousand) -> None:
    thousand.silent = {3, 999}
    result = thousand.rc[:].apply_async(work)
    thousand.nodes.end_ranks([3, 999])
    left = [rank for rank in range(RANKS) if rank not in (3, 999)]
    values = result.get(SOON, return_exceptions=True)
    assert [rank for rank, value in enumerate(values) if isinstance(value, errors.EngineError)] == [3, 999]
    assert [value for value in values if not isinstance(value, BaseException)] == left
    thousand.until_left(left)
    assert thousand.rc[:].apply_sync(work) == left


def test_ranks_of_an_agent_that_goes_are_waited_for_and_then_given_up(thousand: Thousand) -> None:
    its = range(2 * PER_NODE, 3 * PER_NODE)
    thousand.silent = set(its)
    result = thousand.rc[:].apply_async(work)
    thousand.nodes.end_node(2)
    values = result.get(SOON, return_exceptions=True)
    assert all(isinstance(values[rank], errors.EngineError) for rank in its)
    left = [rank for rank in range(RANKS) if rank not in its]
    assert [values[rank] for rank in left] == left
    thousand.until_left(left)
    assert thousand.rc[:].apply_sync(work) == left
