"""Calls and collectives together: a rank that fails is seen at once, and nobody stays stuck."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import hpcremote
from hpcremote import CollectiveError, CompositeError, RemoteError, TaskAborted
from tests.integration.support import PATIENCE, Running, eventually

pytestmark = pytest.mark.mpi


def total(x: int) -> Any:
    import hpcremote

    return hpcremote.comm().allreduce(x)


def world_total(x: int) -> Any:
    from mpi4py import MPI

    return MPI.COMM_WORLD.allreduce(x)


def fail_on(rank: int, how: str) -> Any:
    """Raise on one rank; the others are in an operation of the communicator meanwhile."""
    import numpy
    from mpi4py import MPI

    import hpcremote

    comm = MPI.COMM_WORLD if how.startswith("world ") else hpcremote.comm()
    if comm.rank == rank:
        raise ValueError(f"rank {rank} has had enough")
    buffer = numpy.zeros(200_000)
    operations = {
        "allreduce": lambda: comm.allreduce(1),
        "Allreduce": lambda: comm.Allreduce(MPI.IN_PLACE, buffer),
        "bcast": lambda: comm.bcast(None, root=rank),
        "Bcast": lambda: comm.Bcast(buffer, root=rank),
        "Barrier": comm.Barrier,
        "recv": lambda: comm.recv(source=rank),
        "Recv": lambda: comm.Recv(buffer, source=rank),
        "Send": lambda: comm.Send(buffer, dest=rank),
        "wait": lambda: comm.irecv(source=rank).wait(),
        "Waitall": lambda: MPI.Request.Waitall([comm.Irecv(buffer[:9], rank), comm.Isend(buffer, rank)]),
    }
    return operations[how.removeprefix("world ")]()


@pytest.fixture
def view(mpi4: Running) -> Iterator[Any]:
    view = mpi4.rc[:]
    view.grace = 0.2
    before = view.apply_sync(os.getpid)
    yield view
    # Whatever a test did: same processes, and every rank is at work.
    assert view.apply_async(os.getpid).get(timeout=PATIENCE) == before
    assert view.apply_async(total, 1).get(timeout=PATIENCE) == [4] * 4
    assert view.apply_async(world_total, 2).get(timeout=PATIENCE) == [8] * 4


def test_scripts_have_the_communicator_of_their_call(view: Any, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "def ranks():\n    return comm.allgather(rank)\nfound = comm.rank, comm.size, ranks()\n"
    )
    view.execute("from mpi4py import MPI; rank = MPI.COMM_WORLD.rank", block=True)
    some = view.client[[3, 1]]
    some.run(script, block=True)
    assert some["found"] == [(0, 2, [3, 1]), (1, 2, [3, 1])]
    some.execute(
        "again = ranks()", targets=[1, 3], block=True
    )  # a function finds that of the call it runs in
    assert some["again"] == [[1, 3]] * 2
    view.execute("same = comm is __import__('hpcremote').comm()", block=True)
    assert view["same"] == [True] * 4
    with pytest.raises(RemoteError, match="'comm' is not defined"):
        view["comm"]
    view.execute("comm = MPI.COMM_WORLD\nmine = comm is MPI.COMM_WORLD", block=True)
    some.execute("ours = comm is MPI.COMM_WORLD", block=True)
    assert (view["mine"], some["ours"]) == ([True] * 4, [True] * 2)
    view.execute("del comm", block=True)


def test_a_rank_of_a_script_that_fails_releases_the_others(view: Any) -> None:
    ar = view.execute("if comm.rank == 2: raise ValueError('mine')\ncomm.Barrier()")
    error = ar.exception(timeout=PATIENCE)
    assert isinstance(error, CollectiveError)
    assert list(error.failed) == [2] and set(error.released) == {0, 1, 3}
    ar = view.execute("from mpi4py import MPI\nif MPI.COMM_WORLD.rank == 2: raise OSError\ncomm.Barrier()")
    assert isinstance(ar.exception(timeout=PATIENCE), CollectiveError)


OPERATIONS = [
    "allreduce",
    "Allreduce",
    "bcast",
    "Bcast",
    "Barrier",
    "recv",
    "Recv",
    "Send",
    "wait",
    "Waitall",
]


@pytest.mark.openmpi
@pytest.mark.parametrize("how", [*OPERATIONS, *(f"world {name}" for name in OPERATIONS)])
def test_ranks_that_wait_for_one_that_failed_are_released(view: Any, how: str) -> None:
    view["kept"] = 41
    with pytest.raises(CollectiveError) as caught:
        view.apply_async(fail_on, 1, how).get(timeout=PATIENCE)
    error = caught.value
    operation = how.removeprefix("world ")
    assert list(error.failed) == [1]
    assert isinstance(error.failed[1].__cause__, ValueError)
    assert set(error.released) == {0, 2, 3}
    for where in error.released.values():
        assert where.startswith(f"{operation} at {__file__}:")
    assert "engine 1        failed: ValueError(rank 1 has had enough)" in str(error)
    assert f"engines 0, 2-3  released from {operation} at" in str(error)
    assert view["kept"] == [41] * 4


def test_the_error_is_there_while_others_still_wait(mpi4: Running, caplog: pytest.LogCaptureFixture) -> None:
    view = mpi4.rc[:]
    view.grace = math.inf
    began = time.monotonic()
    result = view.apply_async(fail_on, 2, "allreduce")
    eventually(lambda: result.failures)
    assert time.monotonic() - began < PATIENCE
    assert "rank 2 has had enough" in str(result.failures[2])
    assert not result.ready()
    with caplog.at_level(logging.WARNING, "hpcremote.client"), pytest.raises(TimeoutError):
        result.get(timeout=1)
    assert "fail_on has failed on engine 2, while engines 0-1, 3 go on" in caplog.text
    result.abort()
    with pytest.raises(CompositeError, match="KeyboardInterrupt"):
        result.get(timeout=PATIENCE)
    assert view.apply_sync(total, 1) == [4] * 4


@pytest.mark.openmpi
def test_who_computes_is_left_alone(view: Any) -> None:
    def compute() -> str:
        import time

        import hpcremote

        if hpcremote.comm().rank == 0:
            raise ValueError("early")
        time.sleep(1.0)
        return "done"

    with pytest.raises(CompositeError) as caught:
        view.apply_async(compute).get(timeout=PATIENCE)
    assert not isinstance(caught.value, CollectiveError)
    result = view.apply_async(compute)
    assert result.get(timeout=PATIENCE, return_exceptions=True)[1:] == ["done"] * 3


@pytest.mark.openmpi
def test_calls_that_wait_behind_a_failed_one_are_right(view: Any) -> None:
    failing = [view.apply_async(fail_on, rank, "world allreduce") for rank in (0, 3)]
    behind = [view.apply_async(world_total, 1), view.apply_async(total, 10)]
    for result in failing:
        with pytest.raises(CollectiveError):
            result.get(timeout=PATIENCE)
    assert [result.get(timeout=PATIENCE) for result in behind] == [[4] * 4, [40] * 4]


def test_a_message_that_nobody_took_meets_no_later_call(view: Any) -> None:
    def leave_one(mode: str) -> Any:
        from mpi4py import MPI

        world = MPI.COMM_WORLD
        if mode == "leave" and world.rank == 0:
            world.send("stale", dest=1, tag=7)
        if mode == "leave" and world.rank == 1:
            raise ValueError("did not take it")
        if mode == "take":
            if world.rank == 0:
                world.send("fresh", dest=1, tag=7)
            if world.rank == 1:
                return world.recv(source=0, tag=7)
        return None

    with pytest.raises(CompositeError):
        view.apply_async(leave_one, "leave").get(timeout=PATIENCE)
    assert view.apply_sync(leave_one, "take")[1] == "fresh"


@pytest.mark.openmpi
def test_kept_references_work_after_a_failure(view: Any) -> None:
    view.execute(
        "from mpi4py import MPI; kept = MPI.COMM_WORLD; from mpi4py.MPI import COMM_WORLD as other"
    ).get()
    with pytest.raises(CollectiveError):
        view.apply_async(fail_on, 1, "world Barrier").get(timeout=PATIENCE)
    view.execute("sums = kept.allreduce(1), other.allreduce(2)").get(timeout=PATIENCE)
    assert view["sums"] == [(4, 8)] * 4


def wait_for_gate(gate: str) -> str:
    import os
    import time

    while not os.path.exists(gate):
        time.sleep(0.01)
    return "through"


def fail_beside(sender: int, receiver: int) -> None:
    """Send by COMM_WORLD; who should receive it fails."""
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == sender:
        MPI.COMM_WORLD.send("stale", dest=receiver)
    if MPI.COMM_WORLD.rank == receiver:
        raise ValueError("did not take it")


def swap(one: int, other: int) -> Any:
    from mpi4py import MPI

    peer = {one: other, other: one}[MPI.COMM_WORLD.rank]
    return MPI.COMM_WORLD.sendrecv(MPI.COMM_WORLD.rank, peer, source=peer)


@pytest.mark.openmpi
@pytest.mark.parametrize("how", ["world allreduce", "allreduce"])
def test_a_rank_at_work_holds_up_nobody_after_a_failure(
    view: Any, mpi4: Running, tmp_path: Path, how: str
) -> None:
    assert view.apply_sync(world_total, 1) == view.apply_sync(total, 1) == [4] * 4
    failing = view.apply_async(fail_on, 1, how)
    busy = mpi4.rc[2].apply_async(wait_for_gate, str(tmp_path / "gate"))
    with pytest.raises(CollectiveError):
        failing.get(timeout=PATIENCE)
    rest = mpi4.rc[[0, 1, 3]]
    assert rest.apply_async(pow, 2, 3).get(timeout=PATIENCE) == [8] * 3
    assert rest.apply_async(total, 1).get(timeout=PATIENCE) == [3] * 3
    assert mpi4.rc[[0, 3]].apply_async(swap, 0, 3).get(timeout=PATIENCE) == [3, 0]
    behind = [view.apply_async(world_total, 1), view.apply_async(total, 2)]
    assert not busy.ready()
    (tmp_path / "gate").touch()
    assert busy.get(timeout=PATIENCE) == "through"
    assert [one.get(timeout=PATIENCE) for one in behind] == [[4] * 4, [8] * 4]


@pytest.mark.openmpi
def test_a_second_failure_while_a_rank_is_at_work_waits_for_it(
    view: Any, mpi4: Running, tmp_path: Path
) -> None:
    assert view.apply_sync(world_total, 1) == [4] * 4
    busy = mpi4.rc[2].apply_async(wait_for_gate, str(tmp_path / "gate"))
    with pytest.raises(CompositeError):
        mpi4.rc[[0, 3]].apply_async(fail_beside, 0, 3).get(timeout=PATIENCE)
    assert mpi4.rc[[0, 3]].apply_async(swap, 0, 3).get(timeout=PATIENCE) == [3, 0]
    with pytest.raises(CompositeError):
        mpi4.rc[[0, 3]].apply_async(fail_beside, 0, 3).get(timeout=PATIENCE)
    swapped = mpi4.rc[[0, 3]].apply_async(swap, 0, 3)
    eventually(lambda: "to make communicators anew" in str(view.stacks()))
    assert not swapped.ready() and not busy.ready()
    (tmp_path / "gate").touch()
    assert swapped.get(timeout=PATIENCE) == [3, 0]


def test_calls_older_than_one_that_failed_go_on_by_the_old_communicators(
    view: Any, mpi4: Running, tmp_path: Path
) -> None:
    busy = mpi4.rc[3].apply_async(wait_for_gate, str(tmp_path / "gate"))
    older = mpi4.rc[[2, 3]].apply_async(swap, 2, 3)
    for _ in range(2):  # by a spare, and without one
        with pytest.raises(CompositeError):
            mpi4.rc[[0, 1]].apply_async(fail_beside, 0, 1).get(timeout=PATIENCE)
    assert not older.ready()
    (tmp_path / "gate").touch()
    assert busy.get(timeout=PATIENCE) == "through"
    assert older.get(timeout=PATIENCE) == [3, 2]


@pytest.mark.parametrize("ids", [[2, 0], [3, 1, 2], [1], [3, 2, 1, 0]])
def test_a_communicator_over_exactly_the_engines_of_the_call(mpi4: Running, ids: list[int]) -> None:
    def who() -> Any:
        from mpi4py import MPI

        import hpcremote

        comm = hpcremote.comm()
        return comm.rank, comm.size, comm.allgather(MPI.COMM_WORLD.rank), comm is hpcremote.comm()

    assert mpi4.rc[ids].apply_sync(who) == [(place, len(ids), ids, True) for place in range(len(ids))]


@pytest.mark.parametrize("interruptible", [True, False])
def test_a_communicator_that_was_freed_is_made_again(view: Any, interruptible: bool) -> None:
    def free(interruptible: bool) -> None:
        import hpcremote

        hpcremote.comm(interruptible).Free()

    for _ in range(2):
        view.apply_async(free, interruptible).get(timeout=PATIENCE)
        assert view.apply_async(total, 1).get(timeout=PATIENCE) == [4] * 4


def test_a_failure_on_some_engines_does_not_disturb_the_others(view: Any, mpi4: Running) -> None:
    def long_sum() -> Any:
        import time

        import hpcremote

        time.sleep(0.6)
        return hpcremote.comm().allreduce(1)

    other = mpi4.rc[[2, 3]].apply_async(long_sum)
    pair = mpi4.rc[[0, 1]]
    pair.grace = 0.1
    with pytest.raises(CollectiveError):
        pair.apply_async(fail_on, 1, "allreduce").get(timeout=PATIENCE)
    assert pair.apply_sync(total, 5) == [10, 10]
    assert other.get(timeout=PATIENCE) == [2, 2]


def test_comm_in_executed_code(view: Any) -> None:
    view.execute("import hpcremote\nranks = hpcremote.comm().allgather(hpcremote.comm().rank)").get()
    assert view["ranks"] == [[0, 1, 2, 3]] * 4


# ---------------------------------------------------------------- ending calls


def wait_for_nobody() -> Any:
    from mpi4py import MPI

    MPI.COMM_WORLD.recv(source=MPI.COMM_WORLD.rank)


@pytest.mark.openmpi
def test_abort_ends_a_running_call_on_all_and_drops_a_waiting_one(view: Any) -> None:
    running, waiting = view.apply_async(wait_for_nobody), view.apply_async(total, 1)
    eventually(lambda: all("recv" in str(one) for one in view.stacks().by_engine.values()))
    waiting.abort()
    running.abort()
    with pytest.raises(CompositeError, match="KeyboardInterrupt.* on engines 0-3"):
        running.get(timeout=PATIENCE)
    with pytest.raises(CompositeError) as caught:
        waiting.get(timeout=PATIENCE)
    assert all(isinstance(error, TaskAborted) for error in caught.value.errors)


def test_abort_of_a_call_that_has_begun_on_some_ranks(view: Any, mpi4: Running) -> None:
    busy = mpi4.rc[3].apply_async(time.sleep, 1.0)
    result = view.apply_async(total, 1)
    eventually(lambda: "allreduce" in str(view.stacks()) or "Agreement" in str(view.stacks()))
    result.abort()
    outcome = result.get(timeout=PATIENCE, return_exceptions=True)
    assert [type(one) for one in outcome] == [RemoteError] * 3 + [TaskAborted]
    busy.get(timeout=PATIENCE)


def test_interrupting_a_view_ends_whole_calls(view: Any, mpi4: Running) -> None:
    result = view.apply_async(wait_for_nobody)
    eventually(lambda: "recv" in str(view.stacks()))
    mpi4.rc[0].interrupt()
    with pytest.raises(CompositeError, match="KeyboardInterrupt.* on engines 0-3"):
        result.get(timeout=PATIENCE)


def press_ctrl_c_twice(caplog: pytest.LogCaptureFixture) -> None:
    """Press Ctrl-C, and again when it has been said what that would do."""
    os.kill(os.getpid(), signal.SIGINT)
    eventually(lambda: "Ctrl-C again within" in caplog.text)
    os.kill(os.getpid(), signal.SIGINT)


#: What IPython has in ``sys.modules`` where a notebook's kernel runs.
NOTEBOOK = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))


@pytest.mark.parametrize("place", ["prompt", "notebook"])
def test_ctrl_c_twice_interrupts_the_engines(
    view: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.delattr(sys, "ps1", raising=False)
    if place == "prompt":  # somebody is there
        monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    else:
        monkeypatch.setitem(sys.modules, "IPython", NOTEBOOK)
    result = view.apply_async(wait_for_nobody)

    def press() -> None:
        eventually(lambda: "recv" in str(view.stacks()))  # by the client whose main thread waits
        press_ctrl_c_twice(caplog)

    thread = threading.Thread(target=press)
    thread.start()
    with caplog.at_level(logging.WARNING, "hpcremote.client"), pytest.raises(KeyboardInterrupt):
        result.get(timeout=PATIENCE)
    thread.join()
    with pytest.raises(CompositeError, match="KeyboardInterrupt"):
        result.get(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("how", "others", "said"),
    [
        pytest.param(
            *("bcast", "allreduce", "rank 1 is in bcast (root 0), ranks 0,2-3 in allreduce: operation"),
            marks=pytest.mark.openmpi,
        ),
        pytest.param(
            *("bcast", "bcast", "rank 1 is in bcast (root 0), ranks 0,2-3 in bcast (root 1): operation"),
            marks=pytest.mark.openmpi,
        ),
        # Open MPI's Ibcast takes a message of its Ibarrier for its own, and ends.
        ("Barrier", "Bcast", "rank 1 is in Barrier, ranks 0,2-3 in Bcast (root 1): operation"),
    ],
)
def test_collectives_that_do_not_match_are_named(view: Any, how: str, others: str, said: str) -> None:
    def collective(name: str, root: int) -> Any:
        import numpy
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        operations = {
            "allreduce": lambda: comm.allreduce(1),
            "bcast": lambda: comm.bcast(1, root=root),
            "Bcast": lambda: comm.Bcast(numpy.zeros(1_000_000), root=root),
            "Barrier": comm.Barrier,
        }
        return operations[name]()

    odd = view.client[1].apply_async(collective, how, 0)
    rest = view.client[[0, 2, 3]].apply_async(collective, others, 1)
    eventually(lambda: said in str(view.stacks()), why="it was not named")
    assert view.stacks().mismatches[0].endswith("of COMM_WORLD differs")
    for result in (odd, rest):
        with contextlib.suppress(RuntimeError):  # the end of the first one may have been that of the other
            result.abort()
        with pytest.raises((RemoteError, CompositeError)):
            result.get(timeout=PATIENCE)
    assert view.stacks().mismatches == []


def be_stubborn(gate: str) -> str:
    while not os.path.exists(gate):
        with contextlib.suppress(KeyboardInterrupt):
            time.sleep(0.05)
    return "through"


def test_what_does_not_react_to_ctrl_c_is_shown_with_the_remedy(
    view: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)  # a prompt
    gate = tmp_path / "gate"
    result = view.apply_async(be_stubborn, str(gate))

    def press() -> None:
        eventually(lambda: "be_stubborn" in str(view.stacks()))
        press_ctrl_c_twice(caplog)

    thread = threading.Thread(target=press)
    thread.start()
    with caplog.at_level(logging.WARNING, "hpcremote.client"), pytest.raises(KeyboardInterrupt):
        result.get(timeout=PATIENCE)
    thread.join()
    assert "engines 0-3 do not react to the interrupt; rc.set(0).restart() would" in caplog.text
    assert "in be_stubborn() at test_together.py:" in caplog.text
    gate.touch()
    assert result.get(timeout=PATIENCE) == ["through"] * 4


def test_the_watchdog_tells_where_a_long_call_is(
    session_home: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with (
        caplog.at_level(logging.WARNING, "hpcremote.client"),
        Running(n=2, profile="mpi", watchdog=0.5) as running,
    ):
        quick = [running.rc[:].apply_async(time.sleep, 0.1) for _ in range(8)]
        assert all(one.get(timeout=PATIENCE) == [None, None] for one in quick)
        assert "has run for" not in caplog.text
        running.rc[1].apply_sync(be_stubborn, os.devnull)  # it imports this module, which may take its time
        caplog.clear()
        result = running.rc[1].apply_async(be_stubborn, str(gate))
        eventually(lambda: "has run for" in caplog.text)
        assert "be_stubborn has run for" in caplog.text
        assert "in be_stubborn() at test_together.py:" in caplog.text
        gate.touch()
        assert result.get(timeout=PATIENCE) == "through"


def test_skew_says_who_came_last(view: Any, mpi4: Running) -> None:
    mpi4.rc[2].apply_async(time.sleep, 0.5)
    result = view.apply_async(total, 1)
    assert result.get(timeout=PATIENCE) == [4] * 4
    assert result.last == 2
    assert result.skew > 0.2
    rows = result.metadata
    began = max(row["started"] for row in rows)
    assert rows[2]["started"] == began and all(row["completed"] >= began for row in rows)
    shown: list[str] = []
    result._repr_pretty_(SimpleNamespace(text=shown.append), False)  # what IPython displays
    assert "".join(shown) == f"{result!r}\nbegun within {result.skew:.3g} s, last on engine 2"


# ---------------------------------------------------------------- one order


def mixture(start: int, rounds: int, world: bool) -> list[tuple[int, str, float, float]]:
    """In each round an allreduce, a bcast and a Barrier; with the clock before and after the Barrier."""
    from mpi4py import MPI

    import hpcremote

    comm = MPI.COMM_WORLD if world else hpcremote.comm()
    seen = []
    for number in range(start, start + rounds):
        total = comm.allreduce(number * (comm.rank + 1))
        root = number % comm.size
        said = comm.bcast(f"{number} of {start}" if comm.rank == root else "mine", root=root)
        came = time.monotonic()
        comm.Barrier()
        seen.append((total, said, came, time.monotonic()))
    return seen


def what_is_wrong(start: int, ranks: list[list[tuple[int, str, float, float]]]) -> Iterator[str]:
    """Look at what `mixture` returned on each engine of a call."""
    shares = len(ranks) * (len(ranks) + 1) // 2
    for number, row in enumerate(zip(*ranks, strict=True), start):
        totals, said, came, left = zip(*row, strict=True)
        if set(totals) != {number * shares}:
            yield f"allreduce of {number}: {totals}, not {number * shares}"
        if set(said) != {f"{number} of {start}"}:
            yield f"bcast of {number} of {start}: {said}"
        if max(came) > min(left):  # one clock: that of the machine
            yield f"Barrier of {number}: one left {max(came) - min(left)} s before another came"


@pytest.mark.openmpi
@pytest.mark.timeout(300)  # where other work keeps the cores busy, each collective costs some time slices
def test_clients_threads_and_views_never_mix_their_collectives(mpi4: Running) -> None:
    """Two clients, two threads each, overlapping views; 2,025 times allreduce, bcast or Barrier in each."""
    calls, rounds = 25, 27
    wrong: list[str] = []
    done: list[int] = []

    def work(rc: hpcremote.Client, ids: list[int], start: int) -> None:
        view = rc[ids]
        starts = range(start, start + calls * rounds, rounds)
        by_world = [len(ids) == 4 and call % 2 == 1 for call in range(calls)]
        results = [
            view.apply_async(mixture, x, rounds, world) for x, world in zip(starts, by_world, strict=True)
        ]
        for x, result in zip(starts, results, strict=True):
            wrong.extend(what_is_wrong(x, result.get(timeout=8 * PATIENCE)))
            done.append(x)

    with mpi4.new_client() as other:
        jobs = [(mpi4.rc, [0, 1, 2, 3]), (mpi4.rc, [3, 1]), (other, [1, 2, 3]), (other, [3, 2, 1, 0])]
        threads = [
            threading.Thread(target=work, args=(rc, ids, 10_000 * (place + 1)))
            for place, (rc, ids) in enumerate(jobs)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(done) == calls * len(jobs)


def test_ranks_whose_mpi_has_no_communicators_left_say_so_and_can_be_restarted(
    start: Callable[..., Running],
) -> None:
    def use_up() -> None:
        global hoard
        from mpi4py import MPI

        hoard = []
        with contextlib.suppress(MPI.Exception):
            while True:
                hoard.append(MPI.COMM_SELF.Dup())

    running = start(n=2, profile="mpi")
    view = running.rc[:]
    view.apply_sync(world_total, 1)
    view.apply_sync(use_up)
    for _ in range(2):  # for the first one there is a spare
        with pytest.raises(CollectiveError):
            view.apply_async(fail_on, 1, "world allreduce").get(timeout=PATIENCE)
    with pytest.raises(CompositeError, match="COMM_WORLD cannot be used: MPI cannot make it anew"):
        view.apply_async(world_total, 1).get(timeout=PATIENCE)
    assert view.apply_sync(pow, 2, 3) == [8, 8]
    running.rc.set(0).restart()
    assert view.apply_async(world_total, 1).get(timeout=PATIENCE) == [2, 2]


def test_the_name_comm_world_is_left_alone_where_the_profile_says_so(start: Callable[..., Running]) -> None:
    def kinds() -> Any:
        from mpi4py import MPI

        import hpcremote

        return type(MPI.COMM_WORLD).__name__, type(hpcremote.comm()).__name__

    running = start(n=2, profile="mpi", comm_world=False)
    view = running.rc[:]
    view.grace = 0.2
    assert view.apply_sync(kinds) == [("Intracomm", "Comm")] * 2
    with pytest.raises(CollectiveError):
        view.apply_async(fail_on, 1, "allreduce").get(timeout=PATIENCE)
    assert view.apply_async(total, 1).get(timeout=PATIENCE) == [2, 2]
    assert view.apply_async(world_total, 1).get(timeout=PATIENCE) == [2, 2]
