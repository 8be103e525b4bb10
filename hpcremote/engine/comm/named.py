"""The name ``comm`` in code that ``execute`` and ``run`` send: ``hpcremote.comm()`` of the running call.

It stands behind the namespace, where travelling helpers stand too: the user's own ``comm`` wins, nothing is
installed, and a communicator is made where the name is looked up for the first time, or never. ::

    name ──▶ namespace ──▶ builtins ──▶ comm ──▶ NameError

Functions that such code defines keep what stands behind them, so they find the ``comm`` of whichever call
they run in. Python looks up all their global names more slowly then, so other code goes without. Imports no
mpi4py.
"""

from __future__ import annotations

import builtins
import symtable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hpcremote.engine.comm import current

#: The name.
NAME = "comm"


class Behind(dict[str, Any]):
    """Builtins, and behind them the communicator of the running call, where there is one."""

    def __missing__(self, name: str) -> Any:
        if name == NAME and current.is_there():
            return current.comm()
        raise KeyError(name)


@contextmanager
def offered(namespace: dict[str, Any], code: str, filename: str) -> Iterator[None]:
    """Let *code*, which is about to run in *namespace*, find ``comm`` if it looks for one and has none."""
    if NAME not in code or NAME in namespace or not current.is_there() or not _looks_for_it(code, filename):
        yield
        return
    kept = namespace.get("__builtins__", builtins)
    namespace["__builtins__"] = Behind(kept if isinstance(kept, dict) else vars(kept))
    try:
        yield
    finally:
        namespace["__builtins__"] = kept


def _looks_for_it(code: str, filename: str) -> bool:
    """Say whether *code* reads a global ``comm`` that it does not bind itself."""
    table = symtable.symtable(code, filename, "exec")
    if NAME in table.get_identifiers():
        symbol = table.lookup(NAME)
        return symbol.is_referenced() and not (symbol.is_assigned() or symbol.is_imported())
    return any(map(_reads_global, table.get_children()))


def _reads_global(table: symtable.SymbolTable) -> bool:
    if NAME in table.get_identifiers() and table.lookup(NAME).is_global():
        return True
    return any(map(_reads_global, table.get_children()))
