"""What a code object needs from its surroundings, found once and remembered.

Names are those that the bytecode loads as globals, here and in everything nested inside; attributes and
locals of the same name do not count.
"""

from __future__ import annotations

import dis
import marshal
import sys
from collections.abc import Iterable
from types import CodeType, ModuleType
from typing import NamedTuple

from hpcremote.wire.sources import lines_of, parts_of

#: Code objects are not portable between these.
VERSION = sys.version_info[:2]

_LOADS = frozenset(
    dis.opmap[name] for name in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS") if name in dis.opmap
)
_MAX_KNOWN = 1024


class CodeFacts(NamedTuple):
    """A code object on its way: its bytes, the global names it loads, all its names, its source."""

    data: bytes
    globals: tuple[str, ...]
    names: frozenset[str]
    source: tuple[str, ...]


# By id, with the code itself so that the id stays its own: hashing a code object costs more than all else.
_known: dict[int, tuple[CodeType, CodeFacts]] = {}


def facts(code: CodeType) -> CodeFacts:
    """Return what there is to know about *code*."""
    known = _known.get(id(code))
    if known is not None:
        return known[1]
    found = _examine(code)
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    _known[id(code)] = (code, found)
    return found


def _examine(code: CodeType) -> CodeFacts:
    loads: dict[str, None] = {}
    names: set[str] = set()
    for part in parts_of(code):
        names.update(part.co_names)
        loads.update(dict.fromkeys(i.argval for i in dis.get_instructions(part) if i.opcode in _LOADS))
    return CodeFacts(marshal.dumps(code), tuple(loads), frozenset(names), tuple(lines_of(code)))


def submodules(code: CodeType, modules: Iterable[ModuleType]) -> tuple[str, ...]:
    """Return the imported submodules that *code* reaches by attribute: ``xml.etree`` where it uses ``xml``.

    ``import xml.etree.ElementTree`` binds only ``xml``, and an engine that imports ``xml`` lacks the rest.
    """
    prefixes = tuple(f"{module.__name__}." for module in modules if getattr(module, "__path__", None))
    if not prefixes:
        return ()
    used = facts(code).names
    found = []
    for name in list(sys.modules):
        if name.startswith(prefixes):
            prefix = next(prefix for prefix in prefixes if name.startswith(prefix))
            if used.issuperset(name[len(prefix) :].split(".")):
                found.append(name)
    return tuple(found)
