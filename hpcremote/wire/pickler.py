"""Picklers: plain C pickle where that is right, cloudpickle with our own functions where it is not.

::

    object ──C pickle──▶ stream     no error, and nothing of __main__ in it: done
       └──────────────▶ CallPickler (client → engine) or ResultPickler (engine → client)

Most payloads are data, and C pickle handles them without one Python call an element. It would also
"pickle" what lives in ``__main__`` by its name, which means something else at the other end, so a
stream that mentions ``__main__`` is done again by the thorough pickler.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable
from functools import _lru_cache_wrapper, partial
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType
from typing import Any

from hpcremote.wire import arrays, cloud, codes, rebuild
from hpcremote.wire.scope import Scope

Buffer = bytes | bytearray | memoryview
OnBuffer = Callable[[pickle.PickleBuffer], Any]

_NATIVE = b"_main__"
_EMPTY = ()
_PLAIN_ANNOTATIONS = (str, int, float, bool, bytes, type(None))


class _Thorough(cloud.Pickler):  # type: ignore[misc, unused-ignore]
    """Cloudpickle that sends read-only arrays as writable and never overwrites the other end's own class."""

    def __init__(self, file: io.BytesIO, on_buffer: OnBuffer | None = None) -> None:
        super().__init__(file, protocol=5, buffer_callback=on_buffer)
        self._ndarray = arrays.ndarray()

    def reducer_override(self, obj: Any) -> Any:
        """Return how *obj* is pickled (called by pickle for everything but the simplest types)."""
        kind = type(obj)
        if kind is FunctionType:
            return self._function_reduce(obj)
        if kind is self._ndarray:
            return arrays.reduce_array(obj)
        if kind is _lru_cache_wrapper and not _importable(obj):
            return rebuild.lru_cached, (obj.__wrapped__, *obj.cache_parameters().values())
        reduced = super().reducer_override(obj)
        if isinstance(obj, type) and type(reduced) is tuple and reduced[-1] is cloud.set_class_state:
            return _reduce_class(obj, reduced)
        return reduced


class CallPickler(_Thorough):
    """Client to engine: functions get the engine's namespace as their globals."""

    def __init__(self, file: io.BytesIO, on_buffer: OnBuffer | None = None) -> None:
        super().__init__(file, on_buffer)
        self._scopes: dict[int, Scope] = {}

    def _function_reduce(self, function: FunctionType) -> Any:
        if by_reference(function):
            return NotImplemented
        module = home(function)
        if module is not None and cloud.is_registered_by_value(module):
            return super()._function_reduce(function)
        return self._reduce(function, module)

    def _reduce(self, function: FunctionType, module: ModuleType | None) -> tuple[Any, ...]:
        code = function.__code__
        known = codes.facts(code)
        scope = self._scope(function, module)
        carried, modules, hints = needs(function, module)
        values = [*_modules_of(function, modules), *_cell_values(function)]
        reached = [value for value in values if isinstance(value, ModuleType)]
        state = rebuild.FunctionState(
            function.__defaults__,
            function.__kwdefaults__,
            _cells(function),
            function.__dict__,
            function.__qualname__,
            function.__module__,
            function.__doc__,
            _annotations(function),
            scope,
            carried,
            modules,
            hints,
            codes.submodules(code, reached),
            known.source,
        )
        made = (scope, codes.VERSION, known.data, function.__name__, len(state.cells))
        return rebuild.make_function, made, tuple(state), None, None, rebuild.fill_function

    def _scope(self, function: FunctionType, module: ModuleType | None) -> Scope:
        key = id(function.__globals__)
        scope = self._scopes.get(key)
        if scope is None:
            scope = self._scopes[key] = Scope("" if module is None else module.__name__)
        return scope


class ResultPickler(_Thorough):
    """Engine to client: functions take the globals that they need along, as cloudpickle does."""

    def _dynamic_function_reduce(self, function: FunctionType) -> Any:
        reduced = super()._dynamic_function_reduce(function)
        space = reduced[2][1]["__globals__"]
        carried = getattr(function, "__builtins__", {})
        for name in codes.facts(function.__code__).globals:
            if name in carried and name not in space and name not in _REAL_BUILTINS:
                space[name] = carried[name]
        return reduced


_REAL_BUILTINS: dict[str, Any] = vars(sys.modules["builtins"])


