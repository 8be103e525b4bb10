from __future__ import annotations

import inspect
from typing import Any

import cloudpickle
import numpy as np
import pytest

import hpcremote as parallel
from hpcremote.client.client import Client
from hpcremote.client.view import DirectView
from tests.client.support import FakeLink


def test_a_remote_function_runs_on_the_engines(rc: Client) -> None:
    e0 = rc[0]

    @e0.remote(block=True)
    def power(base: int, exponent: int = 2) -> int:
        """Raise to a power."""
        return base**exponent

    assert power(3) == 9
    assert power(3, exponent=3) == 27
    assert power.__name__ == "power" and power.__doc__ == "Raise to a power."
    assert list(inspect.signature(power).parameters) == ["base", "exponent"]
    assert repr(power) == "<RemoteFunction power on <DirectView 0>>"


def test_block_is_the_views_at_decoration_or_at_the_call(rc: Client) -> None:
    view = rc[:]
    bound = view.remote()(abs)
    free = parallel.remote(view)(abs)
    view.block = True
    assert bound(-1).get() == free(-1) == [1] * 4


def test_flags_of_a_remote_function(rc: Client) -> None:
    f = parallel.remote(rc[:], block=False, targets=[1], label="x")(abs)
    ar = f(-1)
    assert (ar.get(), ar.label, ar.engine_id) == ([1], ["x"], [1])
    with pytest.raises(KeyError, match="no flag 'blok'"):
        parallel.remote(rc[:], blok=True)(abs)


def test_a_remote_function_is_plain_on_an_engine(rc: Client) -> None:
    @rc[1].remote(block=True)
    def inner() -> str:
        return "ran here"

    assert rc[0].apply_sync(inner) == "ran here"
    assert rc[0].apply_sync(lambda f: f(), inner) == "ran here"
    assert cloudpickle.loads(cloudpickle.dumps(inner))() == "ran here"


@pytest.mark.parametrize("dist", ["b", "r"])
def test_a_parallel_function_gets_parts(view: DirectView, dist: str) -> None:
    @view.parallel(dist=dist, block=True)
    def product(a: Any, b: Any) -> Any:
        return a * b

    a = np.arange(10.0)
    assert np.array_equal(product(a, a), a * a)
    assert product.map(range(5), range(5)) == [0, 1, 4, 9, 16]
    with pytest.raises(ValueError, match=r"one length, not \[10, 3\]"):
        product(a, a[:3])


def test_a_parallel_function_that_does_not_wait(view: DirectView, link: FakeLink) -> None:
    double = parallel.parallel(view, ordered=False)(lambda part: [2 * x for x in part])
    link.pause()
    items = iter(double(list(range(8))))
    link.step_engine(3)
    assert [next(items), next(items)] == [12, 14]
    link.resume()
    assert sorted(items) == [0, 2, 4, 6, 8, 10]


def test_chunksize_has_no_meaning(view: DirectView) -> None:
    with pytest.warns(UserWarning, match="chunksize"):
        parallel.ParallelFunction(view, abs, chunksize=3)


def test_parallel_functions_can_return_exceptions(view: DirectView) -> None:
    f = view.parallel(block=True, return_exceptions=True)(lambda part: [1 // x for x in part])
    values = f([0, 1, 1, 1])
    assert isinstance(values[0], parallel.RemoteError) and values[1:] == [1, 1, 1]
