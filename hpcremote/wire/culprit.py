"""Which part of an object cannot be pickled. Asked only after pickling failed, so it may take its time.

The object is taken apart, and each part pickled on its own, down to the smallest that fails:
``argument 'x' of f: ['solver'].lock: cannot pickle '_thread.lock' object``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FunctionType, MethodType
from typing import Any

_MAX_DEPTH = 12
_MAX_PARTS = 10_000
# An object with this has no pickling of its own: its parts are its attributes.
_PLAIN: object = object.__reduce__

Dumps = Callable[[Any], object]


def blame(obj: Any, dumps: Dumps, error: BaseException) -> tuple[str, Any, BaseException]:
    """Return the path to the smallest part of *obj* that fails, the part, and its error."""
    path = ""
    for _ in range(_MAX_DEPTH):
        found = _failing(obj, dumps)
        if found is None:
            break
        step, obj, error = found
        path += step
    return path, obj, error


def reason(error: BaseException) -> str:
    """Return *error* in words, without its name where it says enough itself."""
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return "it is nested too deeply to be pickled"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    text = str(error)
    return text if "pickle" in text else f"{type(error).__name__}: {text}" if text else type(error).__name__


def _failing(obj: Any, dumps: Dumps) -> tuple[str, Any, BaseException] | None:
    for count, (step, part) in enumerate(_parts(obj)):
        if count >= _MAX_PARTS:
            break
        try:
            dumps(part)
        except Exception as error:  # noqa: BLE001 - users' __reduce__ may raise anything; it is what we report
            return step, part, error
    return None


def _parts(obj: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, dict):
        for key, value in list(obj.items()):
            yield f"[{key!r:.60}]", value
    elif isinstance(obj, (list, tuple)):
        yield from ((f"[{index}]", value) for index, value in enumerate(obj))
    elif isinstance(obj, (set, frozenset)):
        yield from ((f"{{{value!r:.60}}}", value) for value in obj)
    elif isinstance(obj, FunctionType):
        yield from _parts_of_function(obj)
    elif isinstance(obj, MethodType):
        yield ".__self__", obj.__self__
    elif type(obj).__reduce__ is _PLAIN and isinstance(getattr(obj, "__dict__", None), dict):
        yield from ((f".{name}", value) for name, value in list(vars(obj).items()))


def _parts_of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # not assigned yet
            yield f" (its variable {name!r})", cell.cell_contents
    yield from ((" (a default argument)", value) for value in function.__defaults__ or ())
    yield from ((f" (its attribute {name!r})", value) for name, value in vars(function).items())
