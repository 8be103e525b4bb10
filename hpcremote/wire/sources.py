"""Source lines that travel with functions, so that remote tracebacks show them.

Client: :func:`lines_of` cuts a function's lines out of its file, cell or prompt. Engine: :func:`remember`
gives them to :mod:`linecache` under the same file name and line numbers, a bounded number of files.
"""

from __future__ import annotations

import linecache
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import CodeType

MAX_FILES = 256
MAX_LINES = 5000

#: Files that we put into linecache, oldest first.
_ours: OrderedDict[str, None] = OrderedDict()


def lines_of(code: CodeType) -> list[str]:
    """Return the source lines of *code*, or none where they are not known."""
    first = code.co_firstlineno
    last = max((line for part in parts_of(code) for *_, line in part.co_lines() if line), default=first)
    return linecache.getlines(code.co_filename)[first - 1 : min(last, first + MAX_LINES)]


def parts_of(code: CodeType) -> Iterator[CodeType]:
    """Yield *code* and the code of everything defined inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from parts_of(constant)


def remember(filename: str, first: int, lines: Sequence[str]) -> None:
    """Let tracebacks find *lines* at line number *first* of *filename*."""
    if not lines:
        return
    known = linecache.cache.get(filename)
    text = list(known[2]) if known is not None and len(known) == 4 else []
    text += ["\n"] * (first - 1 - len(text))
    text[first - 1 : first - 1 + len(lines)] = lines
    # Without a time stamp, linecache.checkcache() leaves the entry alone.
    linecache.cache[filename] = (sum(map(len, text)), None, text, filename)
    _ours[filename] = None
    _ours.move_to_end(filename)
    while len(_ours) > MAX_FILES:
        linecache.cache.pop(_ours.popitem(last=False)[0], None)
