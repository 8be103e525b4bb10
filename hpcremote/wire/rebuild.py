"""Functions and classes out of a pickle: the counterpart of :mod:`hpcremote.wire.pickler`.

Pickles name these functions, so their names and arguments are part of the protocol. A function comes in
two steps, as cycles demand: :func:`make_function` gives it its code and scope, :func:`fill_function`
the rest, which may refer to the function itself.
"""

from __future__ import annotations

import builtins
import functools
import marshal
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import CellType, FunctionType
from typing import Any, NamedTuple

from hpcremote.errors import PayloadError
from hpcremote.wire.cloud import CLASSES_BY_ID
from hpcremote.wire.codes import VERSION
from hpcremote.wire.scope import Scope, note_function
from hpcremote.wire.sources import remember


class FunctionState(NamedTuple):
    """All of a function but its code. Cells are ``(value,)``, or ``()`` for one that is still empty."""

    defaults: tuple[Any, ...] | None
    kwdefaults: dict[str, Any] | None
    cells: tuple[tuple[Any, ...], ...]
    attributes: dict[str, Any]
    qualname: str
    module: str | None
    doc: str | None
    annotations: dict[str, Any]
    scope: Scope
    carried: dict[str, Any]
    modules: dict[str, str]
    hints: dict[str, str]
    submodules: tuple[str, ...]
    source: tuple[str, ...]


def make_function(scope: Scope, version: tuple[int, int], code: bytes, name: str, cells: int) -> FunctionType:
    """Return a function with its code, in its scope, and nothing else yet.

    Raises:
        PayloadError: it was compiled by another Python.
    """
    if tuple(version) != VERSION:
        raise PayloadError(
            f"the function {name} was defined under Python {version[0]}.{version[1]} and cannot run here"
            f" under Python {VERSION[0]}.{VERSION[1]}: run the client and the engines with the same Python,"
            " or put the function into a module that both can import"
        )
    closure = tuple(CellType() for _ in range(cells)) if cells else None
    space = scope.globals
    saved = space.get("__builtins__", builtins)
    if scope.builtins is not None:
        space["__builtins__"] = scope.builtins
    try:
        function = FunctionType(marshal.loads(code), space, name, None, closure)  # noqa: S302 - as a pickle is
    finally:
        space["__builtins__"] = saved
    note_function(function)
    return function


def fill_function(function: FunctionType, values: Sequence[Any]) -> None:
    """Give *function* the rest of its state."""
    state = FunctionState(*values)
    function.__defaults__ = state.defaults
    function.__kwdefaults__ = state.kwdefaults
    for cell, value in zip(function.__closure__ or (), state.cells, strict=True):
        if value:
            cell.cell_contents = value[0]
    if state.attributes:
        function.__dict__.update(state.attributes)
    function.__qualname__ = state.qualname
    function.__module__ = state.module  # type: ignore[assignment]
    function.__doc__ = state.doc
    if state.annotations:
        function.__annotations__ = state.annotations
    state.scope.carry(state.carried, state.modules, state.hints)
    for name in state.submodules:
        # Found by likeness of names. If one is needed and missing, Python says so where it is used.
        with suppress(ImportError):
            __import__(name)
    code = function.__code__
    remember(code.co_filename, code.co_firstlineno, state.source)


def lru_cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return *function* under a fresh ``functools.lru_cache``."""
    return functools.lru_cache(maxsize=maxsize, typed=typed)(function)


#: Classes that arrived; any other belongs to this process, and what comes back does not change it.
_arrived: weakref.WeakSet[type] = weakref.WeakSet()


def make_class(maker: Callable[..., type], arguments: Sequence[Any]) -> type:
    """Return the class that cloudpickle's *maker* makes, or finds again by the id that it gave it."""
    known = CLASSES_BY_ID.get(arguments[-2])
    made = maker(*arguments)
    if made is not known:
        _arrived.add(made)
    return made


def fill_class(cls: type, state: Any) -> None:
    """Give a class that arrived its attributes; leave this process' own alone."""
    if cls in _arrived:
        setter, values = state
        setter(cls, values)
