"""The engine's one namespace: the module ``__main__`` that users' code lives in."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from hpcremote.wire.scope import set_namespace


class Namespace:
    """A fresh module ``__main__`` and what can be done with it.

    Attributes:
        module: the module; ``sys.modules["__main__"]`` while the engine runs.
        dict: its names and values: THE namespace.
    """

    def __init__(self) -> None:
        self.module = ModuleType("__main__", "The namespace of an hpcremote engine.")
        self.dict: dict[str, Any] = vars(self.module)
        self.dict["__builtins__"] = builtins
        self._first: dict[str, Any] = dict(self.dict)

    def install(self) -> None:
        """Make it ``__main__``, and the globals of functions that clients send."""
        sys.modules["__main__"] = self.module
        set_namespace(self.dict)

    def keep(self) -> None:
        """Let :meth:`clear` bring back what is there now (after start-up)."""
        self._first = dict(self.dict)

    def clear(self) -> None:
        """Forget everything that was put there since start-up, and restore what start-up put there."""
        first = self._first
        for name in [name for name in self.dict if name not in first]:
            self.dict.pop(name, None)  # a __del__ of the user's may take other names with it
        self.dict.update(first)

    def own(self) -> dict[str, Any]:
        """Return what was put there: not what belongs to every module, nor what start-up put there."""
        first = self._first
        return {
            name: value
            for name, value in self.dict.items()
            if not (name.startswith("__") and name.endswith("__"))
            and not (name in first and first[name] is value)
        }

    def push(self, values: Mapping[str, Any]) -> None:
        """Bind names, or expressions that can be assigned to (``a.b``, ``a[0]``).

        Raises:
            ValueError: a key is neither.
        """
        for name, value in values.items():
            if isinstance(name, str) and name.isidentifier():
                self.dict[name] = value
            else:
                self._assign(name, value)

    def pull(self, names: str | Sequence[str]) -> Any:
        """Return the value of an expression, or the list of the values of several.

        Raises:
            NameError: there is no such name on this engine.
        """
        if isinstance(names, str):
            return self.evaluate(names)
        return [self.evaluate(name) for name in names]

    def evaluate(self, expression: str) -> Any:
        """Return the value of *expression*."""
        try:
            return self.dict[expression]
        except (KeyError, TypeError):
            pass
        if not isinstance(expression, str):
            raise TypeError(f"names are pulled by text, not by {expression!r}")
        try:
            return eval(expression, self.dict)  # noqa: S307 - what an engine is for
        except NameError as error:
            raise NameError(str(error), name=error.name) from None

    def _assign(self, name: Any, value: Any) -> None:
        try:
            code = compile(f"{name} = _hpcremote_value", "<push>", "exec")
        except (SyntaxError, ValueError):
            raise ValueError(f"{name!r} cannot be assigned to: push names, 'a.b' or 'a[0]'") from None
        exec(code, self.dict, {"_hpcremote_value": value})  # noqa: S102 - what an engine is for