def needs(
    function: FunctionType, module: ModuleType | None
) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Return what travels with *function* (helpers, modules by name), and hints at the data that does not."""
    carried: dict[str, Any] = {}
    modules: dict[str, str] = {}
    hints: dict[str, str] = {}
    space = function.__globals__
    for name in codes.facts(function.__code__).globals:
        if name not in space:
            continue
        value = space[name]
        if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is value:
            modules[name] = value.__name__
        elif module is None and carriable(value):
            carried[name] = value
        elif module is None:
            hints[name] = type(value).__name__
    return carried, modules, hints


_CARRIED = (
    FunctionType,
    BuiltinFunctionType,
    MethodDescriptorType,
    ModuleType,
    type,
    _lru_cache_wrapper,
)


def carriable(value: Any) -> bool:
    """Say whether a global travels with the functions that use it: it is code, not data."""
    if isinstance(value, _CARRIED):
        return True
    if isinstance(value, partial):
        return carriable(value.func)
    # numpy.sin and its like; @require'd functions
    return type(value).__name__ in ("ufunc", "dependent") and callable(value)


def home(function: FunctionType) -> ModuleType | None:
    """Return the importable module whose globals *function* uses, or None for an interactive one."""
    space = function.__globals__
    name = space.get("__name__")
    if name == "__main__" or type(name) is not str:
        return None
    module = sys.modules.get(name)
    return module if module is not None and vars(module) is space else None


def by_reference(obj: Any) -> bool:
    """Say whether a function or class is found at the other end by its module and name."""
    return bool(cloud.is_by_reference(obj))


def fast_dumps(obj: Any, on_buffer: OnBuffer | None = None) -> bytes | None:
    """Return the C pickle of *obj*, or None where that is not (surely) right."""
    try:
        stream = plain_dumps(obj, on_buffer)
    except Exception:  # noqa: BLE001 - whatever is wrong, the thorough pickler finds it again and reports it
        return None
    if _NATIVE in stream or cloud.BY_VALUE_MODULES:
        return None
    return stream


def plain_dumps(obj: Any, on_buffer: OnBuffer | None = None) -> bytes:
    """Return the C pickle of *obj*."""
    ndarray = arrays.ndarray()
    if ndarray is None:
        return pickle.dumps(obj, 5, buffer_callback=on_buffer)
    file = io.BytesIO()
    plain = pickle.Pickler(file, 5, buffer_callback=on_buffer)
    plain.dispatch_table = arrays.dispatch_table(ndarray)
    plain.dump(obj)
    return file.getvalue()


def thorough_dumps(pickler: type[_Thorough], obj: Any, on_buffer: OnBuffer | None = None) -> bytes:
    """Return the pickle of *obj* by *pickler*."""
    file = io.BytesIO()
    pickler(file, on_buffer).dump(obj)
    return file.getvalue()


def _reduce_class(cls: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    maker, arguments, state, *rest, setter = reduced
    if "__slots__" in cls.__dict__ and maker is cloud.make_skeleton:
        # Cloudpickle sets them when the class is made, as a mere attribute: its instances would have a
        # __dict__ there, and could not come back to instances that have none.
        first, (space, *last) = arguments[:3], arguments[3:]
        arguments = (*first, {**space, "__slots__": cls.__dict__["__slots__"]}, *last)
    return (rebuild.make_class, (maker, arguments), (setter, state), *rest, rebuild.fill_class)


def _importable(wrapper: Any) -> bool:
    module = sys.modules.get(getattr(wrapper, "__module__", None) or "")
    if module is None or module.__name__ == "__main__":
        return False
    return _find(module, wrapper.__qualname__) is wrapper


def _find(module: ModuleType, qualname: str) -> Any:
    found: Any = module
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found


def _modules_of(function: FunctionType, modules: dict[str, str]) -> list[Any]:
    return [function.__globals__[name] for name in modules]


def _cell_values(function: FunctionType) -> list[Any]:
    return [value[0] for value in _cells(function) if value]


def _cells(function: FunctionType) -> tuple[tuple[Any, ...], ...]:
    return tuple(_content(cell) for cell in function.__closure__) if function.__closure__ else _EMPTY


def _content(cell: Any) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # not assigned yet
        return _EMPTY


def _annotations(function: FunctionType) -> dict[str, Any]:
    # Classes as text: an annotation alone must not make the engine import what it comes from.
    return {name: _as_text(value) for name, value in function.__annotations__.items()}


def _as_text(value: Any) -> Any:
    if isinstance(value, _PLAIN_ANNOTATIONS) or (type(value) is type and value.__module__ == "builtins"):
        return value
    # type(), because Python 3.10 takes list[int] for an instance of type
    return value.__qualname__ if issubclass(type(value), type) else repr(value)
