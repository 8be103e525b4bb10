from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcremote.client.client import Client
from hpcremote.client.view import DirectView
from hpcremote.errors import CompositeError, NoEnginesRegistered, PayloadError, RemoteError
from hpcremote.wire.depend import Reference
from tests.client.support import FakeLink, cluster


def add(a: int, b: int = 0) -> int:
    return a + b


# ---------------------------------------------------------------- flags and targets


def test_a_view_is_described_by_its_targets(rc: Client) -> None:
    assert repr(rc[0]) == "<DirectView 0>"
    assert repr(rc[::2]) == "<DirectView [0, 2]>"
    assert repr(rc.direct_view()) == "<DirectView all>"
    assert repr(cluster(40).client[:]) == "<DirectView [0, 1, 2, 3, 4, 5, 6...]>"
    assert [len(rc[0]), len(rc[1:3]), len(rc.direct_view())] == [1, 2, 4]
    assert bool(rc[[]]) is True


def test_all_is_looked_up_at_every_call(rc: Client, link: FakeLink) -> None:
    lazy, frozen = rc.direct_view("all"), rc[:]
    link.add_engines(2)
    assert lazy.targets == "all" and frozen.targets == [0, 1, 2, 3]
    assert len(lazy) == 6 and len(lazy.apply_sync(add, 1)) == 6
    assert len(frozen.apply_sync(add, 1)) == 4


def test_flags(rc: Client) -> None:
    view = rc[:]
    assert (view.block, view.track, view.label) == (False, False, None)
    assert view.set_flags(block=True, label="x") is view
    assert view.apply(add, 1) == [1] * 4
    with view.temp_flags(block=False, targets=[0]):
        assert view.apply(add, 1).get() == [1]
    assert (view.block, view.targets) == (True, [0, 1, 2, 3])
    for change in (view.set_flags, view.temp_flags):
        with pytest.raises(KeyError, match="no flag 'blok'; did you mean 'block'"):
            with_flags = change(blok=True)
            with with_flags:  # type: ignore[union-attr]
                pass
    view.targets = 2
    assert view.apply(add, 1) == 1


def test_flags_come_back_after_an_error(rc: Client) -> None:
    view = rc[0]
    with pytest.raises(RemoteError), view.temp_flags(block=True):
        view.execute("1/0")
    assert view.block is False


def test_blocking_is_the_clients_choice_at_first(rc: Client) -> None:
    rc.block = True
    assert rc[0].apply(add, 1) == 1
    assert rc.direct_view(0, block=False).apply(add, 1).get() == 1


def test_one_call_is_one_message(view: DirectView, link: FakeLink) -> None:
    view.apply_sync(add, 1)
    view.push({"a": 1}, block=True)
    view.scatter("s", range(9), block=True)
    view.gather("s", block=True)
    view.map_sync(add, range(9))
    assert [(sent.op, sent.targets, sent.parts) for sent in link.sent] == [
        ("apply", [0, 1, 2, 3], 1),
        ("push", [0, 1, 2, 3], 1),
        ("push", [0, 1, 2, 3], 4),
        ("pull", [0, 1, 2, 3], 1),
        ("apply", [0, 1, 2, 3], 4),
    ]


# ---------------------------------------------------------------- apply


def test_keywords_named_like_our_own_reach_the_function(rc: Client) -> None:
    view = rc[0]

    def names(**kwargs: Any) -> list[str]:
        return sorted(kwargs)

    assert view.apply_sync(names, f=1, self=2, block=3, targets=4, args=5) == [
        "args", "block", "f", "self", "targets",
    ]  # fmt: skip


def test_globals_are_the_engines(rc: Client) -> None:
    e0 = rc[0]
    e0.block = True
    e0["a"] = 10
    e0.execute("def mul_by_a(b): return a * b\ndef inc_a(n):\n    global a\n    a += n")
    assert e0.apply(Reference("mul_by_a"), 2) == 20
    e0.apply(Reference("inc_a"), 5)
    assert e0["a"] == 15
    assert e0.apply(add, Reference("a"), b=Reference("a * 2")) == 45


