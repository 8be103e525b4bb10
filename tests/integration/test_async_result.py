"""AsyncResult, name by name, against real engines."""

from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import multiprocessing.pool
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hpcremote
from tests.integration.support import PATIENCE, Notebook, Running, environment, open_gate

pytestmark = pytest.mark.mpi


class Gates:
    """Pipes that calls wait at: engine *i* waits at ``gates.wait(i)`` until ``gates.open(i)``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, number: int) -> None:
        os.mkfifo(self.folder / str(number))

    def open(self, number: int) -> None:
        open_gate(self.folder / str(number))


@pytest.fixture
def gates(tmp_path: Path, rc4: hpcremote.Client, notebook: Notebook) -> Gates:
    """Gates 0 to 3; ``notebook.wait(x)`` waits at the gate of its rank, and returns x + rank."""
    made = Gates(tmp_path)
    for number in range(4):
        made.add(number)
    notebook("""
    def wait(x=0):
        from mpi4py import MPI
        rank = MPI.COMM_WORLD.rank
        open(f"{folder}/{rank}").close()
        return x + rank
    def pass_gate(number):
        open(f"{folder}/{number}").close()
        return number
    def fail_on(bad, x=0):
        from mpi4py import MPI
        rank = MPI.COMM_WORLD.rank
        if rank in bad:
            raise ValueError(f"rank {rank} will not")
        return x + rank
    def wait_or_fail(bad):
        from mpi4py import MPI
        if MPI.COMM_WORLD.rank in bad:
            raise ValueError("no")
        return wait()
    """)
    rc4[:].push({"folder": str(tmp_path)}, block=True)
    return made


@pytest.fixture
def view(rc4: hpcremote.Client) -> hpcremote.DirectView:
    return rc4[:]


# ---------------------------------------------------------------- multiprocessing's


def test_it_has_all_that_multiprocessing_has(view: hpcremote.DirectView) -> None:
    theirs = {name for name in dir(multiprocessing.pool.AsyncResult) if not name.startswith("_")}
    assert theirs == {"get", "wait", "ready", "successful"}
    ar = view.apply_async(abs, -1)
    assert all(callable(getattr(ar, name)) for name in theirs)
    assert issubclass(hpcremote.AsyncResult, concurrent.futures.Future)


def test_waiting_and_getting(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    ar = rc4[1].apply_async(notebook.wait, 10)
    assert not ar.ready() and not ar.done() and not ar.cancelled()
    assert ar.wait(0) is False and ar.wait(0.05) is False
    for timeout in (0, 0.05):
        with pytest.raises(TimeoutError, match=r"^Result not ready\.$"):
            ar.get(timeout)
        with pytest.raises(TimeoutError):
            ar.result(timeout)
        with pytest.raises(TimeoutError):
            ar.exception(timeout)
    with pytest.raises(RuntimeError, match="not ready"):
        ar.successful()
    assert repr(ar) == "<AsyncResult(wait): pending>"
    gates.open(1)
    assert ar.get(PATIENCE) == 11
    assert ar.wait() is True and ar.wait(0) is True
    assert (ar.ready(), ar.done(), ar.successful(), ar.exception()) == (True, True, True, None)
    assert (ar.r, ar.result(), ar.get(), ar.result_dict, ar.get_dict()) == (11, 11, 11, {1: 11}, {1: 11})
    assert repr(ar) == "<AsyncResult(wait): finished>"


def test_a_failure(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    ar = rc4[1].apply_async(notebook.fail_on, [1])
    assert ar.wait(PATIENCE) is True
    assert not ar.successful()
    assert isinstance(ar.exception(), hpcremote.RemoteError)
    for use in (ar.get, ar.result, lambda: ar.r, lambda: ar.result_dict):
        with pytest.raises(hpcremote.RemoteError, match=r"ValueError\(rank 1 will not\) on engine 1"):
            use()
    assert type(ar.get(return_exceptions=True)) is hpcremote.RemoteError
    assert repr(ar) == "<AsyncResult(fail_on): failed>"


# ---------------------------------------------------------------- several engines


def test_parts_arrive_as_they_come(view: hpcremote.DirectView, gates: Gates, notebook: Notebook) -> None:
    ar = view.apply_async(notebook.wait, 100)
    assert len(ar) == 4
    items = iter(ar)
    gates.open(0)
    assert next(items) == 100  # while the others wait
    assert not ar.ready()
    assert ar.progress == 1
    gates.open(2)
    done, pending = ar.wait(PATIENCE, return_when=hpcremote.FIRST_COMPLETED)
    assert done and pending and len(done) + len(pending) == 4
    gates.open(1)
    assert next(items) == 101
    assert next(items) == 102
    gates.open(3)
    assert list(items) == [103]
    assert (ar.progress, ar.get(), ar[0], ar[-1], ar[1:3]) == (4, [100, 101, 102, 103], 100, 103, [101, 102])
    assert ar.result_dict == {0: 100, 1: 101, 2: 102, 3: 103}


def test_indexing_before_it_is_there(view: hpcremote.DirectView, gates: Gates, notebook: Notebook) -> None:
    ar = view.apply_async(notebook.wait)
    with pytest.raises(TimeoutError):
        ar[0]
    assert ar["engine_id"] == [0, 1, 2, 3] and ar["status"] == [None] * 4
    for number in range(4):
        gates.open(number)
    ar.get(PATIENCE)
    assert ar["status"] == ["ok"] * 4 == ar.status
    with pytest.raises(TypeError, match="indexed by int, slice or a key"):
        ar[1.5]
    with pytest.raises(AttributeError, match="no attribute 'stdoot'"):
        _ = ar.stdoot


def test_one_engine_is_one_value(rc4: hpcremote.Client) -> None:
    ar = rc4[0].apply_async(abs, -1)
    with pytest.raises(TypeError, match=r"one value: use get\(\)"):
        iter(ar)
    assert len(ar) == 1


def test_split_and_join(view: hpcremote.DirectView, gates: Gates, notebook: Notebook) -> None:
    ar = view.apply_async(notebook.wait)
    parts = ar.split()
    assert len(parts) == 4
    for number in (3, 1):
        gates.open(number)
        assert parts[number].get(PATIENCE) == number
    assert [part.ready() for part in parts] == [False, True, False, True]
    joined = hpcremote.AsyncResult.join(parts[3], parts[1])
    assert joined.get(PATIENCE) == [3, 1]
    assert joined.result_dict == {3: 3, 1: 1}
    for number in (0, 2):
        gates.open(number)
    assert ar.get(PATIENCE) == [0, 1, 2, 3]
    assert hpcremote.AsyncResult.join(*parts).get() == [0, 1, 2, 3]


def test_return_exceptions(view: hpcremote.DirectView, gates: Gates, notebook: Notebook) -> None:
    ar = view.apply_async(notebook.fail_on, [1, 2], 5)
    first, second, third, last = ar.get(PATIENCE, return_exceptions=True)
    assert (first, last) == (5, 8)
    assert [type(one) for one in (second, third)] == [hpcremote.RemoteError] * 2
    assert second.engine_info["engine_id"] == 1
    with pytest.raises(hpcremote.CompositeError, match="2 of 4 engines: ValueError"):
        ar.get()
    got = view.map_sync(lambda x: 1 // x, [1, 0, 1, 1], return_exceptions=True)
    assert [type(one).__name__ for one in got] == ["int", "RemoteError", "int", "int"]


def test_return_when(view: hpcremote.DirectView, gates: Gates, notebook: Notebook) -> None:
    ar = view.apply_async(notebook.wait_or_fail, [2])
    with pytest.raises(hpcremote.CompositeError, match="ValueError.* on engine 2"):
        ar.get(PATIENCE, return_when=hpcremote.FIRST_EXCEPTION)
    assert not ar.ready()
    done, pending = ar.wait(PATIENCE, return_when=hpcremote.FIRST_EXCEPTION)
    assert {part.engine_id for part in done} >= {2} and {part.engine_id for part in pending} == {0, 1, 3}
    for number in (0, 1, 3):
        gates.open(number)
    done, pending = ar.wait(PATIENCE, return_when=hpcremote.ALL_COMPLETED)
    assert (len(done), pending) == (4, set())
    with pytest.raises(ValueError, match="return_when is"):
        ar.wait(1, return_when="SOMETIME")


def test_maps(view: hpcremote.DirectView, gates: Gates, notebook: Notebook) -> None:
    ar = view.map_async(lambda x: x * x, range(10))
    assert isinstance(ar, hpcremote.AsyncMapResult)
    assert len(ar) == 10
    assert list(ar) == ar.get() == [x * x for x in range(10)]
    assert ar.progress == 10
    assert view.map_sync(pow, [2, 3], [3, 2]) == [8, 9]
    assert list(view.imap(str, range(6))) == list("012345")
    waiting = view.map_async(notebook.pass_gate, range(4))
    items = iter(waiting)
    gates.open(0)
    assert next(items) == 0
    assert not waiting.ready()
    for number in (1, 2, 3):
        gates.open(number)
    assert list(items) == [1, 2, 3]


# ---------------------------------------------------------------- abort and cancel


def test_abort_of_what_is_queued(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    running = rc4[0].apply_async(notebook.wait, 5)
    queued = [rc4[0].execute(f"ran = {count}") for count in range(5)]
    queued[1].abort()
    rc4.abort(queued[3:])
    for ar in (queued[1], *queued[3:]):
        with pytest.raises(hpcremote.TaskAborted, match="aborted before it started on engine 0"):
            ar.get(PATIENCE)  # at once, while the first one runs
        assert ar.status == "aborted"
    assert not running.ready() and not queued[0].ready()
    gates.open(0)
    assert running.get(PATIENCE) == 5
    queued[2].get(PATIENCE)
    assert rc4[0]["ran"] == 2
    with pytest.raises(RuntimeError, match="has finished"):
        running.abort()


def test_abort_where_it_has_not_started(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    busy = rc4[0].apply_async(notebook.wait)
    ar = rc4[:2].apply_async(abs, -7)
    assert ar.split()[1].get(PATIENCE) == 7
    ar.abort()
    first, second = ar.get(PATIENCE, return_exceptions=True)
    assert type(first) is hpcremote.TaskAborted and second == 7
    gates.open(0)
    assert busy.get(PATIENCE) == 0


def test_a_view_aborts_all_of_its_calls(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    view, others = rc4[0], rc4[0]
    first = others.apply_async(notebook.wait)
    mine = [view.apply_async(abs, -1) for _ in range(3)]
    theirs = others.apply_async(abs, -2)
    view.abort()
    for ar in mine:
        with pytest.raises(hpcremote.TaskAborted):
            ar.get(PATIENCE)
    gates.open(0)
    assert (first.get(PATIENCE), theirs.get(PATIENCE)) == (0, 2)


def test_cancel(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    busy = rc4[0].apply_async(notebook.wait)
    ar = rc4[0].execute("ran = 1")
    assert ar.cancel() is True
    assert ar.cancelled() and ar.done()
    with pytest.raises(concurrent.futures.CancelledError):
        ar.get(PATIENCE)
    later = rc4[0].apply_async(abs, -1)
    later.abort()
    with pytest.raises(hpcremote.TaskAborted):
        later.get(PATIENCE)  # the engine has heard of this one, and so of the one before
    gates.open(0)
    assert busy.get(PATIENCE) == 0
    assert busy.cancel() is False
    assert "ran" not in rc4[0]["list(globals())"]


# ---------------------------------------------------------------- times and progress


def test_times(view: hpcremote.DirectView, gates: Gates, notebook: Notebook) -> None:
    before = time.time()
    ar = view.apply_async(notebook.wait)
    with pytest.raises(TimeoutError):
        _ = ar.wall_time
    with pytest.raises(TimeoutError):
        _ = ar.serial_time
    assert 0 <= ar.elapsed <= time.time() - before + 0.1
    assert not ar.wait(0.2)
    for number in range(4):
        gates.open(number)
    ar.get(PATIENCE)
    assert 0.2 <= ar.wall_time <= time.time() - before
    assert ar.elapsed == ar.wall_time
    # Each engine was at work for all of the time that we waited, or nearly.
    assert 0.4 <= ar.serial_time <= 4 * ar.wall_time
    assert ar.timedelta(ar.submitted, ar.received) == pytest.approx(ar.wall_time, abs=0.01)
    assert all(isinstance(one, datetime.datetime) for one in ar.started)


BAR = """
import sys, hpcremote
rc = hpcremote.Client(sys.argv[1])

