"""One value of many: ``view.reduce`` and ``view.allreduce`` on the engines.

::

    value on each rank ─┬─ arrays of one kind, an operation that MPI has ──▶ Reduce on their memory
                        └─ anything else ──▶ a tree of Python calls, lower ranks on the left

The payload is that of a plan and behind it that of an ``apply``. In the plan are the operation (a name, or
what to call with two values), the name to read each engine's value from (None: the call returns it), and
the name to leave the result under on every engine (None: the client gets it).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any

from hpcremote.engine.carry import MOST
from hpcremote.wire import operators, payload, scope
from hpcremote.wire.crate import FAILED
from hpcremote.wire.failure import capture
from hpcremote.wire.operators import Operator
from hpcremote.wire.pickler import Buffer

if TYPE_CHECKING:
    from hpcremote.engine.bulk import Local

#: What MPI can compute with, as characters of numpy's dtypes, by operation.
_INTEGERS = "bhilqBHILQ"
_REAL = _INTEGERS + "fdg"
_NUMBERS = _REAL + "FDG"
_BY_MPI = {
    "sum": _NUMBERS, "prod": _NUMBERS, "max": _REAL, "min": _REAL,
    "band": _INTEGERS, "bor": _INTEGERS, "bxor": _INTEGERS,
}  # fmt: skip
_FAILED = "failed"


def reduce(comm: Any, local: Local, digest: bytes, pieces: Sequence[Buffer]) -> Any:
    """Do it; see the module's docstring.

    Returns:
        The result, where it is to go to the client from.
    """
    loading = scope.begin_loading()
    count = payload.load(pieces[:1])
    op, source, keep = payload.load(pieces[1 : 1 + count])
    scopes = scope.carrying(loading.scopes)
    value, problem = None, None
    if source is None:
        value = local.apply(digest, pieces[1 + count :])
    else:
        try:
            value = local.namespace.evaluate(source)
        except Exception as error:
            if not source.isidentifier():  # code that may be communicating
                raise
            problem = error
    kinds = comm.allgather(_FAILED if problem is not None else _kind(value, operators.name_of(op)))
    if problem is not None:
        return FAILED, capture(problem)
    if _FAILED in kinds:
        return None
    if kinds[0] and all(kind == kinds[0] for kind in kinds):
        result = _by_mpi(comm, value, operators.name_of(op), everywhere=keep is not None)
    else:
        with scope.active(scopes):
            result = _by_calls(comm, value, operators.function_of(op), everywhere=keep is not None)
    if keep is None:
        return result
    local.namespace.push({keep: result})
    return None


def _kind(value: Any, name: str) -> tuple[Any, ...] | None:
    """Return what has to be the same on all ranks for MPI to do it, or None if MPI cannot."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray or not value.ndim:
        return None
    if value.dtype.char not in _BY_MPI.get(name, "") or not value.dtype.isnative:
        return None
    if name in ("max", "min") and value.dtype.kind == "f" and value.size and numpy.isnan(value.max()):
        return None  # numpy says that the greatest is NaN then; MPI says one thing or another
    return value.dtype.str, value.shape, value.flags.fnc


def _by_mpi(comm: Any, value: Any, name: str, *, everywhere: bool) -> Any:
    from hpcremote.engine.comm.arithmetic import operation

    numpy: Any = sys.modules["numpy"]
    op = operation(name)
    order = "F" if value.flags.fnc else "C"
    mine = numpy.asarray(value, order=order).reshape(-1, order=order)
    whole = numpy.empty_like(mine) if everywhere or comm.Get_rank() == 0 else None
    step = max(1, MOST // value.itemsize)
    for low in range(0, mine.size, step):
        into = None if whole is None else whole[low : low + step]
        if everywhere:
            comm.Allreduce(mine[low : low + step], into, op)
        else:
            comm.Reduce(mine[low : low + step], into, op, 0)
    return None if whole is None else whole.reshape(value.shape, order=order)


def _by_calls(comm: Any, value: Any, op: Operator, *, everywhere: bool) -> Any:
    def combine(left: _Boxed, right: _Boxed) -> _Boxed:
        return _Boxed(op(left.value, right.value))

    boxed = _Boxed(value)
    boxed = comm.allreduce(boxed, combine) if everywhere else comm.reduce(boxed, combine, 0)
    return None if boxed is None else boxed.value


class _Boxed:
    """A value that is pickled in our way, which can do more than the plain one that MPI communicators use."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Any, ...]:
        pieces = payload.dump(self.value, what="a value to reduce")
        return _unboxed, ([PickleBuffer(piece) for piece in pieces],)


def _unboxed(pieces: list[Buffer]) -> _Boxed:
    return _Boxed(payload.load(pieces))
