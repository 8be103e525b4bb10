"""What a function asks of the engine that it runs on: references, requirements, conditions.

:class:`Reference` stands for an expression that the engine evaluates. ``@require`` imports modules and
pushes objects before the call, ``@depend`` asks a condition; where they are not met, the function does not
run and the call fails with UnmetDependency. ``@interactive`` gives a module's function the engine's
namespace.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, NoReturn

from hpcremote.errors import UnmetDependency
from hpcremote.wire.scope import engine_namespace, note_volatile

# ------------------------------------------------------------------ Reference


class Reference:
    """An expression, evaluated in the engine's namespace when it gets there.

    Anywhere inside the arguments of a call, or as the function: ``view.apply(f, Reference("a"))``.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str):
            raise TypeError(f"a Reference is made of a name or an expression in text, not of {name!r}")
        self.name = name

    def __repr__(self) -> str:
        return f"Reference({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return resolve, (self.name,)

    def __copy__(self) -> Reference:
        return self

    def __deepcopy__(self, memo: object) -> Reference:
        return self

    def _not_here(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError(f"{self!r} lives on the engines: pass it to view.apply(...) instead of using it here")

    __call__ = __iter__ = __len__ = __getitem__ = __setitem__ = __contains__ = _not_here
    __add__ = __sub__ = __mul__ = __matmul__ = __truediv__ = __floordiv__ = __mod__ = __pow__ = _not_here
    __radd__ = __rsub__ = __rmul__ = __rmatmul__ = __rtruediv__ = __rfloordiv__ = __rmod__ = _not_here
    __rpow__ = __neg__ = __pos__ = __abs__ = __invert__ = __lt__ = __le__ = __gt__ = __ge__ = _not_here
    __int__ = __float__ = __index__ = __and__ = __or__ = __xor__ = __rand__ = __ror__ = __rxor__ = _not_here


def resolve(name: str) -> Any:
    """Return what *name* is on this engine; in a process that is none, the Reference again.

    Raises:
        NameError: the engine has no such name.
    """
    namespace = engine_namespace()
    if namespace is None:
        return Reference(name)
    note_volatile()
    try:
        return eval(name, namespace)  # noqa: S307 - evaluating users' expressions is what an engine is for
    except NameError as error:
        message = f"{error} on this engine, asked for by Reference({name!r})"
        raise NameError(message, name=error.name) from None


# ------------------------------------------------------------------ require, depend


class dependent:  # noqa: N801 - ipyparallel's name
    """A function that first asks whether it can run: what ``@depend`` and ``@require`` make."""

    def __init__(
        self,
        func: Callable[..., Any],
        condition: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.func = func
        self.condition = condition
        self.args = args
        self.kwargs = kwargs or {}
        functools.update_wrapper(self, func, updated=())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function if its condition holds.

        Raises:
            UnmetDependency: it does not.
        """
        if self.condition(*self.args, **self.kwargs) is False:
            raise UnmetDependency(
                f"{_name(self.func)} depends on {_name(self.condition)}, which returned False; it did not run"
            )
        return self.func(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return dependent, (self.func, self.condition, self.args, self.kwargs)

    def __repr__(self) -> str:
        return f"<{_name(self.func)}, dependent on {_name(self.condition)}>"


class Depend:
    """The decorator that ``depend(condition, ...)`` returns."""

    def __init__(self, condition: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.condition = condition
        self.args = args
        self.kwargs = kwargs

    def __call__(self, func: Callable[..., Any]) -> dependent:
        """Return *func* with this condition."""
        return dependent(func, self.condition, self.args, self.kwargs)


def depend(condition: Callable[..., Any], *args: Any, **kwargs: Any) -> Depend:
    """Run the decorated function only where ``condition(*args, **kwargs)`` is not False.

    The condition is asked on the engine, before each call. It may also raise UnmetDependency itself.
    """
    if not callable(condition):
        raise TypeError(f"a function has to be asked, not {condition!r}")
    return Depend(condition, args, kwargs)


class Requirement:
    """Imports modules and binds objects in the globals of the function that requires them."""

    def __init__(self, func: Callable[..., Any], modules: tuple[str, ...], objects: dict[str, Any]) -> None:
        self.func = func
        self.modules = modules
        self.objects = objects
        self.__name__ = f"require({', '.join([*modules, *objects])})"

    def __call__(self) -> bool:
        """Meet the requirement.

        Raises:
            UnmetDependency: a module cannot be imported.
        """
        space = _globals_of(self.func)
        for name in self.modules:
            try:
                __import__(name)
            except ImportError as error:
                message = f"{_name(self.func)} requires {name!r}: {error}; it did not run"
                raise UnmetDependency(message) from error
            top = name.partition(".")[0]
            space[top] = sys.modules[top]
        space.update(self.objects)
        return True

    def __reduce__(self) -> tuple[Any, ...]:
        return Requirement, (self.func, self.modules, self.objects)


def require(*objects: ModuleType | str | Callable[..., Any], **named: Any) -> Callable[[Any], dependent]:
    """Import modules, and push functions and objects, before each call of the decorated function.

    Modules are given as such or by name, functions as such; anything else by keyword.
    """
    modules: list[str] = []
    for item in objects:
        if isinstance(item, str):
            modules.append(item)
        elif isinstance(item, ModuleType):
            modules.append(item.__name__)
        elif callable(item) and hasattr(item, "__name__"):
            named[item.__name__] = item
        else:
            raise TypeError(f"@require takes modules, their names, functions, and name=object; not {item!r}")

    def decorate(func: Callable[..., Any]) -> dependent:
        return dependent(func, Requirement(func, tuple(modules), named))

    return decorate


def interactive(func: Callable[..., Any]) -> Callable[..., Any]:
    """Return a module's function as if defined at the prompt: with the engine's namespace as globals."""
    if isinstance(func, FunctionType):
        space = vars(sys.modules["__main__"])
        made = FunctionType(func.__code__, space, func.__name__, func.__defaults__, func.__closure__)
        made.__kwdefaults__ = func.__kwdefaults__
        func = functools.update_wrapper(made, func)
        del func.__wrapped__  # it would travel along
    func.__module__ = "__main__"
    return func


def _globals_of(func: Any) -> dict[str, Any]:
    while not isinstance(func, FunctionType):
        for name in ("func", "__func__", "__wrapped__"):
            if hasattr(func, name):
                func = getattr(func, name)
                break
        else:
            return engine_namespace() or vars(sys.modules["__main__"])
    return func.__globals__


def _name(func: Any) -> str:
    return str(getattr(func, "__name__", None) or repr(func))
