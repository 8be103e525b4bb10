"""Objects to pieces, over the wire's Part, and back."""

from __future__ import annotations

import array
import functools
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.errors import PayloadError
from hpcremote.wire import payload
from hpcremote.wire.messages import Part


def over_the_wire(pieces, blob=""):
    """Send pieces as the transport does; the receiver gets writable buffers of its own."""
    part, frames = payload.to_part(pieces, blob)
    assert part.nframes == len(frames)
    bigs = payload.big_pieces(pieces) if blob else frames
    return payload.from_part(part, [memoryview(bytearray(big)) for big in bigs])


def round_trip(obj, dump=payload.dump, blob=""):
    return payload.load(over_the_wire(dump(obj), blob))


def same(a, b):
    if isinstance(a, np.ndarray):
        assert type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape
        equal_nan = a.dtype.kind in "fc"
        return np.array_equal(a, b, equal_nan=equal_nan)
    return a == b and type(a) is type(b)


BASE = np.arange(24.0)
MASKED = np.ma.masked_array(np.arange(5), mask=[0, 1, 0, 0, 1])
STRUCTURED = np.array([(1, 2.5, b"x"), (2, 3.5, b"yz")], dtype=[("a", "i4"), ("b", "f8"), ("c", "S3")])
ARRAYS = {
    "c": BASE.reshape(4, 6),
    "fortran": np.asfortranarray(BASE.reshape(4, 6)),
    "transposed": BASE.reshape(2, 3, 4).T,
    "big": np.random.default_rng(0).random((300, 200)),
    "big fortran": np.asfortranarray(np.random.default_rng(0).random((300, 200))),
    "empty": np.zeros((0,)),
    "empty 2d": np.zeros((3, 0, 2), dtype="i2"),
    "0-d": np.array(7.5),
    "strided": BASE[::2],
    "reversed": BASE[::-1],
    "inner block": BASE.reshape(4, 6)[1:3, 2:4],
    "big strided": np.arange(100_000.0)[::2],
    "structured": STRUCTURED,
    "object": np.array([1, "two", None, [3]], dtype=object),
    "big-endian": np.arange(5, dtype=">i4"),
    "bool": np.array([True, False]),
    "complex": np.array([1 + 2j]),
    "text": np.array(["a", "bcd"]),
    "dates": np.array(["2020-01-01", "NaT"], dtype="M8[D]"),
    "float16": np.arange(3, dtype="f2"),
    "broadcast": np.broadcast_to(np.arange(3), (2, 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("dump", [payload.dump, payload.dump_result])
def test_arrays_arrive_equal_and_writable_with_their_order(name, read_only, dump):
    sent = ARRAYS[name]
    if read_only:
        sent = sent.view()
        sent.flags.writeable = False
    got = round_trip(sent, dump)
    if name == "dates":
        assert str(got) == str(sent)
    else:
        assert same(sent, got)
    assert got.flags.writeable
    if sent.flags.f_contiguous and not sent.flags.c_contiguous:
        assert got.flags.f_contiguous
    before = sent.copy()
    if got.size and got.dtype != object:
        got.flat[0] = got.flat[-1]
        np.testing.assert_array_equal(sent, before)


@pytest.mark.parametrize("blob", ["", "0" * 32])
def test_big_arrays_by_frame_or_blob(blob):
    value = {"a": ARRAYS["big"], "b": ARRAYS["c"], "c": [ARRAYS["big fortran"]]}
    got = round_trip(value, blob=blob)
    assert same(got["a"], value["a"]) and same(got["b"], value["b"]) and same(got["c"][0], value["c"][0])
    part, frames = payload.to_part(payload.dump(value), blob)
    assert part.blob == blob
    assert len(frames) == (0 if blob else 2)
    assert sum(size >= payload.BIG for size in part.sizes) == 2


def test_big_arrays_are_not_copied():
    big = np.zeros(1 << 16)
    assert any(np.shares_memory(np.frombuffer(p, "u1"), big) for p in payload.dump(big)[1:])
    big.flags.writeable = False
    assert any(np.shares_memory(np.frombuffer(p, "u1"), big) for p in payload.dump(big)[1:])


def test_received_arrays_use_the_received_memory():
    pieces = over_the_wire(payload.dump(np.zeros(1 << 16)))
    got = payload.load(pieces)
    assert np.shares_memory(got, np.frombuffer(pieces[1], "u1"))


def test_subclasses():
    got = round_trip(MASKED)
    assert type(got) is np.ma.MaskedArray
    np.testing.assert_array_equal(got.mask, MASKED.mask)
    np.testing.assert_array_equal(got.filled(-1), MASKED.filled(-1))
    got[0] = 9
    records = STRUCTURED.view(np.recarray)
    got = round_trip(records)
    assert type(got) is np.recarray and got.b[1] == 3.5 and got.flags.writeable


def test_bytearray_bytes_array_and_scalars():
    for value in (
        bytearray(b"abc"),
        bytearray(200_000),
        b"x" * 200_000,
        array.array("d", [1, 2]),
        np.float32(2.5),
    ):
        got = round_trip(value)
        assert got == value and type(got) is type(value)
    got = round_trip(bytearray(b"abc"))
    got += b"d"
    assert bytes(round_trip(memoryview(b"abc"))) == b"abc"


def test_one_object_twice_stays_one_object():
    thing = [1]
    big = np.zeros(20_000)
    got = round_trip((thing, thing, big, big))
    assert got[0] is got[1] and got[2] is got[3]
    loop = []
    loop.append(loop)
    got = round_trip(loop)
    assert got[0] is got


def test_large_stream_is_a_frame():
    value = [f"word {i}" for i in range(50_000)]
    part, _ = payload.to_part(payload.dump(value))
    assert part.nframes == 1 and part.data == b""
    assert round_trip(value) == value


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
dtypes = st.sampled_from(["i1", "u2", "<i4", ">i4", "f4", "f8", "c16", "?", "S5", "U3", "i4,f8"])
shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)


@st.composite
def arrays(draw):
    dtype, shape = np.dtype(draw(dtypes)), draw(shapes)
    count = int(np.prod(shape))
    made = (
        np.frombuffer(bytes(i % 2 for i in range(count * dtype.itemsize)), dtype)[:count]
        .reshape(shape)
        .copy()
    )
    how = draw(st.integers(0, 3))
    if how == 1:
        made = np.asfortranarray(made)
    elif how == 2 and made.ndim:
        made = made[::-1]
    elif how == 3:
        made.flags.writeable = False
    return made


values = st.recursive(
    scalars | arrays(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        assert b.flags.writeable
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    else:
        assert a == b


@given(values, st.sampled_from([payload.dump, payload.dump_result]), st.sampled_from(["", "f" * 32]))
def test_any_nest_of_values_and_arrays_comes_back_equal(value, dump, blob):
    assert_same(value, round_trip(value, dump, blob))


@given(
    st.lists(st.one_of(st.integers(0, 20), st.sampled_from([payload.BIG - 1, payload.BIG, payload.BIG + 1])))
)
def test_pieces_survive_the_part(lengths):
    pieces = [bytes([i % 256]) * length for i, length in enumerate(lengths, 1)] or [b""]
    got = over_the_wire(pieces)
    assert [bytes(piece) for piece in got] == pieces
    assert all(not memoryview(piece).readonly for piece in got[1:])


@given(
    st.binary(max_size=30),
    st.lists(st.integers(-3, 40) | st.sampled_from([payload.BIG, payload.BIG + 5, 1 << 62]), max_size=4),
    st.lists(st.sampled_from([0, 5, payload.BIG, payload.BIG + 5]), max_size=3),
)
def test_a_part_that_does_not_fit_is_a_payload_error(data, sizes, bigs):
    buffers = [bytearray(size) for size in bigs]
    small = [size for size in sizes if size < payload.BIG]
    fits = (
        bool(sizes)
        and min(sizes) >= 0
        and sum(small) == len(data)
        and [size for size in sizes if size >= payload.BIG] == bigs
    )
    part = Part(data, sizes, len(bigs))
    if fits:
        assert [len(piece) for piece in payload.from_part(part, buffers)] == sizes
    else:
        with pytest.raises(PayloadError):
            payload.from_part(part, buffers)


def test_errors_name_the_argument():
    lock = threading.Lock()
    with pytest.raises(PayloadError, match=r"argument 2 of f: cannot pickle '_thread.lock' object"):
        payload.dump_call(None, (1, lock), {}, name="f")
    with pytest.raises(PayloadError, match=r"argument 'x' of f at \['lock'\]\[1\] \(a lock\): cannot pickle"):
        payload.dump_call(None, (1,), {"y": 2, "x": {"a": 1, "lock": [0, lock]}}, name="f")


def test_errors_name_what_is_dumped():
    class Holder:
        def __init__(self):
            self.inner = threading.Lock()

    with pytest.raises(PayloadError, match=r"a at \.inner \(a lock\): cannot pickle"):
        payload.dump(Holder(), what="a")
    with pytest.raises(PayloadError, match=r"the result \(a lock\) cannot be sent: cannot pickle"):
        payload.dump_result(threading.Lock())
    with pytest.raises(PayloadError, match=r"the result \(a generator\) cannot be sent"):
        payload.dump_result(i for i in range(3))


def test_an_object_that_refuses_is_reported_in_its_words():
    class Refuses:
        def __reduce__(self):
            raise RuntimeError("no way")

    with pytest.raises(PayloadError, match="argument 1 of f: RuntimeError: no way"):
        payload.dump_call(None, (Refuses(),), {}, name="f")


def test_too_deep_nesting_is_a_payload_error():
    deep = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PayloadError, match="nested too deeply"):
        payload.dump(deep, what="it")
    while deep:
        deep = deep.pop()


@pytest.fixture
def restore_pickler():
    yield
    payload.use_pickler("cloudpickle")


@pytest.mark.parametrize("name", ["pickle", "dill", "cloudpickle"])
def test_picklers(name, restore_pickler):
    payload.use_pickler(name)
    value = {"a": [1, 2.5, "x"], "b": np.arange(5)}
    value["b"].flags.writeable = False
    got = round_trip(value)
    assert got["a"] == value["a"] and same(got["b"], value["b"])
    if name == "pickle":
        with pytest.raises(PayloadError, match="x"):
            payload.dump(lambda: 0, what="x")
        assert got["b"].flags.writeable
    else:
        assert round_trip(lambda: 42)() == 42


def test_unknown_pickler():
    with pytest.raises(ValueError, match="'pickel': use one of cloudpickle, pickle, dill"):
        payload.use_pickler("pickel")


def test_dill_absent_says_what_to_install():
    code = (
        "import sys; sys.modules['dill'] = None\n"
        "from hpcremote.wire import payload\n"
        "try: payload.use_pickler('dill')\n"
        "except ImportError as e: print(e)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "pip install 'hpcremote[dill]'" in out


def test_interactive_things_in_results_come_by_value():
    scale = 3

    def times(x):
        return x * scale

    got = round_trip(functools.partial(times, 7), payload.dump_result)
    assert got() == 21


def test_a_class_that_comes_home_is_the_class_that_left():
    script = """
from hpcremote.wire import payload
class Point:
    kind = "mine"
    def __init__(self, x): self.x = x
    def twice(self): return self.x * factor
factor = 2
before = Point.twice
got = payload.load(payload.dump_result(payload.load(payload.dump(Point(4)))))
assert type(got) is Point and Point.twice is before
factor = 5
print(got.twice())
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out == "20\n"