def test_arrays_arrive_writable(rc: Client) -> None:
    big = np.arange(100_000.0).reshape(100, 1000, order="F")

    def double(x: Any) -> Any:
        x *= 2
        return x

    result = rc[0].apply_sync(double, big)
    assert np.array_equal(result, big * 2) and result.flags.writeable and result.flags.f_contiguous


def test_what_cannot_be_pickled_is_named_before_anything_is_sent(view: DirectView, link: FakeLink) -> None:
    with pytest.raises(PayloadError, match="argument 2 of add"):
        view.apply(add, 1, threading.Lock())
    with pytest.raises(PayloadError, match="push of f"):
        view["f"] = sys._getframe()
    assert link.sent == []


def test_what_is_no_function_is_refused(view: DirectView, link: FakeLink) -> None:
    with pytest.raises(TypeError, match=r"not str 'x = 1'; for source code there is execute"):
        view.apply("x = 1")
    with pytest.raises(TypeError, match="a function to call, not int 5"):
        view.map(5, [1])  # type: ignore[arg-type]
    assert link.sent == []


def test_what_belongs_to_the_client_stays_there(rc: Client) -> None:
    view = rc[0]
    for mine, message in ((view, "a view"), (rc, "a Client"), (view.apply_async(add, 1), "an AsyncResult")):
        with pytest.raises(PayloadError, match=f"argument 1 of len.*{message} cannot be pickled"):
            view.apply(len, mine)


def test_what_the_engine_cannot_send_back_is_an_error(rc: Client) -> None:
    with pytest.raises((PayloadError, RemoteError), match="result"):
        rc[0].apply_sync(lambda: (i for i in ()))


# ---------------------------------------------------------------- execute, run


def test_execute_and_run(rc: Client, tmp_path: Path) -> None:
    e0 = rc[0]
    e0.block = True
    script = tmp_path / "myscript.py"
    script.write_text("import math\na = 5\ndef mysquare(x):\n    return x * x\n", "utf-8")
    e0.run(script)
    e0.execute("b = mysquare(a)")
    assert (e0["a"], e0["b"]) == (5, 25)
    with pytest.raises(FileNotFoundError, match=r"absent\.py"):
        e0.run(tmp_path / "absent.py")
    with pytest.raises(RemoteError, match="SyntaxError"):
        e0.execute("for")
    with pytest.raises(TypeError, match="source code"):
        e0.execute(add)  # type: ignore[arg-type]


def test_a_failing_script_shows_its_own_lines(rc: Client, tmp_path: Path) -> None:
    script = tmp_path / "bad.py"
    script.write_text("# -*- coding: latin-1 -*-\nx = 'caf\xe9'\nraise OSError(x)  # here\n", "latin-1")
    with pytest.raises(RemoteError, match=r"raise OSError.x.  # here") as caught:
        rc[0].run(str(script), block=True)
    assert "bad.py" in str(caught.value) and "caf\xe9" in str(caught.value)


def test_execute_returns_what_was_printed(rc: Client) -> None:
    ar = rc[:2].execute("print('hello')", block=True)
    assert ar.stdout == ["hello\n"] * 2


# ---------------------------------------------------------------- push, pull


def test_push_and_pull(rc: Client) -> None:
    e0 = rc[0]
    assert e0.push({"a": 1.03234, "b": 3453}, block=True) is None
    assert e0.pull("a", block=True) == 1.03234
    assert e0.pull(("a", "b"), block=True) == [1.03234, 3453]
    ar = e0.pull("a", block=False)
    assert ar.get() == 1.03234
    e0.update({"c": "speed"})
    assert e0.get("c") == "speed"
    assert e0.get(["b", "c"]) == [3453, "speed"]
    assert e0["b + 1"] == 3454


