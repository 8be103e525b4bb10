"""Bulk data by MPI is what it is by the controller; reductions; who carries what, and what if it cannot."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hpcremote
from hpcremote import error
from tests.integration.support import PATIENCE, Notebook, Running

pytestmark = pytest.mark.mpi

VIAS = ("mpi", "controller")
MANY_EXAMPLES = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
STRUCTURED = np.dtype([("n", "i4"), ("s", "U3"), ("v", "f8", 2)])


@pytest.fixture
def view(rc4: hpcremote.Client) -> hpcremote.DirectView:
    view = rc4[:]
    view.block = True
    return view


@pytest.fixture(scope="module")
def far(session_home: Path) -> Iterator[Running]:
    """Two ranks that share no memory with their client, as on another machine."""
    with Running(n=2, profile="mpi", ipc=False, shm=False) as running:
        yield running


def facts(item: Any) -> Any:
    """What has to be the same, whoever carried it."""
    if isinstance(item, np.ndarray):
        flags = item.flags
        return (
            type(item).__name__, item.dtype.str, item.dtype.descr, item.shape, flags.c_contiguous,
            flags.f_contiguous, flags.writeable, flags.aligned,
            item.tolist() if item.dtype.hasobject else item.tobytes(),
        )  # fmt: skip
    if isinstance(item, np.generic):
        return item.dtype, item.tobytes()
    if isinstance(item, (list, tuple)):
        return type(item), [facts(one) for one in item]
    return item


def arrays() -> st.SearchStrategy[np.ndarray]:
    shapes = st.lists(st.sampled_from([0, 1, 3, 4, 7, 30, 90]), min_size=1, max_size=3)
    dtypes = st.sampled_from(["u1", "f8", ">i4", "c16", "?", "M8[s]", "U5", "O", STRUCTURED])
    return st.builds(array_of, shapes, dtypes, st.sampled_from("CF"), st.booleans())


def array_of(shape: list[int], dtype: Any, order: str, strided: bool) -> np.ndarray:
    count = int(np.prod(shape))
    if dtype == STRUCTURED:
        flat = np.zeros(count, dtype)
        flat["n"] = np.arange(count)
    else:
        flat = np.arange(count).astype(dtype)
    array = np.array(flat.reshape(shape), order=order)  # type: ignore[call-overload]
    return array[::-1] if strided else array


# ---------------------------------------------------------------- equal, by either way


@MANY_EXAMPLES
@given(array=arrays(), dist=st.sampled_from("br"), flatten=st.booleans())
def test_scattered_parts_are_the_same(
    view: hpcremote.DirectView, array: np.ndarray, dist: str, flatten: bool
) -> None:
    parts, joined = [], []
    for via in VIAS:
        view.scatter("part", array, dist=dist, flatten=flatten, via=via)
        for back in VIAS:
            parts.append(facts(view.pull("part", via=back)))
            joined.append(facts(view.gather("part", dist=dist, via=back)) if not flatten else None)
    assert parts[1:] == parts[:-1]
    assert joined[1:] == joined[:-1]


LARGE: dict[str, Callable[[], Any]] = {
    "blocks": lambda: np.arange(500_003.0),
    "rows": lambda: np.arange(900_000, dtype=">i4").reshape(9, 100_000),
    "Fortran": lambda: np.asfortranarray(np.arange(800_000.0).reshape(400, 2000)),
    "read-only": lambda: np.broadcast_to(np.arange(400_000.0), (5, 400_000)),
    "list": lambda: list(range(300_000)),
    "list of arrays": lambda: [np.arange(50_000) + i for i in range(7)],
    "bytes": lambda: b"0123456789" * 100_000,
    "fewer than engines": lambda: [np.arange(200_000), "text"],
}


@pytest.mark.openmpi
@pytest.mark.parametrize("dist", ["b", "r"])
@pytest.mark.parametrize("kind", LARGE)
def test_large_things_are_scattered_and_gathered(view: hpcremote.DirectView, kind: str, dist: str) -> None:
    whole = LARGE[kind]()
    came = {}
    for via in VIAS:
        view.scatter("part", whole, dist=dist, via=via)
        came[via] = facts(view.pull("part", via=via)), facts(view.gather("part", dist=dist, via=via))
    assert came["mpi"] == came["controller"]


@pytest.mark.parametrize("via", VIAS)
def test_pushed_objects_are_everybodys_own(view: hpcremote.DirectView, via: str) -> None:
    big = np.asfortranarray(np.arange(600_000.0).reshape(600, 1000))
    assert view.push({"big": big, "more": {"x": [big[:10], "y"]}, "n": 5}, via=via) == [None] * 4

    view.execute("big[0, 0] += 1")
    said = "(big[0, 0], big.flags.f_contiguous, more['x'][0].sum(), n)"
    assert view.pull(said) == [(1.0, True, big[:10].sum(), 5)] * 4


def test_functions_find_themselves_at_home(view: hpcremote.DirectView, notebook: Notebook) -> None:
    notebook("""
        factor = 3
        def helper(x): return x + offset
        def times(x): return helper(x) * 2
    """)
    view.push({"offset": 1})
    view.push({"times": notebook.times}, via="mpi")
    assert view.pull("times(5)", via="mpi") == [12] * 4
    assert view.bcast_from(2, "times") == [None] * 4


def test_several_names_at_once(view: hpcremote.DirectView) -> None:
    view.scatter("a", np.arange(400_000), via="mpi")
    view.push({"b": "text"}, via="mpi")
    pulled = [view.pull(["a", "b", "len(a) + 1"], via=via) for via in VIAS]
    assert facts(pulled[0]) == facts(pulled[1])
    assert pulled[0][0][2] == 100_001


@pytest.mark.parametrize("ids", [[3, 1], [2, 0, 1], [2]])
def test_any_engines_in_any_order(rc4: hpcremote.Client, ids: list[int]) -> None:
    some = rc4[ids]
    some.block = True
    some.scatter("part", np.arange(300_000), via="mpi")
    assert [len(part) for part in some.pull("part", via="mpi")] == [300_000 // len(ids)] * len(ids)
    assert some.gather("part", via="mpi").tolist() == list(range(300_000))
    assert rc4[ids[0]].pull("part[0]", block=True, via="mpi") == 0
    assert some.reduce("len(part)") == 300_000


def test_more_than_one_operation_can_carry(view: hpcremote.DirectView) -> None:
    """Whatever MPI counts with, what is larger goes in several turns (here: of 100 kB)."""

    def limit(most: int) -> None:
        from hpcremote.engine import carry, reduction

        carry.MOST = reduction.MOST = most

    whole = np.arange(300_007.0)
    view.apply(limit, 100_000)
    try:
        view.push({"whole": whole}, via="mpi")
        view.scatter("part", whole, via="mpi")
        assert view.pull("whole.sum()") == [whole.sum()] * 4
        assert np.array_equal(view.gather("part", via="mpi"), whole)
        assert np.array_equal(view.reduce("whole"), 4 * whole)
    finally:
        view.apply(limit, 1 << 30)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_more_than_two_gigabytes_by_mpi(start: Callable[..., Running]) -> None:
    """From the client to all engines and back; more in ranks: tests/engine/test_bulk.py."""
    size = 2200 << 20
    need = 5 * size  # in the client, in shared memory, in engines
    if psutil.virtual_memory().available < need:
        pytest.skip(f"needs {need >> 30} GiB of memory")
    marks = np.array([0, (1 << 30) - 1, 1 << 30, size // 2, (1 << 31) - 1, 1 << 31, size - 1])
    view = start(n=2, profile="mpi").rc[:]
    view.block = True
    item = np.zeros(size, "u1")
    item[marks] = range(1, 8)
    view.push({"marks": marks, "item": item}, via="mpi")
    del item
    assert view.pull("(item.nbytes, item[marks].tolist())") == [(size, [1, 2, 3, 4, 5, 6, 7])] * 2
    for engine, half in enumerate(("item[: len(item) // 2]", "item[len(item) // 2 :]")):
        view.client[engine].execute(f"part, item = {half}, None", block=True)
    came = view.gather("part", via="mpi")
    assert came.nbytes == size
    assert came[marks].tolist() == [1, 2, 3, 4, 5, 6, 7]


# ---------------------------------------------------------------- reductions


@pytest.mark.openmpi
@pytest.mark.parametrize("via", [None, *VIAS])
def test_reduce(view: hpcremote.DirectView, notebook: Notebook, via: str | None) -> None:
    notebook("""
        def least(): return float(x.min())
        def first(): return f"{x[0]:.0f},"
        def joined(a, b): return a + b
    """)
    view.scatter("x", np.arange(400_000.0))
    view.push({"grid": np.asfortranarray(np.ones((300, 400)))})
    reduce = functools.partial(view.reduce, via=via)
    assert reduce("x.sum()") == np.arange(400_000.0).sum()
    assert reduce("x", "max").tolist() == list(range(300_000, 400_000))
    assert reduce(notebook.least, "MIN") == 0.0
    assert reduce(lambda a, b=0: [a + b], args=(1,), kwargs={"b": 2}) == [3] * 4
    assert reduce(notebook.first, notebook.joined) == "0,100000,200000,300000,"
    total = reduce("grid", operator.add)
    assert facts(total) == facts(np.asfortranarray(np.full((300, 400), 4.0)))
    total[0, 0] = 5


def test_reduce_with_what_the_user_has_typed(view: hpcremote.DirectView, notebook: Notebook) -> None:
    notebook("""
        class Longest:
            def __init__(self, text): self.text = text
        def pick(a, b): return a if len(a.text) >= len(b.text) else b
        def join(a, b): return pick(a, b)
        def mine(): return Longest("x" * (5 - len(part)))
    """)
    view.scatter("part", [1, 2, 3, 4, 5])
    for via in VIAS:
        assert view.reduce(notebook.mine, notebook.join, via=via).text == "xxxx"


@pytest.mark.parametrize("via", VIAS)
def test_allreduce_leaves_it_there(view: hpcremote.DirectView, via: str) -> None:
    assert view.allreduce(lambda: np.ones(200_000), "sum", "total", via=via) == [None] * 4
    assert view.pull("(len(total), total[0], total.flags.writeable)") == [(200_000, 4.0, True)] * 4
    assert view.allreduce(lambda: 2, "prod", via=via) == 16


@pytest.mark.parametrize("via", VIAS)
def test_bcast_from_an_engine(rc4: hpcremote.Client, via: str) -> None:
    view = rc4[[0, 3, 1]]
    rc4[3].push({"found": np.arange(300_000)}, block=True)
    assert view.bcast_from(3, "found", block=True, via=via) == [None] * 3
    assert view.get("found[-1]") == [299_999] * 3
    with pytest.raises(ValueError, match="engine 2 is not among those of this view"):
        view.bcast_from(2, "found", via=via)


# ---------------------------------------------------------------- failures


def test_a_name_that_one_lacks(rc4: hpcremote.Client) -> None:
    """Others are not kept waiting, and their values are there."""
    view = rc4[:]
    rc4[[0, 1, 3]].push({"x": np.arange(300_000)}, block=True)
    for ar in (view.pull("x", via="mpi"), view.gather("x", via="mpi")):
        with pytest.raises(error.CompositeError, match="failed on 1 of 4 engines: NameError") as caught:
            ar.get(PATIENCE)
        assert [one.engine_info["engine_id"] for one in caught.value.errors] == [2]
        assert ar.status == ["ok", "ok", "error", "ok"]
    values = view.pull("x", via="mpi").get(return_exceptions=True)
    assert [len(values[i]) for i in (0, 1, 3)] == [300_000] * 3
    for ar in (view.reduce("x"), view.bcast_from(2, "x")):
        with pytest.raises(error.CompositeError, match="failed on 1 of 4 engines: NameError"):
            ar.get(PATIENCE)
    assert view.reduce(lambda: 1, block=True) == 4


def test_what_cannot_be_unpickled_fails_everywhere(view: hpcremote.DirectView) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return int, ("no number",)

    for via in VIAS:
        with pytest.raises(error.CompositeError, match="failed on 4 of 4 engines: ValueError"):
            view.push({"bad": Bad(), "more": bytes(2_000_000)}, via=via)


def test_wrong_words(view: hpcremote.DirectView) -> None:
    with pytest.raises(ValueError, match="via is 'mpi', 'controller' or None, not 'post'"):
        view.push({"a": 1}, via="post")
    with pytest.raises(ValueError, match="no reduction is called 'summ'"):
        view.reduce("a", "summ")
    with pytest.raises(TypeError, match="with a name or with a function of two values, not 5"):
        view.reduce("a", 5)
    with pytest.raises(TypeError, match="under the name 'a' is not called"):
        view.reduce("a", args=(1,))


# ---------------------------------------------------------------- results


def test_results_are_as_ever(rc4: hpcremote.Client) -> None:
    view = rc4[:]
    view.scatter("x", np.arange(400_000), via="mpi").get(PATIENCE)
    ar = view.pull("x", via="mpi")
    assert [len(part) for part in ar] == [100_000] * 4
    assert ar.ready()
    assert ar.successful()
    assert ar.carrier == "mpi"
    assert [each["carrier"] for each in ar.metadata] == ["mpi"] * len(ar)
    assert list(ar.get_dict()) == [0, 1, 2, 3]
    assert ar.engine_id == [0, 1, 2, 3]
    assert [len(one.get(PATIENCE)) for one in ar.split()] == [100_000] * 4
    assert len(rc4.get_result(ar.msg_ids[2]).get(PATIENCE)) == 100_000
    last = view.pull("x", via="mpi")
    assert last.value_at(last.seats[3])[-1] == 399_999
    assert list(view.gather("x", via="mpi"))[:2] == [0, 1]


# ---------------------------------------------------------------- who carries it


def test_memory_in_common_is_faster(rc4: hpcremote.Client) -> None:
    pushed = rc4[:].push({"a": bytes(5_000_000)})
    assert (pushed.carrier, pushed["carrier"]) == ("controller", ["controller"] * 4)
    assert rc4[:].scatter("a", bytes(5_000_000)).carrier == "controller"
    assert rc4[:].reduce(lambda: 1).carrier == "mpi"
    assert rc4[0].reduce(lambda: 1).carrier == "controller"


def test_far_engines_get_it_by_mpi(far: Running) -> None:
    view = far.rc[:]
    assert view.push({"a": bytes(5_000_000)}).carrier == "mpi"
    assert view.push({"b": b"few"}).carrier == "controller"
    assert view.scatter("c", bytes(5_000_000)).carrier == "controller"
    assert far.rc[1].push({"a": bytes(5_000_001)}).carrier == "controller"
    assert view.get("len(a)") == [5_000_000, 5_000_001]
    for via in VIAS:
        view.scatter("d", np.arange(500_000), via=via).get(PATIENCE)
        assert view.gather("d", via=via).get(PATIENCE).tolist() == list(range(500_000))
        assert view.gather("d[::-1]", via=via).get(PATIENCE)[0] == 249_999


def peak(process: psutil.Process) -> int:
    """Return the most bytes that it has had in memory at a time since :func:`forget_peak`."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget_peak(process: psutil.Process) -> int:
    """Begin anew; return what it has now."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return peak(process)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part", "part[1:]"])
def test_what_is_gathered_by_mpi_is_there_once(far: Running, name: str) -> None:
    view = far.rc[:]
    size = 192 << 20
    view.execute(f"import numpy; part = numpy.full({size // 16}, 7.0)", block=True)
    looked_at = [psutil.Process(), far.controller]
    before = [forget_peak(process) for process in looked_at]
    whole = view.gather(name, via="mpi").get(4 * PATIENCE)
    grown = [peak(process) - had for process, had in zip(looked_at, before, strict=True)]
    view.execute("part = None", block=True)
    assert whole.flags.writeable and whole.flags.aligned and whole.flags.c_contiguous
    assert (whole == 7).all() and len(whole) == size // 8 - 2 * (name != "part")
    assert max(grown) < 1.5 * size, [f"{had >> 20} MiB" for had in grown]


def test_one_at_work_does_not_hold_up_the_others(far: Running, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    busy = far.rc[1].apply_async(lambda path: open(path).close(), str(gate))
    pushed = far.rc[:].push({"a": bytes(3_000_000)})
    assert pushed.carrier == "controller"
    assert far.rc[0].get("len(a)") == 3_000_000
    with open(gate, "w"):
        busy.get(PATIENCE)
    pushed.get(PATIENCE)
    assert far.rc[:].push({"a": bytes(3_000_000)}).carrier == "mpi"


def test_engines_without_mpi(start: Callable[..., Running]) -> None:
    view = start(n=2, profile="local").rc[:]
    view.block = True
    with pytest.raises(error.HPCRemoteError, match="MPI"):
        view.push({"a": 1}, via="mpi")
    view.scatter("x", [1, 2, 3])
    assert view.reduce("x") == [1, 2, 3]
    assert view.reduce("len(x)", "max") == 2
    assert view.reduce(lambda: 1, block=False).carrier == "controller"
    view.allreduce("len(x)", "sum", "n")
    view.bcast_from(1, "x")
    assert view["n"] == [3, 3]
    assert view["x"] == [[3], [3]]
