from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

import hpcremote
from hpcremote.client import client as client_module
from hpcremote.client.client import ABSENT, Client
from hpcremote.client.memory import RECENT
from hpcremote.client.view import DirectView
from hpcremote.errors import (
    ConnectionFileError,
    HPCRemoteError,
    NoEnginesRegistered,
    NotConnected,
    RemoteError,
    TaskAborted,
)
from tests.client.support import FakeLink, cluster


def add(a: int, b: int = 0) -> int:
    return a + b


# ---------------------------------------------------------------- engines and views


def test_engines_are_listed_counted_and_iterated(rc: Client) -> None:
    assert rc.ids == [0, 1, 2, 3]
    assert len(rc) == 4
    assert [view.targets for view in rc] == [0, 1, 2, 3]
    assert repr(rc) == "<Client of cluster fake: 4 engines>"
    rc.ids.append(9)
    assert rc.ids == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("key", "targets"),
    [
        (0, 0),
        (-1, 3),
        (-4, 0),
        (slice(None), [0, 1, 2, 3]),
        (slice(None, None, 2), [0, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([0, 2], [0, 2]),
        ((2, 0), [2, 0]),
        ([-1, 0], [3, 0]),
        (range(1, 3), [1, 2]),
    ],
)
def test_indexing_gives_views(rc: Client, key: Any, targets: Any) -> None:
    view = rc[key]
    assert isinstance(view, DirectView)
    assert view.targets == targets
    assert rc.direct_view(key).targets == targets


def test_numpy_integers_are_ids(rc: Client) -> None:
    numpy = pytest.importorskip("numpy")
    assert rc[numpy.int64(2)].targets == 2
    assert rc[list(numpy.arange(2))].targets == [0, 1]


@pytest.mark.parametrize("key", [4, -5, [0, 7]])
def test_an_engine_that_is_not_there_is_named(rc: Client, key: Any) -> None:
    with pytest.raises(IndexError, match=r"there is no engine (4|-5|7); there are: 0, 1, 2, 3"):
        rc[key]


@pytest.mark.parametrize("key", ["all", 1.5, None, {0}])
def test_what_names_no_engines_is_a_type_error(rc: Client, key: Any) -> None:
    with pytest.raises(TypeError, match="engines are named by"):
        rc[key]


def test_an_engine_is_in_a_view_once(rc: Client) -> None:
    with pytest.raises(ValueError, match="once"):
        rc[[1, 1]]


def test_ids_need_not_begin_at_zero(rc: Client, link: FakeLink) -> None:
    link.kill(0)
    assert rc.ids == [1, 2, 3]
    assert rc[-1].targets == 3 and rc[:1].targets == [1]
    assert [view.apply_sync(add, 1) for view in rc] == [1, 1, 1]


def test_without_engines_there_is_one_clear_error() -> None:
    rc = cluster(0).client
    for attempt in (lambda: rc[:], lambda: rc[0], lambda: rc.direct_view().apply_sync(abs, 1)):
        with pytest.raises(NoEnginesRegistered, match="wait_for_engines"):
            attempt()


def test_broadcast_view_is_a_view_of_those_there_are(rc: Client, link: FakeLink) -> None:
    view = rc.broadcast_view()
    link.add_engines(1)
    assert view.targets == [0, 1, 2, 3]
    assert rc.broadcast_view([0], is_coalescing=True).apply_sync(abs, -1) == [1]


@pytest.mark.parametrize("name", sorted(ABSENT))
def test_what_is_not_there_says_what_to_do_instead(rc: Client, name: str) -> None:
    assert not hasattr(rc, name)
    with pytest.raises(AttributeError, match=f"has no {name}: "):
        getattr(rc, name)


def test_info_is_a_table(rc: Client) -> None:
    table = rc.info()
    lines = str(table).splitlines()
    assert lines[0].split() == ["id", "set", "rank", "host", "pid", "cores", "state", "python", "mpi"]
    assert lines[2].split()[:6] == ["1", "0", "1/4", "node7", "1001", "idle"]
    assert table._repr_html_().count("<tr>") == 5


# ---------------------------------------------------------------- waiting for engines


def test_waiting_for_engines(rc: Client, link: FakeLink) -> None:
    assert rc.wait_for_engines(4) is None
    with pytest.raises(TimeoutError, match="4 of 6 engines"):
        rc.wait_for_engines(6, timeout=0.02)
    future = rc.wait_for_engines(6, block=False)
    assert future is not None and not future.done()
    link.add_engines(2)
    assert future.result(10) is None
    with pytest.raises(TypeError, match="how many"):
        rc.wait_for_engines()


def test_waiting_for_engines_with_progress(
    rc: Client, link: FakeLink, capsys: pytest.CaptureFixture[str]
) -> None:
    rc.wait_for_engines(4, interactive=True)
    assert capsys.readouterr().err == ""
    coming = threading.Timer(0.05, link.add_engines, [2])
    coming.start()
    rc.wait_for_engines(6, interactive=True, timeout=30)
    coming.join()
    assert "6/6" in capsys.readouterr().err
    with pytest.raises(TimeoutError):
        rc.wait_for_engines(7, interactive=True, timeout=0.05)
    assert "6/7" in capsys.readouterr().err


def test_waiting_for_engines_ends_with_the_controller(rc: Client, link: FakeLink) -> None:
    future = rc.wait_for_engines(5, block=False)
    assert future is not None
    link.lose(NotConnected("it went away"))
    with pytest.raises(NotConnected, match="went away"):
        future.result(10)


# ---------------------------------------------------------------- calls so far


def test_history_and_outstanding(rc: Client, link: FakeLink) -> None:
    link.pause()
    first, second = rc[:2].apply_async(add, 1), rc[3].apply_async(add, 2)
    assert rc.history == first.msg_ids + second.msg_ids
    assert rc.outstanding == set(rc.history)
    link.step_engine(0)
    assert rc.outstanding == {first.msg_ids[1], second.msg_ids[0]}
    link.resume()
    assert rc.wait() is True
    assert rc.outstanding == set()


def test_waiting_for_calls(rc: Client, link: FakeLink) -> None:
    assert rc.wait() is True
    link.pause()
    first, second = rc[0].apply_async(add, 1), rc[1].apply_async(add, 2)
    assert rc.wait(timeout=0) is False
    assert rc.wait(first, timeout=0.01) is False
    link.step_engine(0)
    for job in (first, first.msg_ids[0], 0, -2, [first, first.msg_ids[0]]):
        assert rc.wait(job, timeout=0) is True
    assert rc.wait([first, second], timeout=0) is False
    link.resume()
    assert rc.wait(["no_such_0", second]) is True


def test_waiting_for_futures_of_others(rc: Client) -> None:
    other: Future[None] = Future()
    assert rc.wait([other], timeout=0.01) is False
    later = threading.Timer(0.05, other.set_result, [None])
    later.start()
    assert rc.wait([other, rc[0].apply_async(add, 1)], timeout=30) is True
    later.join()


def test_get_result_finds_recent_calls(rc: Client) -> None:
    rc[:2].apply_sync(add, 5)
    rc[3].apply_sync(add, 6)
    last = rc.get_result()
    assert last.get() == 6 and last.engine_id == 3
    assert rc.get_result(0).get() == 5
    assert rc.get_result([0, -1]).get() == [5, 6]
    assert rc.get_result(rc.history[1]).metadata["engine_id"] == 1
    assert rc.get_result(last) is last
    assert rc.get_result(last, block=True).ready()
    with pytest.raises(IndexError, match="3 entries, no number 5"):
        rc.get_result(5)
    with pytest.raises(KeyError, match="no result for 'x'"):
        rc.get_result("x")
    with pytest.raises(TypeError, match="calls are named by"):
        rc.get_result(1.5)


def test_results_and_metadata_by_name(rc: Client, link: FakeLink) -> None:
    link.pause()
    ar, bad = rc[:2].apply_async(add, 5), rc[0].execute("1/0")
    link.step_engine(0)
    first, second = ar.msg_ids
    assert rc.results[first] == 5
    assert second not in rc.results and len(rc.results) == 1
    assert rc.metadata[first].status == "ok" and rc.metadata[second].status is None
    assert set(rc.metadata) == {first, second, *bad.msg_ids}
    link.resume()
    rc.wait()
    assert isinstance(rc.results[bad.msg_ids[0]], RemoteError)
    assert rc.result_status([first, second]) == {"completed": [first, second], "pending": []}
    assert rc.result_status(first, status_only=False)[first] == 5
    assert first in repr(rc.results)


def test_only_recent_and_small_results_are_kept(rc: Client) -> None:
    rc[0].apply_sync(bytes, 1_000_000)
    with pytest.raises(KeyError, match="no result for"):
        rc.get_result(-1)
    held = rc[0].apply_async(bytes, 1_000_000)
    assert len(rc.get_result(-1).get()) == len(held.get())
    first = rc[0].apply_async(add, 1).msg_ids[0]
    for _ in range(RECENT + 1):
        rc[0].apply_sync(add, 1)
    gc.collect()
    assert first not in rc.results
    assert len(rc.results) <= RECENT + 1


def test_purging(rc: Client, link: FakeLink) -> None:
    ar = rc[:2].apply_async(add, 1)
    rc.wait()
    first = ar.msg_ids[0]
    rc.purge_results(ar)
    assert first not in rc.results
    other = rc[3].apply_async(add, 1)
    rc.wait()
    rc.purge_results(targets=3)
    assert other.msg_ids[0] not in rc.results
    link.pause()
    pending = rc[0].apply_async(add, 1)
    for jobs in ("all", pending):
        with pytest.raises(RuntimeError, match="not finished"):
            rc.purge_local_results(jobs)
    link.resume()
    rc.purge_everything() if rc.wait() else None
    assert rc.history == [] and len(rc.results) == 0
    assert ar.get() == [1, 1]


# ---------------------------------------------------------------- control


def test_abort(rc: Client, link: FakeLink) -> None:
    link.pause()
    first, second, third = (rc[:2].apply_async(add, i) for i in range(3))
    rc.abort(first)
    assert first.ready() and not second.ready()
    rc.abort([second.msg_ids[0]])
    assert second.progress == 1
    rc.abort(targets=0)
    assert third.progress == 1
    rc.abort()
    assert rc.outstanding == set() and link.open == 0
    assert all(isinstance(error, TaskAborted) for error in first.get(return_exceptions=True))
    rc.abort()


def test_queue_status(rc: Client, link: FakeLink) -> None:
    link.pause()
    rc[0].apply_async(add, 1)
    status = rc.queue_status()
    assert status[0] == {"queue": 1, "completed": 0, "tasks": 0}
    assert status["unassigned"] == 0
    assert rc.queue_status(0)["queue"] == 1
    assert set(rc.queue_status([1, 2])) == {1, 2, "unassigned"}


def test_clear(rc: Client) -> None:
    rc[:].push({"x": 1}, block=True)
    rc.clear(targets=[0], block=True)
    assert rc[:].pull("'x' in globals()", block=True) == [False, True, True, True]
    rc.clear(block=True)
    assert rc[0].pull("'x' in globals()", block=True) is False


def test_shutdown(rc: Client, link: FakeLink) -> None:
    rc.shutdown([1], block=True)
    assert rc.ids == [0, 2, 3]
    with pytest.raises(NotImplementedError, match="restart"):
        rc.shutdown(restart=True)
    rc.shutdown(hub=True)
    assert link.shut_down == [([1], False), ([0, 2, 3], True)]
    assert link.lost is not None


def test_closing(rc: Client, link: FakeLink) -> None:
    with rc as same:
        assert same is rc
        link.pause()
        ar = rc[0].apply_async(add, 1)
    assert repr(rc) == "<Client of cluster fake: not connected>"
    with pytest.raises(NotConnected, match="closed"):
        ar.get()
    with pytest.raises(NotConnected):
        rc[:]
    rc.close()


def test_a_forgotten_client_closes_its_link() -> None:
    made = cluster(1)
    link, watched = made.link, weakref.ref(made.client)
    made.client[0].apply_sync(add, 1)
    del made
    gc.collect()
    assert watched() is None
    assert link.lost is not None


# ---------------------------------------------------------------- threads


def test_threads_share_a_client(rc: Client) -> None:
    sums: list[int] = []

    def work(number: int) -> None:
        sums.append(sum(rc[number % 4].apply_sync(add, i, number) for i in range(50)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(sums) == [sum(range(50)) + 50 * number for number in range(4)]


# ---------------------------------------------------------------- connecting


class Dialled(Exception):
    pass


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    def dial(connection: Any, *, timeout: float) -> None:
        raise Dialled(connection, timeout)

    monkeypatch.setattr(client_module, "Link", dial)


@pytest.mark.usefixtures("dialled")
def test_what_connects_to_what(tmp_path: Path) -> None:
    with pytest.raises(HPCRemoteError):
        Client(profile="no-such-profile-anywhere")
    with pytest.raises(ConnectionFileError, match=r"absent\.json"):
        Client(tmp_path / "absent.json")
    with pytest.raises(ConnectionFileError, match=r"absent\.json"):
        Client(url_file=str(tmp_path / "absent.json"))
    with pytest.raises(ConnectionFileError):
        Client({"cluster_id": "x"})
    with pytest.raises(TypeError, match="path or the contents"):
        Client(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no argument 'sshsever'"):
        Client(sshsever="login")


def test_the_package_offers_it() -> None:
    assert hpcremote.Client is Client
    assert hpcremote.error.RemoteError is RemoteError
