"""Objects on their way to MPI engines and back: equal, writable, in their order; by every road there is."""

from __future__ import annotations

import array
import collections
import datetime
import decimal
import fractions
import pathlib
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import psutil
import pytest

import hpcremote
from tests.integration.support import PATIENCE, Notebook, Running

pytestmark = pytest.mark.mpi

SHARED, SOCKET, TCP = {}, {"shm": False}, {"ipc": False, "shm": False}


@pytest.fixture(scope="module", params=[SHARED, SOCKET, TCP], ids=["shared-memory", "socket", "tcp-curve"])
def running(request: pytest.FixtureRequest, session_home: pathlib.Path) -> Iterator[Running]:
    """Two MPI ranks, reached in one of the three ways."""
    with Running(n=2, profile="mpi", **request.param) as running:
        address = running.rc.link.address
        assert address.startswith("tcp://" if request.param is TCP else "ipc://")
        assert bool(running.rc.link.welcome.shm) == (request.param is SHARED)
        yield running


@pytest.fixture
def rc(running: Running) -> hpcremote.Client:
    running.rc.clear(block=True)
    return running.rc


BASE = np.arange(24.0).reshape(2, 3, 4)
STRUCTURED = np.array(
    [(1, "a", [1.0, 2.0]), (2, "b", [3.0, 4.0])], dtype=[("n", "i4"), ("s", "U3"), ("v", "f8", 2)]
)
LARGE = np.arange(400_000.0).reshape(400, 1000)  # 3.2 MB: goes by shared memory where there is any


def frozen(item: np.ndarray) -> np.ndarray:
    item = item.copy(order="K")
    item.flags.writeable = False
    return item


ARRAYS: dict[str, Callable[[], np.ndarray]] = {
    "C": lambda: BASE,
    "Fortran": lambda: np.asfortranarray(BASE),
    "transposed": lambda: BASE.T,
    "strided": lambda: BASE[:, ::2, ::-1],
    "broadcast": lambda: np.broadcast_to(np.arange(4.0), (3, 4)),
    "read-only": lambda: frozen(BASE),
    "empty": lambda: np.empty((0, 3), "f4"),
    "empty-Fortran": lambda: np.empty((3, 0), order="F"),
    "scalar": lambda: np.array(3.5),
    "one": lambda: np.array([1], "i1"),
    "structured": lambda: STRUCTURED,
    "structured-part": lambda: STRUCTURED[["n", "v"]],
    "record": lambda: STRUCTURED.view(np.recarray),
    "bool": lambda: np.array([True, False]),
    "complex": lambda: BASE * 1j,
    "big-endian": lambda: BASE.astype(">f8"),
    "half": lambda: BASE.astype("f2"),
    "longdouble": lambda: BASE.astype(np.longdouble),
    "unsigned": lambda: BASE.astype("u1"),
    "datetime": lambda: np.array(["2024-01-01", "NaT"], "M8[us]"),
    "timedelta": lambda: np.array([1, 2], "m8[s]"),
    "text": lambda: np.array(["ä", "語"]),
    "bytes": lambda: np.array([b"a", b"bc"]),
    "object": lambda: np.array([1, "a", None, [2]], dtype=object),
    "matrix": lambda: np.ma.masked_greater(BASE, 5),
    "large": lambda: LARGE,
    "large-Fortran": lambda: np.asfortranarray(LARGE),
    "large-strided": lambda: np.arange(1_600_000.0).reshape(800, 2000)[::2, ::2],
    "large-read-only": lambda: frozen(LARGE),
    "large-structured": lambda: np.zeros(100_000, STRUCTURED.dtype),
}

LOOK = """
def look(item, other):
    import numpy
    return (
        numpy.array_equal(item, other) or numpy.array_equal(item.astype('U'), other.astype('U')),
        item.dtype == other.dtype, item.shape, item.flags.writeable,
        item.flags.c_contiguous, item.flags.f_contiguous, type(item).__name__,
    )
def give(item):
    return item
def change(item):
    item[...] = item[...]
    return item.flags.writeable
"""


