"""Many errors become one that begins with a summary."""

from __future__ import annotations

from collections.abc import Sequence

from hpcremote.errors import CompositeError, NotConnected, RemoteError

#: At most this many different errors are named in the summary line.
KINDS = 3
_LONGEST = 120


def composite(name: str, errors: Sequence[tuple[int, BaseException]], total: int) -> BaseException:
    """Return one error for the *errors*, pairs of engine and error, of *total* results of *name*.

    Where all failed because the controller went away, that is the error.
    """
    first = errors[0][1]
    if isinstance(first, NotConnected) and all(error is first for _, error in errors):
        return first
    kinds: dict[str, list[int]] = {}
    for engine, error in errors:
        kinds.setdefault(_title(error), []).append(engine)
    told = [f"{title} on {_engines(engines)}" for title, engines in list(kinds.items())[:KINDS]]
    if len(kinds) > KINDS:
        told.append(f"and {len(kinds) - KINDS} other errors")
    count = f"{len(errors)} of {total}" if total > 1 else "1"
    message = f"{name} failed on {count} engine{'s' if total > 1 else ''}: {'; '.join(told)}"
    return CompositeError(message, [error for _, error in errors])


def _title(error: BaseException) -> str:
    if isinstance(error, RemoteError):
        kind, text = error.ename, error.evalue
    else:
        kind, text = type(error).__name__, str(error)
    line = text.partition("\n")[0]
    if len(line) > _LONGEST:
        line = line[: _LONGEST - 3] + "..."
    return f"{kind}({line})"


def _engines(engines: Sequence[int]) -> str:
    """Return ``engine 3`` or ``engines 0-3, 7``."""
    ranges: list[list[int]] = []
    for engine in engines:
        if ranges and engine == ranges[-1][1] + 1:
            ranges[-1][1] = engine
        else:
            ranges.append([engine, engine])
    text = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
    return f"engine{'s' if len(engines) > 1 else ''} {text}"
