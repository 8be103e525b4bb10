"""``with view.sync_imports():`` imports what its block imports on the engines too.

``builtins.__import__`` is replaced while the block runs. It is told the module and the names, but not
what they are bound to (``as np``): that stands in the bytecode of the importing frame, behind the
instruction that is being executed. From both the statement is written again and executed on the engines::

    import numpy as np          IMPORT_NAME numpy; STORE_NAME np
    import a.b as c             IMPORT_NAME a.b; IMPORT_FROM b; ...; STORE_NAME c
    from a import x as y, z     IMPORT_NAME a; IMPORT_FROM x; STORE_NAME y; IMPORT_FROM z; ...; POP_TOP
    from a import *             IMPORT_NAME a; (CALL_INTRINSIC_1 2, before Python 3.12 IMPORT_STAR)

Imports in other frames (of the modules that are imported) and other threads are none of its business.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import FrameType, ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dis

    from hpcremote.client.result import AsyncResult
    from hpcremote.client.view import DirectView

_Import = Callable[..., Any]


class SyncImports:
    """Context manager; see the module's docstring."""

    def __init__(self, view: DirectView, *, local: bool = True, quiet: bool = False) -> None:
        self._view = view
        self._local = local
        self._quiet = quiet
        self._results: list[AsyncResult] = []
        self._sent: set[str] = set()
        self._stand_ins: list[tuple[str, Any]] = []
        self._frame: FrameType | None = None
        self.active = False
        self._former: _Import = builtins.__import__

    def __enter__(self) -> None:
        self._frame = sys._getframe(1)  # noqa: SLF001 - the importing frame is the point
        self.active = True
        self._former = builtins.__import__
        builtins.__import__ = self._import

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        builtins.__import__ = self._former
        self.active = False
        frame, self._frame = self._frame, None
        if frame is not None:
            self._remove_stand_ins(frame)
        if error is None:
            for result in self._results:
                result.get()

    def _import(
        self,
        name: str,
        globals: Any = None,
        locals: Any = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        frame = sys._getframe(1)  # noqa: SLF001 - the importing frame is the point
        if frame is not self._frame:
            return self._former(name, globals, locals, fromlist, level)
        # What dis, the view and the import itself import is not the block's.
        builtins.__import__ = self._former
        try:
            module = self._former(name, globals, locals, fromlist, level) if self._local else None
            package = (globals or {}).get("__package__")
            full = importlib.util.resolve_name("." * level + name, package) if level else name
            statement, bound = _statement(frame, full, from_module=bool(fromlist))
            if statement not in self._sent:
                self._sent.add(statement)
                self._announce(statement)
                self._results.append(self._view.execute(statement, block=False))
            if self._local:
                return module
            self._stand_ins += [(target, frame.f_locals.get(target, _ABSENT)) for target in bound]
            return _StandIn(full, self)
        finally:
            builtins.__import__ = self._import

    def _announce(self, statement: str) -> None:
        if self._quiet:
            return
        # from a import x, y -> x, y from a
        source, _, names = statement.partition(" import ")
        what = f"{names} {source}" if names else statement.removeprefix("import ")
        sys.stdout.write(f"importing {what} on engine(s)\n")

    def _remove_stand_ins(self, frame: FrameType) -> None:
        """Give names that were bound to stand-ins their former values.

        The variables of a function cannot be taken back: there the stand-in stays, and says what it is.
        """
        variables = frame.f_locals
        if not frame.f_code.co_flags & _IS_FUNCTION:
            for name, former in reversed(self._stand_ins):
                if former is not _ABSENT:
                    variables[name] = former
                elif isinstance(variables.get(name), _StandIn):
                    del variables[name]
        self._stand_ins.clear()


#: CO_OPTIMIZED: the code has fast locals, so ``f_locals`` is a copy or a view of them.
_IS_FUNCTION = 1
_ABSENT = object()


class _StandIn(ModuleType):
    """What an import returns that is done on the engines only: anything, until the block ends."""

    __all__ = ()

    def __init__(self, name: str, block: SyncImports) -> None:
        super().__init__(name)
        self.__dict__["_block"] = block

    def __getattr__(self, name: str) -> Any:
        block: SyncImports = self.__dict__["_block"]
        if block.active and not name.startswith("__"):
            return _StandIn(f"{self.__name__}.{name}", block)
        raise AttributeError(
            f"{self.__name__} was imported on the engines only, by sync_imports(local=False); "
            f"here it has no {name!r}"
        )


def _statement(frame: FrameType, module: str, *, from_module: bool) -> tuple[str, list[str]]:
    """Return the import statement that *frame* is executing, and the names that it binds."""
    import dis

    imported = ""
    names: list[tuple[str, str]] = []
    for item in dis.get_instructions(frame.f_code):
        if item.offset <= frame.f_lasti:
            continue
        if item.opname == "IMPORT_FROM":
            imported = item.argval
        elif item.opname.startswith("STORE_"):
            names.append((imported, _stored(item)))
            if not from_module:
                break
        elif item.opname == "IMPORT_STAR" or (item.opname == "CALL_INTRINSIC_1" and item.arg == _STAR):
            return f"from {module} import *", []
        elif item.opname == "POP_TOP" and from_module:
            break
    bound = [stored for _, stored in names]
    if from_module:
        return f"from {module} import {', '.join(_aliased(*pair) for pair in names)}", bound
    if not imported and bound == [module.partition(".")[0]]:
        return f"import {module}", bound
    return f"import {module} as {bound[0]}", bound


#: Argument of CALL_INTRINSIC_1 that imports everything.
_STAR = 2


def _stored(item: dis.Instruction) -> str:
    # Python 3.13 joins a store with the instruction behind it: the first of two names is ours.
    return str(item.argval[0] if isinstance(item.argval, tuple) else item.argval)


def _aliased(name: str, alias: str) -> str:
    return name if name == alias else f"{name} as {alias}"
