"""What a function that was defined on the client finds around itself on the engine.

::

    name ──▶ engine namespace (its globals) ──▶ carried names ──▶ builtins ──▶ NameError, with a hint

A function's globals are THE engine namespace, so that what it reads and assigns lives there. Helper
functions, classes and modules that travelled with it are *carried*: they stand in the ``__builtins__``
of the namespace, which Python asks last, so a name of the engine always wins and nothing is installed.

Python fixes a function's builtins when the function is made. So the namespace's ``__builtins__`` is the
scope's own dict while its functions are rebuilt, and again during the call (for functions that are
made then: nested ones, methods, comprehensions before Python 3.12). See :func:`active`.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from collections.abc import Iterable, Sequence
from types import FunctionType
from typing import Any

Namespace = dict[str, Any]

_namespace: Namespace | None = None


def set_namespace(namespace: Namespace | None) -> None:
    """Make *namespace* the globals of functions that arrive in this process (an engine does this once)."""
    global _namespace, _loading  # noqa: PLW0603 - one engine namespace a process, by design
    _namespace = namespace
    _loading = None if namespace is None else Loading()


def engine_namespace() -> Namespace | None:
    """Return the engine's namespace, or None in a process that is no engine."""
    return _namespace


class Scope:
    """Names that functions from one client-side module share on the engine.

    Attributes:
        globals: the engine namespace, or the dict of the module that the functions were written in.
        builtins: what functions of this scope have as builtins: the real ones and the carried names.
        carried: the names that travelled.
        hints: names that exist on the client as data, and stayed there: name to type name.
    """

    __slots__ = ("builtins", "carried", "globals", "hints", "module")

    def __init__(self, module: str = "") -> None:
        self.module = module
        self.globals = _globals(module)
        self.builtins: Namespace | None = None
        self.carried: Namespace = {}
        self.hints: dict[str, str] = {}
        if self.globals is _main():
            self.builtins = dict(_builtins_of(self.globals))
        if _loading is not None:
            _loading.scopes.append(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Scope, (self.module,))

    def carry(self, names: Namespace, modules: dict[str, str], hints: dict[str, str]) -> None:
        """Take in what one function of the scope brings along."""
        if self.builtins is None:
            return
        for name, module in modules.items():
            self._set(name, self._import(name, module))
        for name, value in names.items():
            self._set(name, value)
        self.hints.update(hints)

    def _set(self, name: str, value: Any) -> None:
        if value is not None and self.builtins is not None:
            self.carried[name] = self.builtins[name] = value

    def _import(self, name: str, module: str) -> Any:
        try:
            return importlib.import_module(module)
        except ImportError:
            if name in self.globals:  # the engine's own wins anyway
                return None
            raise


class Loading:
    """What one unpickling made: its scopes, its functions, and whether its value may change by itself."""

    __slots__ = ("functions", "scopes", "volatile")

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        self.functions: list[FunctionType] = []
        self.volatile = False


_loading: Loading | None = None


def begin_loading() -> Loading:
    """Return the record of what is unpickled from now on (engines only; in the main thread)."""
    global _loading  # noqa: PLW0603 - pickle calls back without a context to hand on
    if _loading is None or _loading.scopes or _loading.functions or _loading.volatile:
        _loading = Loading()
    return _loading


def note_function(function: FunctionType) -> None:
    """Record a function that was rebuilt."""
    if _loading is not None:
        _loading.functions.append(function)


def note_volatile() -> None:
    """Record that a value was looked up in the namespace, and may be another next time."""
    if _loading is not None:
        _loading.volatile = True


def carrying(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """Return those of *scopes* that matter during a call: they brought names or hints."""
    return tuple(scope for scope in scopes if scope.carried or scope.hints)


class active:  # noqa: N801 - a context manager, named as it reads
    """Let code that runs within, and functions that it makes, see the carried names of *scopes*."""

    __slots__ = ("_saved", "_scopes")

    def __init__(self, scopes: Sequence[Scope]) -> None:
        self._scopes = scopes

    def __enter__(self) -> None:
        namespace = _main()
        self._saved = namespace.get("__builtins__", builtins)
        namespace["__builtins__"] = self._merged()

    def __exit__(self, *exc: object) -> None:
        _main()["__builtins__"] = self._saved

    def _merged(self) -> Namespace:
        if len(self._scopes) == 1 and self._saved is builtins:
            ready = self._scopes[0].builtins  # the usual case, many times a second
            if ready is not None:
                return ready
        return _merged(self._saved, self._scopes)


def keep(scopes: Iterable[Scope]) -> None:
    """Leave the carried names of *scopes* in place: their functions stay in the namespace (a push)."""
    namespace = _main()
    namespace["__builtins__"] = _merged(namespace.get("__builtins__", builtins), scopes)


def explain(error: NameError, scopes: Iterable[Scope]) -> None:
    """Add to *error* that the name exists on the client, where it does."""
    name = getattr(error, "name", None)
    for scope in scopes:
        if name in scope.hints:
            note = (
                f"{name!r} exists on the client ({scope.hints[name]}); "
                f"push it with view[{name!r}] = {name} or pass it as an argument"
            )
            notes = getattr(error, "__notes__", [])
            if note not in notes:
                error.__notes__ = [*notes, note]  # type: ignore[attr-defined, unused-ignore]
            return


def _merged(base: Any, scopes: Iterable[Scope]) -> Namespace:
    merged = dict(base if isinstance(base, dict) else vars(base))
    for scope in scopes:
        merged.update(scope.carried)
    return merged


def _builtins_of(namespace: Namespace) -> Namespace:
    found: Any = namespace.get("__builtins__", builtins)
    return found if isinstance(found, dict) else vars(found)


def _main() -> Namespace:
    return vars(sys.modules["__main__"]) if _namespace is None else _namespace


def _globals(module: str) -> Namespace:
    if not module:
        return _main()
    try:
        return vars(importlib.import_module(module))
    except ModuleNotFoundError:  # a client's test or script folder: the next best place is the namespace
        return _main()
