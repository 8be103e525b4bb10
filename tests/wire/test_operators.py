"""What values are reduced with."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

from hpcremote.wire.operators import checked, function_of, name_of


@pytest.mark.parametrize("said", ["sum", "SUM", "MPI.SUM", "MPI_SUM"])
def test_names_are_as_people_write_them(said: str) -> None:
    assert checked(said) == "sum"


@pytest.mark.mpi
def test_operations_of_mpi4py_are_names() -> None:
    from mpi4py import MPI

    assert [checked(op) for op in (MPI.SUM, MPI.LXOR)] == ["sum", "lxor"]


@pytest.mark.parametrize(
    ("op", "a", "b", "result"),
    [
        ("sum", 2, 3, 5), ("prod", "ab", 2, "abab"), ("max", 2, 3, 3), ("min", "a", "b", "a"),
        ("land", 2, 0, False), ("lor", 0, 3, True), ("lxor", 1, 2, False),
        ("band", 6, 3, 2), ("bor", 6, 3, 7), ("bxor", 6, 3, 5),
        ("max", np.array([1, 5]), np.array([4, 2]), [4, 5]),
        ("land", np.array([1, 0]), np.array([2, 2]), [True, False]),
        ("max", np.float64("nan"), np.float64(1), np.nan),
        (operator.sub, 5, 3, 2),
    ],
)  # fmt: skip
def test_what_they_make_of_two_values(op: Any, a: Any, b: Any, result: Any) -> None:
    np.testing.assert_equal(function_of(checked(op))(a, b), result)


def test_functions_that_are_operations_on_arrays() -> None:
    assert [name_of(op) for op in ("max", operator.add, np.maximum, np.add)] == ["max", "sum", "max", "sum"]
    assert [name_of(op) for op in (max, np.hypot, lambda a, b: a)] == ["", "", ""]


def test_what_is_no_operation() -> None:
    with pytest.raises(ValueError, match="no reduction is called 'avg': use one of sum, prod"):
        checked("avg")
    with pytest.raises(TypeError, match="not 3"):
        checked(3)