def check(item: np.ndarray, came: np.ndarray) -> None:
    assert type(came) is type(item)
    assert came.dtype == item.dtype and came.shape == item.shape
    assert came.flags.writeable
    if item.size < 1000:
        assert repr(came.tolist()) == repr(item.tolist())
    else:
        assert came.tobytes() == item.tobytes()
    if item.flags.contiguous:
        assert came.flags.c_contiguous == item.flags.c_contiguous
    if item.flags.f_contiguous:
        assert came.flags.f_contiguous
    came[...] = came[...]


@pytest.mark.parametrize("kind", ARRAYS)
def test_an_array_there_and_back(rc: hpcremote.Client, notebook: Notebook, kind: str) -> None:
    item = ARRAYS[kind]()
    notebook(LOOK)
    check(item, rc[0].apply_async(notebook.give, item).get(PATIENCE))
    assert rc[1].apply_async(notebook.change, item).get(PATIENCE)  # writable there, too
    for came in rc[:].apply_async(notebook.give, item).get(PATIENCE):
        check(item, came)
    rc[:].push({"item": item}, block=True)
    check(item, rc[1]["item"])


def test_an_array_is_the_same_there(rc: hpcremote.Client, notebook: Notebook) -> None:
    notebook(LOOK)
    for item in (BASE, np.asfortranarray(LARGE), STRUCTURED, LARGE[:0]):
        rc[0].push({"other": item}, block=True)
        told = rc[0].apply_sync(notebook.look, item, hpcremote.Reference("other"))
        order = (item.flags.c_contiguous, item.flags.f_contiguous)
        assert told == (True, True, item.shape, True, *order, "ndarray")


def test_changing_what_came_changes_nothing_else(rc: hpcremote.Client, notebook: Notebook) -> None:
    notebook("def zero(item):\n    item[...] = 0\n    return item")
    item = LARGE.copy()
    first, second = rc[:].apply_async(notebook.zero, item).get(PATIENCE)
    assert item[-1, -1] == LARGE[-1, -1] and not first.any()
    first[...] = 1
    assert not second.any()
    rc[0]["kept"] = item
    assert rc[0]["kept"].sum() == item.sum()
    rc[0]["kept"][...] = 7  # ours, not the engine's
    assert rc[0]["kept"].sum() == item.sum()


def test_changing_what_was_sent_changes_nothing_there(rc: hpcremote.Client) -> None:
    for size in (100, 10_000, 400_000):
        item = np.ones(size)
        ars = [rc[:].push({f"x{count}": item}, block=False) for count in range(5)]
        item[...] = 0
        assert [ar.get(PATIENCE) for ar in ars]
        assert [rc[1][f"x{count}.sum()"] for count in range(5)] == [size] * 5


def test_a_hundred_megabytes(rc: hpcremote.Client, notebook: Notebook) -> None:
    notebook(LOOK)
    item = np.random.default_rng(1).random(12_500_000)
    came = rc[0].apply_async(notebook.give, item).get(PATIENCE * 2)
    assert np.array_equal(came, item) and came.flags.writeable


def test_many_arrays_of_all_sizes_in_one_message(rc: hpcremote.Client, notebook: Notebook) -> None:
    notebook(LOOK)
    items = [
        np.full(size, size % 7, "u1") for size in (0, 1, 100, 65_535, 65_536, 65_537, 1 << 20, 3 << 20)
    ] * 3
    came = rc[0].apply_async(notebook.give, {"items": items}).get(PATIENCE)["items"]
    assert [len(item) for item in came] == [len(item) for item in items]
    assert all(np.array_equal(one, other) for one, other in zip(items, came, strict=True))


def test_what_is_sent_twice_is_one_there(rc: hpcremote.Client, notebook: Notebook) -> None:
    notebook("def same(a, b):\n    return a is b")
    assert rc[0].apply_sync(notebook.same, LARGE, LARGE) is True


# ---------------------------------------------------------------- other objects


OBJECTS = [
    None, True, 1 << 200, 1.5, 2j, float("inf"), "ä語\0", b"\xff\0", bytearray(b"abc"), Ellipsis,
    (1, (2,)), [1, [2]], {1: {2: 3}}, {1, 2}, frozenset([1]), range(3), slice(1, 2), int, len,
    datetime.datetime(2024, 1, 2), datetime.timedelta(1), decimal.Decimal("1.50"), fractions.Fraction(1, 3),
    uuid.UUID(int=5), pathlib.Path("/a/b"), array.array("d", [1, 2]), collections.OrderedDict(a=1),
    collections.Counter("abca"), collections.deque([1, 2], 5), collections.defaultdict(list, a=[1]),
    "x" * 70_000, b"y" * 3_000_000, list(range(100_000)),
]  # fmt: skip


