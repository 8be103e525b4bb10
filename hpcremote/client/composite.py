"""Many errors become one that begins with a summary."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpcremote.errors import (
    CollectiveError,
    CompositeError,
    EngineError,
    NotConnected,
    NotEnoughTime,
    Released,
    RemoteError,
    spans,
)

#: At most this many different errors are named in the summary line.
KINDS = 3
_LONGEST = 120


def composite(
    name: str, errors: Sequence[tuple[int, BaseException]], total: int, finished: Sequence[int] = ()
) -> BaseException:
    """Return one error for the *errors*, pairs of engine and error, of *total* results of *name*.

    Where all failed because the controller went away, or had no time for it, that is the error. Where some
    had to be released from MPI it is a CollectiveError, which tells where the call *finished*, too.
    """
    first = errors[0][1]
    if isinstance(first, NotConnected) and all(error is first for _, error in errors):
        return first
    if all(isinstance(error, NotEnoughTime) for _, error in errors) and len(errors) == total:
        return first
    released = [engine for engine, error in errors if isinstance(error, Released)]
    kinds: dict[str, list[int]] = {}
    for engine, error in sorted(errors, key=lambda one: _is_aftermath(one[1])):
        if engine in released:
            continue
        kinds.setdefault(_title(engine, error), []).append(engine)
    told = [f"{title} on {_engines(engines)}" for title, engines in list(kinds.items())[:KINDS]]
    if len(kinds) > KINDS:
        told.append(f"and {len(kinds) - KINDS} other errors")
    told = told or ["the communicators had to be made anew"]
    failed = len(errors) - len(released) or len(errors)
    count = f"{failed} of {total}" if total > 1 else "1"
    message = f"{name} failed on {count} engine{'s' if total > 1 else ''}: {'; '.join(told)}"
    if released:
        waited = f"; {_engines(released)} waited for it in MPI and had to be released"
        engines = [engine for engine, _ in errors]
        return CollectiveError(message + waited, [error for _, error in errors], engines, finished)
    return CompositeError(message, [error for _, error in errors])


def _is_aftermath(error: BaseException) -> bool:
    """Say whether an engine ended because another one had: that one is told first."""
    return isinstance(error, EngineError) and " of the same MPI job: " in error.cause


def _title(engine: int, error: BaseException) -> str:
    """Return the error in one line, without the engine: those that differ in nothing else are one kind."""
    if isinstance(error, RemoteError):
        kind, text = error.ename, error.evalue
    else:
        kind, text = type(error).__name__, str(error)
    line = re.sub(
        rf" (\[engine {engine}( \([^()]*\))?\]$|on engine {engine} \([^()]*\))", "", text.partition("\n")[0]
    )
    if len(line) > _LONGEST:
        line = line[: _LONGEST - 3] + "..."
    return f"{kind}({line})"


def _engines(engines: Sequence[int]) -> str:
    """Return ``engine 3`` or ``engines 0-3, 7``."""
    return f"engine{'s' if len(engines) > 1 else ''} {spans(engines)}"
