from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import time
import weakref
from datetime import datetime, timezone
from typing import Any

import pytest

import hpcremote
from hpcremote.client.client import Client
from hpcremote.client.result import AsyncResult
from hpcremote.client.view import DirectView
from hpcremote.errors import (
    CompositeError,
    EngineError,
    NotConnected,
    PayloadError,
    RemoteError,
    TaskAborted,
)
from tests.client.support import FakeLink


def add(a: int, b: int = 0) -> int:
    return a + b


def fail() -> None:
    raise ValueError("no good")


# ---------------------------------------------------------------- values


def test_one_engine_gives_a_value_and_several_a_list_in_view_order(rc: Client) -> None:
    assert rc[0].apply_async(add, 1, b=2).get() == 3
    assert rc[[2, 0]].apply_async(add, 1).get() == [1, 1]
    assert rc[[1]].apply_async(add, 1).get() == [1]
    view = rc[[3, 1]]
    view.execute("import os; me = __name__", block=True)
    rc[3]["who"], rc[1]["who"] = 3, 1
    assert view.pull("who", block=True) == [3, 1]


def test_an_unfinished_result_says_so(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[0].apply_async(add, 1)
    assert not ar.ready() and not ar.done()
    assert "pending" in repr(ar) and "add" in repr(ar)
    with pytest.raises(TimeoutError, match="Result not ready"):
        ar.get(0.01)
    with pytest.raises(hpcremote.TimeoutError):
        ar.exception(0)
    for expected in (RuntimeError, ValueError):  # ipyparallel's and multiprocessing's
        with pytest.raises(expected, match="not ready"):
            ar.successful()
    assert ar.wait(0) is False
    link.resume()
    assert ar.get(5) == 1
    assert ar.ready() and ar.done() and ar.successful()
    assert ar.wait(0) is True
    assert "finished" in repr(ar)
    assert (ar.r, ar.result(), ar.result_dict, ar.get_dict()) == (1, 1, {0: 1}, {0: 1})


def test_values_are_unpickled_when_looked_at_and_once(rc: Client) -> None:
    ar = rc[0].apply_async(list, [1])
    ar.wait()
    assert ar.get() is ar.get() is ar.result() is ar.r


def test_a_value_that_cannot_be_unpickled_is_an_error_naming_it(rc: Client) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    ar = rc[0].apply_async(Trap)
    with pytest.raises(
        PayloadError, match=r"Trap returned on engine 0 .rank 0 on node7. cannot be unpickled"
    ):
        ar.get()
    assert not ar.successful()


def test_timeouts_that_are_negative_or_none_wait(rc: Client) -> None:
    assert rc[0].apply_async(add, 1).get(-1) == 1
    assert rc[0].apply_async(add, 1).get(None) == 1
    assert rc[0].apply_async(add, 1).wait(-1) is True


# ---------------------------------------------------------------- errors


def test_one_engine_raises_a_remote_error_with_its_cause(rc: Client) -> None:
    ar = rc[2].apply_async(fail)
    with pytest.raises(RemoteError, match="no good") as caught:
        ar.get()
    error = caught.value
    assert not isinstance(error, CompositeError)
    assert (error.ename, error.evalue) == ("ValueError", "no good")
    assert isinstance(error.__cause__, ValueError)
    assert error.engine_info["engine_id"] == 2
    assert error.engine_info["engine_uuid"] == ar.engine_uuid
    assert "engine 2 (rank 2 on node7)" in str(error)
    assert 'raise ValueError("no good")' in str(error)
    assert ar.exception() is error
    assert ar.metadata["status"] == "error" and ar.error is error
    assert "failed" in repr(ar)


def test_several_engines_raise_a_composite_error(rc: Client, link: FakeLink) -> None:
    link.namespace(1)["bad"] = True
    ar = rc[:].execute("if globals().get('bad'): raise KeyError('k')")
    with pytest.raises(CompositeError) as caught:
        ar.get()
    assert str(caught.value).splitlines()[0] == "execute failed on 1 of 4 engines: KeyError('k') on engine 1"
    values = ar.get(return_exceptions=True)
    assert values[0] is values[2] is values[3] is None
    assert isinstance(values[1], RemoteError)


def test_the_same_error_can_be_raised_again_and_again(rc: Client) -> None:
    ar = rc[0].apply_async(fail)
    depths = []
    for _ in range(3):
        with pytest.raises(RemoteError) as caught:
            ar.get()
        depths.append(len(caught.traceback))
    assert len(set(depths)) == 1


def test_a_dead_engine_fails_its_call(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[:].apply_async(add, 1)
    one = rc[3].apply_async(add, 1)
    link.kill(3, "killed by SIGSEGV", "last words\n")
    with pytest.raises(
        EngineError, match=r"engine 3 .* killed by SIGSEGV\nits last output:\nlast words"
    ) as caught:
        one.get()
    assert (caught.value.engine_id, caught.value.cause) == (3, "killed by SIGSEGV")
    link.resume()
    with pytest.raises(CompositeError, match="failed on 1 of 4 engines: EngineError"):
        ar.get()


def test_a_lost_controller_fails_everything_with_one_error(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar, one = rc[:].apply_async(add, 1), rc[0].apply_async(add, 1)
    gone = NotConnected("it went away")
    link.lose(gone)
    for result in (ar, one):
        with pytest.raises(NotConnected) as caught:
            result.get()
        assert caught.value is gone
    with pytest.raises(NotConnected):
        rc[:]


def test_a_waiter_learns_of_the_loss_even_before_the_flights_do(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[0].apply_async(add, 1)
    link.lost = NotConnected("it went away")
    with pytest.raises(NotConnected, match="went away"):
        ar.get()


# ---------------------------------------------------------------- return_when, return_exceptions


def test_first_exception_raises_while_others_run(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[[0, 1]].apply_async(fail)
    link.step_engine(1)
    with pytest.raises(CompositeError, match="engine 1"):
        ar.get(1, return_when=hpcremote.FIRST_EXCEPTION)
    assert not ar.ready()
    done, pending = ar.wait(0, return_when=hpcremote.FIRST_COMPLETED)
    assert [part.engine_id for part in done] == [1]
    assert [part.engine_id for part in pending] == [0]
    link.resume()
    done, pending = ar.wait(return_when=hpcremote.ALL_COMPLETED)
    assert len(done) == 2 and not pending


def test_first_exception_returns_the_result_when_there_is_none(rc: Client) -> None:
    assert rc[:].apply_async(add, 2).get(return_when=hpcremote.FIRST_EXCEPTION) == [2] * 4


def test_first_completed_is_for_wait(rc: Client) -> None:
    with pytest.warns(UserWarning, match="waits for all"):
        assert rc[:].apply_async(add, 2).get(return_when=hpcremote.FIRST_COMPLETED) == [2] * 4
    with pytest.raises(ValueError, match="return_when is"):
        rc[:].apply_async(add, 2).wait(return_when="SOMETIME")


def test_map_can_return_exceptions(view: DirectView) -> None:
    ar = view.map_async(lambda x: 1 // x, range(4), return_exceptions=True)
    values = ar.get()
    assert isinstance(values[0], RemoteError) and values[1:] == [1, 0, 0]
    assert ar.exception() is None


# ---------------------------------------------------------------- parts


def test_split_and_join(view: DirectView) -> None:
    ar = view.apply_async(add, 5)
    parts = ar.split()
    assert [part.get() for part in parts] == [5] * 4
    assert ar.split() is parts and parts[0].split() == (parts[0],)
    assert [part.engine_id for part in parts] == [0, 1, 2, 3]
    joined = AsyncResult.join(*parts)
    assert joined.get() == [5] * 4 and len(joined) == 4
    assert joined.msg_ids == ar.msg_ids
    assert AsyncResult.join(ar) is ar
    with pytest.raises(ValueError, match="nothing to join"):
        AsyncResult.join()


def test_results_of_several_calls_join(view: DirectView, link: FakeLink) -> None:
    link.pause()
    first, second = view.apply_async(add, 1), view.apply_async(add, 2)
    joined = AsyncResult.join(first, second)
    assert joined.wait(0) is False
    link.resume()
    assert joined.get() == [1] * 4 + [2] * 4
    with pytest.raises(ValueError, match="several results"):
        joined.get_dict()


def test_iteration_yields_in_order_as_results_arrive(view: DirectView, link: FakeLink) -> None:
    link.pause()
    ar = view.apply_async(add, 7)
    items = iter(ar)
    link.step_engine(0)
    assert next(items) == 7
    assert not ar.ready()
    link.resume()
    assert list(items) == [7, 7, 7]
    assert list(ar) == [7] * 4


def test_iteration_raises_where_an_engine_failed(view: DirectView, link: FakeLink) -> None:
    link.namespace(1)["bad"] = True
    items = iter(view.execute("1 / (0 if globals().get('bad') else 1)"))
    assert next(items) is None
    with pytest.raises(CompositeError, match="engine 1"):
        next(items)


def test_a_single_result_is_not_iterable(rc: Client) -> None:
    with pytest.raises(TypeError, match="one value"):
        iter(rc[0].apply_async(add, 1))


def test_indexing(view: DirectView, link: FakeLink) -> None:
    link.pause()
    ar = view.apply_async(add, 3)
    with pytest.raises(TimeoutError):
        ar[0]
    assert ar["engine_id"] == ar.engine_id == [0, 1, 2, 3]
    link.resume()
    ar.wait()
    assert (ar[0], ar[-1], ar[1:3]) == (3, 3, [3, 3])
    assert len(ar) == 4
    with pytest.raises(IndexError):
        ar[4]
    with pytest.raises(TypeError, match="indexed by"):
        ar[1.5]
    with pytest.raises(KeyError):
        ar["engine"]


def test_a_typo_is_an_attribute_error(rc: Client) -> None:
    ar = rc[0].apply_async(add, 1)
    with pytest.raises(AttributeError, match="'AsyncResult' object has no attribute 'stduot'"):
        ar.stduot  # noqa: B018
    assert {"stdout", "get", "engine_id"} <= set(dir(ar))


# ---------------------------------------------------------------- Future, asyncio, callbacks


def test_it_is_a_future(view: DirectView, link: FakeLink) -> None:
    link.pause()
    ars = [view.apply_async(add, i) for i in range(3)]
    assert all(isinstance(ar, concurrent.futures.Future) for ar in ars)
    assert concurrent.futures.wait(ars, timeout=0).not_done == set(ars)
    worker = threading.Thread(target=link.run_all)
    worker.start()
    assert {ar.result()[0] for ar in concurrent.futures.as_completed(ars, timeout=10)} == {0, 1, 2}
    worker.join()


def test_callbacks_may_call_get(rc: Client, link: FakeLink) -> None:
    link.pause()
    seen: list[Any] = []
    good, bad = rc[0].apply_async(add, 1), rc[0].apply_async(fail)
    good.add_done_callback(lambda ar: seen.append(ar.get()))
    bad.add_done_callback(lambda ar: seen.append(ar.exception().ename))
    link.run_all()
    assert seen == [1, "ValueError"]
    good.add_done_callback(lambda ar: seen.append("late"))
    assert seen[-1] == "late"


def test_it_can_be_awaited(view: DirectView, link: FakeLink) -> None:
    link.pause()

    async def main() -> Any:
        good, bad = view.apply_async(add, 1), view.apply_async(fail)
        worker = asyncio.to_thread(link.run_all)
        results = await asyncio.gather(good, bad, worker, return_exceptions=True)
        return results[:2]

    good, bad = asyncio.run(main())
    assert good == [1] * 4
    assert isinstance(bad, CompositeError)


def test_ctrl_c_in_get_leaves_everything_usable(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[0].apply_async(add, 1)
    link.interrupts = 1
    with pytest.raises(KeyboardInterrupt):
        ar.get()
    link.resume()
    assert ar.get() == 1
    assert rc[:].apply_sync(add, 2) == [2] * 4


# ---------------------------------------------------------------- giving up


def test_abort_drops_what_has_not_started(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[[0, 1]].apply_async(add, 1)
    link.step_engine(0)
    ar.abort()
    with pytest.raises(CompositeError, match=r"failed on 1 of 2 engines: TaskAborted.* on engine 1"):
        ar.get()
    one = rc[0].apply_async(add, 1)
    one.abort()
    with pytest.raises(TaskAborted, match=r"apply.add. was aborted before it started on engine 0"):
        one.get()
    assert one.status == "aborted"
    with pytest.raises(RuntimeError, match="has finished"):
        one.abort()


def test_cancel_gives_the_result_up(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[0].apply_async(add, 1)
    assert ar.cancel() is True
    assert ar.cancelled() and ar.done()
    with pytest.raises(concurrent.futures.CancelledError):
        ar.get()
    assert "cancelled" in repr(ar)
    assert link.open == 0
    link.resume()
    finished = rc[0].apply_async(add, 1)
    finished.wait()
    assert finished.cancel() is False and not finished.cancelled()
    assert finished.get() == 1


def test_cancelling_an_awaiting_task_cancels_the_call(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[0].apply_async(add, 1)

    async def main() -> None:
        async def waiting() -> Any:
            return await ar

        task = asyncio.ensure_future(waiting())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ar.cancelled() and link.open == 0


# ---------------------------------------------------------------- what it tells


def test_metadata_of_one_and_of_several(rc: Client) -> None:
    before = datetime.now(timezone.utc)
    one, several = rc[0].apply_async(add, 1), rc[:].apply_async(add, 1)
    assert one.metadata["status"] is None and one.metadata["completed"] is None
    assert one.metadata["submitted"] is not None
    several.wait()
    told = one.metadata
    assert told["status"] == "ok" and told["engine_id"] == 0 and told.engine_uuid == one.engine_uuid
    assert before <= told["submitted"] <= told["started"] <= told["completed"] <= told["received"]
    assert [each["engine_id"] for each in several.metadata] == [0, 1, 2, 3]
    assert several.msg_ids == [each["msg_id"] for each in several.metadata]
    assert len(set(several.msg_ids)) == 4


def test_output_is_kept_apart_and_is_there_while_the_call_runs(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[0].execute("import sys; print('end'); print('oops', file=sys.stderr)")
    link.prints(0, "begin\n")
    assert (ar.stdout, ar.stderr) == ("begin\n", "")
    link.resume()
    ar.get()
    assert (ar.stdout, ar.stderr) == ("begin\nend\n", "oops\n")
    assert ar.wait_for_output() is True


def test_times(view: DirectView, link: FakeLink) -> None:
    link.pause()
    ar = view.apply_async(add, 1)
    assert ar.progress == 0 and ar.elapsed >= 0
    for name in ("wall_time", "serial_time"):
        with pytest.raises(TimeoutError):
            getattr(ar, name)
    link.step_engine(2)
    assert ar.progress == 1
    link.resume()
    ar.wait()
    assert ar.progress == 4
    assert 0 < ar.serial_time <= ar.wall_time
    assert ar.elapsed == ar.wall_time
    assert ar.wall_time == pytest.approx(ar.timedelta(ar.submitted, ar.received), abs=1e-4)
    assert ar.timedelta(ar.started[0], ar.started[0]) == 0


def test_labels_travel(rc: Client, link: FakeLink) -> None:
    view = rc.direct_view([0, 1], label="mine")
    assert view.apply_async(add, 1).label == ["mine", "mine"]
    assert link.sent[-1].label == "mine"
    assert rc[0].execute("1", label="other").label == "other"
    assert rc[0].apply_async(add, 1).label is None


def test_sending_is_done_when_the_call_returns(rc: Client) -> None:
    ar = rc[0].apply_async(add, 1)
    assert ar.sent is True and ar.wait_for_send(0) is True


# ---------------------------------------------------------------- memory


def test_dropped_results_leave_nothing_behind(rc: Client) -> None:
    ars = [rc[0].apply_async(bytes, 100_000) for _ in range(3)]
    rc.wait(ars)
    watched = [weakref.ref(ar) for ar in ars] + [weakref.ref(ar.seats[0][0]) for ar in ars]
    gc.disable()
    try:
        del ars
        assert [ref() for ref in watched] == [None] * 6
    finally:
        gc.enable()


def test_a_result_that_is_dropped_while_it_is_pending_still_calls_back(rc: Client, link: FakeLink) -> None:
    link.pause()
    called = threading.Event()
    rc[0].apply_async(add, 1).add_done_callback(lambda _: called.set())
    gc.collect()
    link.run_all()
    assert called.is_set()


def test_waiting_is_bounded_by_the_timeout(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar = rc[0].apply_async(add, 1)
    begun = time.monotonic()
    assert ar.wait(0.05) is False
    assert 0.04 < time.monotonic() - begun < 2