@pytest.mark.parametrize("item", OBJECTS, ids=lambda item: f"{type(item).__name__}-{repr(item)[:12]}")
def test_an_object_there_and_back(rc: hpcremote.Client, item: Any) -> None:
    rc[0]["item"] = item
    came = rc[0]["item"]
    assert type(came) is type(item)
    assert came == item


def test_classes_and_closures_of_the_notebook(rc: hpcremote.Client, notebook: Notebook) -> None:
    notebook("""
    import dataclasses, enum
    @dataclasses.dataclass
    class Point:
        x: float
        def twice(self):
            return Point(self.x * 2)
    class Colour(enum.Enum):
        RED = 1
    def adder(n):
        def add(x):
            return x + n
        return add
    def use(point, colour, add):
        return point.twice(), colour, colour is Colour.RED, add(point.x), adder(3)
    """)
    for _ in range(2):
        point, colour, same, total, add = rc[0].apply_sync(
            notebook.use, notebook.Point(1.5), notebook.Colour.RED, notebook.adder(2)
        )
        assert (point, colour, same, total) == (notebook.Point(3.0), notebook.Colour.RED, True, 3.5)
        assert add(1) == 4
        assert isinstance(point, notebook.Point)


def test_a_generator_cannot_be_sent_and_is_named(rc: hpcremote.Client) -> None:
    with pytest.raises(hpcremote.PayloadError, match=r"argument 2 of print.*generator"):
        rc[0].apply_sync(print, 1, (x for x in "ab"))
    with pytest.raises(hpcremote.PayloadError, match=r"argument 'end' of print.*lock"):
        rc[0].apply_sync(print, 1, end=threading.Lock())
    assert rc[0].apply_sync(abs, -1) == 1


def test_scatter_and_gather(rc: hpcremote.Client) -> None:
    view = rc[:]
    for item in (LARGE, np.asfortranarray(LARGE), np.arange(7), np.arange(1), STRUCTURED):
        view.scatter("part", item, block=True)
        came = view.gather("part", block=True)
        assert came.dtype == item.dtype and np.array_equal(came, item)
    view.scatter("part", iter(range(7)), block=True)
    assert view["part"] == [[0, 1, 2, 3], [4, 5, 6]]
    view.scatter("part", list(range(7)), dist="r", block=True)
    assert view["part"] == [[0, 2, 4, 6], [1, 3, 5]]
    assert view.gather("part", dist="r", block=True) == list(range(7))
    view.scatter("part", [5, 6], flatten=True, block=True)
    assert view["part"] == [5, 6]


def test_picklers(rc: hpcremote.Client) -> None:
    pytest.importorskip("dill")
    view = rc[:]
    try:
        for use in (view.use_pickle, view.use_dill):
            result = use()
            if result is not None:
                result.get(PATIENCE)
            assert view.apply_sync(abs, -1) == [1, 1]
            view["x"] = LARGE
            assert rc[1]["x"].sum() == LARGE.sum()
    finally:
        result = view.use_cloudpickle()
        if result is not None:
            result.get(PATIENCE)
    assert view.apply_sync(lambda: 1) == [1, 1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_more_than_two_gigabytes(rc: hpcremote.Client, running: Running, notebook: Notebook) -> None:
    if running.rc.link.address.startswith("tcp://"):
        pytest.skip("two gigabytes at the speed of CURVE take minutes")
    need = 5 * (2200 << 20)
    if psutil.virtual_memory().available < need:
        pytest.skip(f"needs {need >> 30} GiB of memory")
    notebook("def keep(item):\n    global kept\n    kept = item\n    return int(item[-1]), item.nbytes")
    item = np.zeros((2200 << 20) // 8)
    item[-1] = 7
    assert rc[0].apply_async(notebook.keep, item).get(200) == (7, item.nbytes)
    del item
    came = rc[0].pull("kept", block=False).get(200)
    assert came.nbytes == 2200 << 20
    assert came[-1] == 7 and came[0] == 0
    rc[0].clear(block=True)
