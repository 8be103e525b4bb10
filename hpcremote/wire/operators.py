"""What values are reduced with: operations by MPI's names, or anything that is called with two values.

Arrays are combined element by element, as numpy does; numpy is only looked at where it was imported.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

Operator = Callable[[Any, Any], Any]


def function_of(op: str | Operator) -> Operator:
    """Return what to call with two values."""
    return _FUNCTIONS[op] if isinstance(op, str) else op


def name_of(op: str | Operator) -> str:
    """Return the name of the operation on arrays that *op* is, or "" for a function of the user's."""
    if isinstance(op, str):
        return op
    if type(op).__name__ == "ufunc":
        name = getattr(op, "__name__", "")
        return _BY_UFUNC.get(name, "") if getattr(sys.modules.get("numpy"), name, None) is op else ""
    return next((name for name, function in _SAME.items() if function is op), "")


def checked(op: Any) -> str | Operator:
    """Return *op* as it is sent: ``MPI.SUM``, ``"SUM"`` and ``"sum"`` are the same.

    Raises:
        ValueError: there is no operation of that name.
        TypeError: it is neither a name nor something to call.
    """
    if type(op).__module__ == "mpi4py.MPI" and isinstance(named := op.__reduce__(), str):
        op = named
    if isinstance(op, str):
        name = op.lower().removeprefix("mpi.").removeprefix("mpi_")
        if name not in _FUNCTIONS:
            known = ", ".join(_FUNCTIONS)
            raise ValueError(f"no reduction is called {op!r}: use one of {known}, or a function")
        return name
    if not callable(op):
        raise TypeError(f"values are reduced with a name or with a function of two values, not {op!r:.80}")
    function: Operator = op
    return function


def _either(ufunc: str, plain: Operator, a: Any, b: Any) -> Any:
    if hasattr(a, "__array__") or hasattr(b, "__array__"):
        return getattr(sys.modules["numpy"], ufunc)(a, b)
    return plain(a, b)


#: These do the same to arrays as the operations of their names.
_SAME: dict[str, Operator] = {
    "sum": operator.add,
    "prod": operator.mul,
    "band": operator.and_,
    "bor": operator.or_,
    "bxor": operator.xor,
}
_FUNCTIONS: dict[str, Operator] = {
    **_SAME,
    "max": partial(_either, "maximum", max),
    "min": partial(_either, "minimum", min),
    "land": partial(_either, "logical_and", lambda a, b: bool(a and b)),
    "lor": partial(_either, "logical_or", lambda a, b: bool(a or b)),
    "lxor": partial(_either, "logical_xor", lambda a, b: bool(a) != bool(b)),
}
_BY_UFUNC = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "bitwise_and": "band",
    "bitwise_or": "bor",
    "bitwise_xor": "bxor",
}
