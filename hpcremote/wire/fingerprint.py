"""Whether a function is still what it was when it was packed.

Taken when a function is packed, checked at every call: code, defaults, closure, attributes, and the
helpers, classes and modules that it uses, each with their own. Immutable values are compared by identity,
small containers of them item by item. What cannot be checked that way has no fingerprint, and is packed
again for every call.

Functions and classes are held weakly, lest a cached fingerprint keep what it describes alive.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from types import (
    BuiltinFunctionType,
    CellType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any
from weakref import ref

from hpcremote.wire import codes, pickler

_ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, slice}
    | {type(...), type(NotImplemented), CodeType}
    | {BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType}
    | {GetSetDescriptorType, MemberDescriptorType}
)
#: A class' attributes that say nothing about its behaviour, or that follow from the others.
_DERIVED = frozenset({"_abc_impl", "__dataclass_fields__", "__dataclass_params__", "__weakref__", "__dict__"})
_MISSING: Any = object()
_MAX_ITEMS = 1000


#: What leads on to other values, and does not change itself.
_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    tuple: iter,
    frozenset: iter,
    partial: lambda value: (value.func, value.args, value.keywords, vars(value)),
    staticmethod: lambda value: (value.__func__,),
    classmethod: lambda value: (value.__func__,),
    property: lambda value: (value.fget, value.fset, value.fdel),
}


class _Unchecked(Exception):
    """This value cannot be validated cheaply."""


class Fingerprint:
    """What to compare: functions, classes and containers, as they were."""

    __slots__ = ("_classes", "_containers", "_functions", "_seen")

    def __init__(self) -> None:
        self._functions: list[tuple[Any, ...]] = []
        self._classes: list[tuple[Any, ...]] = []
        self._containers: list[tuple[Any, Callable[[Any], Iterable[Any]], list[Any]]] = []
        self._seen: set[int] = set()

    def holds(self) -> bool:
        """Say whether everything is as it was."""
        for record in self._functions:
            if not _same_function(*record):
                return False
        for container, items, kept in self._containers:
            if not _same(list(items(container)), kept):
                return False
        for cls, names, values in self._classes:
            found = cls()
            if found is None or tuple(vars(found)) != names or not _same(list(vars(found).values()), values):
                return False
        return True

    def add(self, value: Any) -> Any:
        """Take in *value* and everything it leads to; return what stands for it in comparisons."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if isinstance(value, ModuleType):
            if sys.modules.get(value.__name__) is not value:
                raise _Unchecked
            return value
        held = ref(value) if kind is FunctionType or isinstance(value, type) else value
        if id(value) not in self._seen:
            self._seen.add(id(value))
            self._take(value, kind)
        return held

    def forget(self) -> None:
        """Drop what only :meth:`add` needs."""
        self._seen.clear()

    def _take(self, value: Any, kind: type) -> None:
        if kind is FunctionType or isinstance(value, type):
            if not pickler.by_reference(value):
                (self._add_function if kind is FunctionType else self._add_class)(value)
        elif kind in (list, set, dict):
            self._add_container(value, kind)
        elif kind in _PARTS:
            for part in _PARTS[kind](value):
                self.add(part)
        elif kind.__name__ != "ufunc":
            raise _Unchecked

    def _add_container(self, value: Any, kind: type) -> None:
        if len(value) > _MAX_ITEMS:
            raise _Unchecked
        items = _pairs if kind is dict else iter
        self._containers.append((value, items, [self.add(item) for item in items(value)]))

    def _add_function(self, function: FunctionType) -> None:
        kwdefaults = function.__kwdefaults__
        record = [ref(function), function.__code__, function.__defaults__, kwdefaults]
        self.add(function.__defaults__)
        self.add(kwdefaults)
        record.append([self.add(cell) for cell in _contents(function)])
        record.append([self.add(item) for item in _pairs(function.__dict__)])
        loads, hints = [], []
        plain = pickler.home(function) is None
        for name in codes.facts(function.__code__).globals:
            value = function.__globals__.get(name, _MISSING)
            if value is _MISSING:
                loads.append((name, _MISSING))
            elif isinstance(value, ModuleType) or (plain and pickler.carriable(value)):
                loads.append((name, self.add(value)))
            else:
                hints.append((name, type(value)))
        self._functions.append((*record, loads, hints))

    def _add_class(self, cls: type) -> None:
        names = tuple(vars(cls))
        values = [value if name in _DERIVED else self.add(value) for name, value in vars(cls).items()]
        for base in cls.__bases__:
            self.add(base)
        self._classes.append((ref(cls), names, values))


def take(function: FunctionType) -> Fingerprint | None:
    """Return the fingerprint of *function*, or None when it has parts that may change unseen."""
    fingerprint = Fingerprint()
    try:
        fingerprint.add(function)
    except (_Unchecked, RecursionError):
        return None
    fingerprint.forget()
    return fingerprint


def _same_function(
    function: Callable[[], FunctionType | None],
    code: CodeType,
    defaults: Any,
    kwdefaults: Any,
    cells: list[Any],
    attributes: list[Any],
    loads: list[tuple[str, Any]],
    hints: list[tuple[str, type]],
) -> bool:
    found = function()
    if (
        found is None
        or found.__code__ is not code
        or found.__defaults__ is not defaults
        or found.__kwdefaults__ is not kwdefaults
    ):
        return False
    if found.__closure__ is not None and not _same(_contents(found), cells):
        return False
    if (attributes or found.__dict__) and not _same(_pairs(found.__dict__), attributes):
        return False
    if loads or hints:
        get = found.__globals__.get
        for name, kept in loads:
            value = get(name, _MISSING)
            if value is not kept and (type(kept) is not ref or kept() is not value):
                return False
        for name, kind in hints:
            if type(get(name, _MISSING)) is not kind:
                return False
    return True


def _same(values: list[Any], kept: list[Any]) -> bool:
    if len(values) != len(kept):
        return False
    for value, old in zip(values, kept, strict=False):
        if value is not old and (type(old) is not ref or old() is not value):
            return False
    return True


def _pairs(mapping: dict[Any, Any]) -> list[Any]:
    return [*mapping, *mapping.values()]


_EMPTY_CELL = "a cell without a value"  # compared by identity


def _contents(function: FunctionType) -> list[Any]:
    return [_content(cell) for cell in function.__closure__ or ()]


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _EMPTY_CELL