def test_the_dictionary_interface(view: DirectView) -> None:
    view["a"] = ["foo", "bar"]
    assert view["a"] == [["foo", "bar"]] * 4
    view["a[0]"] = 1
    assert view["a"] == [[1, "bar"]] * 4
    with pytest.raises(CompositeError, match="NameError"):
        view["nothing"]
    with pytest.raises(TypeError, match="not iterable"):
        iter(view)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda view: view.push([1]), "dictionary"),
        (lambda view: view.push({1: 2}), "strings, not 1"),
        (lambda view: view.pull(3), "not 3"),
        (lambda view: view.pull([3]), "not 3"),
        (lambda view: view[0], "not 0"),
        (lambda view: view.gather(3), "not 3"),
    ],
)
def test_names_are_strings(view: DirectView, attempt: Callable[[DirectView], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        attempt(view)


def test_an_assignment_that_fails_is_not_silent(rc: Client, link: FakeLink) -> None:
    link.pause()
    rc[0]["1 = 2"] = 3
    with pytest.warns(RuntimeWarning, match=r"view\['1 = 2'\] = ... failed"):
        link.run_all()


def test_targets_of_one_call(rc: Client) -> None:
    view = rc[:]
    view.push({"x": 1}, targets=[1, 2], block=True)
    assert view.pull("x", targets=2, block=True) == 1
    assert view.pull("x", targets=[1], block=True) == [1]
    with pytest.raises(RemoteError, match="NameError"):
        view.pull("x", targets=0, block=True)
    with pytest.raises(IndexError, match="no engine 9; there are: 0, 1, 2, 3"):
        view.execute("1", targets=9)


def test_clear(view: DirectView) -> None:
    view.push({"x": 1}, block=True)
    assert view.clear(block=True) is None
    with pytest.raises(CompositeError):
        view["x"]
    cleared = view.clear()
    assert cleared is not None and cleared.get() == [None] * 4


# ---------------------------------------------------------------- scatter, gather


@settings(max_examples=40, deadline=None)
@given(length=st.integers(0, 13), size=st.integers(1, 5), dist=st.sampled_from("br"))
def test_what_is_scattered_is_gathered(length: int, size: int, dist: str) -> None:
    view = cluster(size).client[:]
    view.block = True
    for items in (list(range(length)), np.arange(length, dtype="i2"), np.zeros((length, 3), "f4,i8")):
        assert view.scatter("x", items, dist=dist) is None
        gathered = view.gather("x", dist=dist)
        assert type(gathered) is type(items)
        assert np.array_equal(gathered, items)
        if isinstance(items, np.ndarray):
            assert gathered.dtype == items.dtype


def test_scatter_flattens_parts_of_one(view: DirectView) -> None:
    view.scatter("x", [5, 6, 7, 8], flatten=True)
    assert view["x"] == [5, 6, 7, 8]
    assert view.gather("x").get() == [5, 6, 7, 8]
    view.scatter("x", [5, 6, 7, 8, 9], flatten=True)
    assert view["x"] == [[5, 6], 7, 8, 9]


def test_scatter_takes_iterators_and_one_engine(rc: Client) -> None:
    ar = rc[0].scatter("x", (c for c in "abc"))
    assert ar is not None and ar.get() == [None]
    assert rc[0].gather("x", block=True) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="dist is"):
        rc[0].scatter("x", [1], dist="z")
    with pytest.raises(TypeError, match="a sequence or an iterator"):
        rc[0].scatter("x", 5)


def test_a_gather_can_be_iterated(view: DirectView) -> None:
    view.scatter("x", range(6))
    assert list(view.gather("x")) == list(range(6))
    view.scatter("x", range(6), dist="r")
    assert list(view.gather("x", dist="r")) == list(range(6))
    view["host"] = "node7"
    assert list(view.gather("host")) == view.gather("host").get() == ["node7"] * 4


# ---------------------------------------------------------------- map


@settings(max_examples=30, deadline=None)
@given(length=st.integers(0, 11), size=st.integers(1, 5))
def test_map_is_map(length: int, size: int) -> None:
    view = cluster(size).client[:]
    items = list(range(length))
    assert view.map_sync(lambda x: x * x, items) == [x * x for x in items]
    ar = view.map_async(lambda x: x + 1, iter(items))
    assert len(ar) == length
    assert list(ar) == ar.get() == [x + 1 for x in items]
    assert ar.progress == length


def test_map_ends_with_the_shortest(view: DirectView) -> None:
    assert view.map_sync(add, range(10), range(7)) == [2 * x for x in range(7)]
    assert view.map_sync(add, np.arange(6), [1, 2]) == [1, 3]


def test_map_reads_engine_globals(view: DirectView) -> None:
    view.execute("N = 10\ndef scaled(x): return x * N")
    assert view.map_sync(Reference("scaled"), range(6)) == [0, 10, 20, 30, 40, 50]


def test_map_uses_only_the_engines_it_needs(view: DirectView, link: FakeLink) -> None:
    assert view.map_sync(add, [1, 2]) == [1, 2]
    assert link.sent[-1].targets == [0, 1]
    count = len(link.sent)
    empty = view.map_async(add, [])
    assert empty.ready() and empty.get() == [] and list(empty) == [] and len(empty) == 0
    assert (empty.wall_time, empty.serial_time, empty.progress) == (0, 0, 0)
    assert empty.wait(return_when="ALL_COMPLETED") == (set(), set())
    assert len(link.sent) == count


def test_imap_yields_as_parts_arrive(view: DirectView, link: FakeLink) -> None:
    link.pause()
    items = view.imap(add, range(8))
    link.step_engine(0)
    assert [next(items), next(items)] == [0, 1]
    link.resume()
    assert list(items) == [2, 3, 4, 5, 6, 7]


def test_a_failing_map_says_where(view: DirectView) -> None:
    with pytest.raises(CompositeError, match=r"failed on 1 of 4 engines: ZeroDivisionError.* on engine 2"):
        view.map_sync(lambda x: 1 // (x - 4), range(8))


def test_map_refuses_what_it_cannot_take(view: DirectView) -> None:
    with pytest.raises(TypeError, match="at least one sequence"):
        view.map(add)
    with pytest.raises(TypeError, match="no argument 'block'"):
        view.map_async(add, [1], block=True)
    with pytest.raises(TypeError, match="no argument 'block'"):
        view.map_sync(add, [1], block=True)


def test_a_big_function_is_packed_once_for_all(view: DirectView, link: FakeLink) -> None:
    table = list(range(500))
    assert view.map_sync(lambda x: table[x], [3, 4]) == [3, 4]
    assert link.sent[-1].defined


# ---------------------------------------------------------------- the rest


def test_pickling_can_be_chosen(rc: Client) -> None:
    view = rc[0]
    view.block = True
    try:
        assert view.use_dill() is None
        assert view.apply(add, 1) == 1
        assert view.use_pickle() is None
    finally:
        view.use_cloudpickle()
    assert view.apply(lambda: 5) == 5


def test_a_views_own_calls(rc: Client, link: FakeLink) -> None:
    view, other = rc[:2], rc[2]
    other.apply_async(add, 1)
    ar = view.apply_async(add, 1)
    assert view.history == ar.msg_ids
    assert view.outstanding == set(ar.msg_ids)
    assert view.wait() is True
    assert view.outstanding == set()
    assert other.outstanding == set()
    assert view.get_result().get() == 1
    assert view.get_result([0, 1]).get() == [1, 1]
    assert view.results[ar.msg_ids[0]] == 1
    assert view.wait([0, 1]) is True and view.wait(ar) is True
    with pytest.raises(IndexError, match="2 entries, no number 7"):
        view.get_result(7)
    view.spin()
    link.pause()
    ar = view.apply_async(add, 1)
    kept = other.apply_async(add, 1)
    view.abort()
    assert ar.ready() and not kept.ready()
    view.purge_results(ar)


def test_a_view_without_engines(rc: Client) -> None:
    with pytest.raises(NoEnginesRegistered):
        rc[[]].apply_sync(add, 1)


def test_control_goes_to_the_views_engines(rc: Client, link: FakeLink) -> None:
    view = rc[1:3]
    assert set(view.queue_status()) == {1, 2, "unassigned"}
    view.shutdown()
    assert link.shut_down == [([1, 2], False)]
    assert rc.ids == [0, 3]


def test_magics_are_absent_and_say_so(view: DirectView) -> None:
    with pytest.raises(NotImplementedError, match=r"view\.execute"):
        view.activate()