def wait(folder):
    from mpi4py import MPI
    open(f"{folder}/{MPI.COMM_WORLD.rank}").close()

ar = rc[:].apply_async(wait, sys.argv[2])
print("waiting", flush=True)
ar.wait_interactive(0.05)
print("done", ar.ready())
"""


def test_wait_interactive_in_a_terminal(mpi4: Running, gates: Gates, tmp_path: Path) -> None:
    above, below = pty.openpty()
    try:
        ran = subprocess.Popen(
            [sys.executable, "-c", BAR, str(mpi4.client_file()), str(tmp_path)],
            stdin=subprocess.DEVNULL, stdout=below, stderr=below, env=environment(),
        )  # fmt: skip
        os.close(below)
        lines = _read(above)
        said = ""
        for number in range(4):
            while f"{number}/4" not in said:
                said += next(lines)
            gates.open(number)
        said += "".join(lines)
        assert ran.wait(PATIENCE) == 0
    finally:
        os.close(above)
    assert "4/4" in said and "[##############################]" in said
    assert said.rstrip().endswith("done True")
    assert "Traceback" not in said


def _read(fd: int) -> Iterator[str]:
    while True:
        try:
            data = os.read(fd, 4096)
        except OSError:
            return
        yield data.decode()


def test_wait_interactive_in_a_log(view: hpcremote.DirectView, capsys: pytest.CaptureFixture[str]) -> None:
    view.map_async(abs, range(7)).wait_interactive()
    assert capsys.readouterr().err.startswith("abs [##############################] 7/7 ")


def test_wait_interactive_gives_up(
    rc4: hpcremote.Client, gates: Gates, notebook: Notebook, capsys: Any
) -> None:
    ar = rc4[0].apply_async(notebook.wait)
    ar.wait_interactive(interval=0.02, timeout=0.1)
    assert not ar.ready()
    assert "0/1" in capsys.readouterr().err
    gates.open(0)
    ar.get(PATIENCE)


# ---------------------------------------------------------------- a Future


def test_callbacks(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    called = threading.Event()
    ar = rc4[0].apply_async(notebook.wait, 3)
    ar.add_done_callback(lambda done: called.set() if done is ar and done.result() == 3 else None)
    assert not called.is_set()
    gates.open(0)
    assert called.wait(PATIENCE)  # nobody reads but the client's own thread
    at_once: list[Any] = []
    ar.add_done_callback(at_once.append)
    assert at_once == [ar]


def test_concurrent_futures_know_it(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    ars = [rc4[engine].apply_async(notebook.wait) for engine in range(3)]
    gates.open(1)
    done, pending = concurrent.futures.wait(ars, PATIENCE, concurrent.futures.FIRST_COMPLETED)
    assert (done, pending) == ({ars[1]}, {ars[0], ars[2]})
    gates.open(0)
    gates.open(2)
    assert sorted(ar.get() for ar in concurrent.futures.as_completed(ars, PATIENCE)) == [0, 1, 2]


def test_await(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    async def use() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        ar = rc4[0].apply_async(notebook.wait, 1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(ar)), 0.1)
        assert ticks > 3  # the loop is not held up
        gates.open(0)
        assert await asyncio.wait_for(_of(ar), PATIENCE) == 1
        assert await asyncio.gather(*(_of(rc4[:].apply_async(abs, -x)) for x in range(20))) == [
            [x] * 4 for x in range(20)
        ]
        with pytest.raises(hpcremote.CompositeError, match="ValueError"):
            await rc4[:].apply_async(notebook.fail_on, [3])
        with pytest.raises(hpcremote.RemoteError, match="ZeroDivisionError"):
            await rc4[0].execute("1/0")
        ticking.cancel()

    asyncio.run(use())


async def _of(ar: hpcremote.AsyncResult) -> Any:
    return await ar


def test_a_result_of_many_threads(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    ar = rc4[0].apply_async(notebook.wait, 9)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ar.get, PATIENCE) for _ in range(8)]
        gates.open(0)
        assert [future.result() for future in futures] == [9] * 8


# ---------------------------------------------------------------- by name


def test_history_and_results(rc4: hpcremote.Client, view: hpcremote.DirectView) -> None:
    ar = view.apply_async(abs, -4)
    ar.get(PATIENCE)
    assert rc4.history[-4:] == ar.msg_ids == view.history[-4:]
    assert rc4.get_result(ar.msg_ids).get(PATIENCE) == [4] * 4
    assert rc4.get_result(ar.msg_ids[2]).get(PATIENCE) == 4
    assert rc4.get_result(-1).get(PATIENCE) == 4
    assert rc4.results[ar.msg_ids[0]] == 4
    assert rc4.metadata[ar.msg_ids[3]]["engine_id"] == 3
    assert rc4.wait(ar) is True
    assert rc4.outstanding == set()


def test_outstanding(rc4: hpcremote.Client, gates: Gates, notebook: Notebook) -> None:
    ars = [rc4[0].apply_async(notebook.wait), rc4[1].apply_async(notebook.wait)]
    assert rc4.outstanding == {*ars[0].msg_ids, *ars[1].msg_ids}
    assert rc4.wait(ars, 0.05) is False
    gates.open(0)
    assert rc4.wait(ars[0], PATIENCE) is True
    assert rc4.outstanding == set(ars[1].msg_ids)
    gates.open(1)
    assert rc4.wait(timeout=PATIENCE) is True


def test_labels(rc4: hpcremote.Client) -> None:
    view = rc4[0]
    with view.temp_flags(label="mine"):
        ar = view.apply_async(abs, -1)
    assert (ar.metadata["label"], ar.get(PATIENCE)) == ("mine", 1)
    assert view.apply_async(abs, -1).metadata["label"] != "mine"
