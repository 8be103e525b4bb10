"""What an engine does for a call: ``op`` and a payload in, a value out.

::

    op       payload                                       value
    apply    (function or None, args, kwargs)              what the function returns
    execute  (code, filename, silent)                      None, or a record of what the last line shows
    push     {name: value}                                 None
    pull     name, or names                                the value, or a list
    clear    None                                          None
    pickler  name of a pickler                             None
    mpi_...  what all engines of the call do together: see engine.bulk
    save, peek, load  the namespace and its file: see engine.saving
    walltime  what runs before the job ends: see engine.ending

Whatever user code raises comes out as it is, SystemExit and KeyboardInterrupt too: the executor turns all
of it into a failure, and the engine lives on. :meth:`Operations.answer` does both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import CoroutineType
from typing import Any

from hpcremote.engine.namespace import Namespace
from hpcremote.engine.source import Source
from hpcremote.wire import payload, scope
from hpcremote.wire.failure import capture
from hpcremote.wire.functions import FunctionCache
from hpcremote.wire.pickler import Buffer
from hpcremote.wire.scope import Scope


class Operations:
    """The operations of one engine.

    Attributes:
        functions: the definitions that clients sent.
        namespace: the engine's namespace.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.functions = FunctionCache()
        self.namespace = namespace
        self._source = Source(namespace)
        self._operations: dict[str, Callable[[bytes, Sequence[Buffer]], Any]] = {
            "apply": self.apply,
            "execute": self._execute,
            "push": self.push,
            "pull": self._pull,
            "clear": self._clear,
            "pickler": self._pickler,
        }

    def perform(self, op: str, function_data: bytes | None, digest: bytes, pieces: Sequence[Buffer]) -> Any:
        """Do *op* and return its value. *function_data*, where given, defines *digest*.

        Raises:
            LookupError: there is no such operation, or the function of this digest is not here.
            BaseException: whatever user code raises.
        """
        if function_data and digest:
            self.functions.define(digest, function_data)
        return self._find(op)(digest, pieces)

    def _find(self, op: str) -> Callable[[bytes, Sequence[Buffer]], Any]:
        if op not in self._operations and op.startswith("mpi_"):
            from hpcremote.engine.bulk import Bulk  # an engine that never needs it need not hold it

            self._operations.update(Bulk(self).operations)
        elif op not in self._operations and op in ("save", "peek", "load"):
            from hpcremote.engine import saving

            self._operations.update(saving.operations())
        elif op not in self._operations and op == "walltime":
            from hpcremote.engine import ending

            self._operations[op] = ending.perform
        try:
            return self._operations[op]
        except KeyError:
            raise LookupError(
                f"the engine knows no operation {op!r}: the client is of another version"
            ) from None

    def answer(
        self, op: str, function_data: bytes | None, digest: bytes, pieces: Sequence[Buffer]
    ) -> tuple[str, list[Buffer]]:
        """Do *op*; return ``ok`` and the pieces of its value, or ``error`` and those of the failure."""
        try:
            return "ok", payload.dump_result(self.perform(op, function_data, digest, pieces))
        except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt end the call, not the engine
            return "error", [capture(error)]

    def apply(self, digest: bytes, pieces: Sequence[Buffer]) -> Any:
        """Call a function."""
        loading = scope.begin_loading()
        inline, args, kwargs = payload.load(pieces)
        arrived = scope.carrying(loading.scopes) if loading.scopes else ()
        function, scopes = self.functions.load(digest) if digest else self.functions.load_inline(inline)
        if arrived:
            scopes = (*arrived, *scopes)
        if scopes:
            return _call_within(scopes, function, args, kwargs)
        value = function(*args, **kwargs)
        return _awaited(value) if type(value) is CoroutineType else value

    def _execute(self, digest: bytes, pieces: Sequence[Buffer]) -> Any:
        code, filename, silent = payload.load(pieces)
        return self._source.run(code, filename, silent)

    def push(self, digest: bytes, pieces: Sequence[Buffer]) -> None:
        """Bind names."""
        loading = scope.begin_loading()
        values = payload.load(pieces)
        if carrying := scope.carrying(loading.scopes):
            scope.keep(carrying)
        self.namespace.push(values)

    def _pull(self, digest: bytes, pieces: Sequence[Buffer]) -> Any:
        return self.namespace.pull(payload.load(pieces))

    def _clear(self, digest: bytes, pieces: Sequence[Buffer]) -> None:
        self.namespace.clear()

    def _pickler(self, digest: bytes, pieces: Sequence[Buffer]) -> None:
        payload.use_pickler(payload.load(pieces))


def _call_within(
    scopes: Sequence[Scope], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    with scope.active(scopes):
        try:
            value = function(*args, **kwargs)
            return _awaited(value) if type(value) is CoroutineType else value
        except NameError as error:
            scope.explain(error, scopes)
            raise


def _awaited(coroutine: Any) -> Any:
    import asyncio  # only for those who use it

    return asyncio.run(coroutine)
