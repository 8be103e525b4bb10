"""A table of engines, for people."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from html import escape
from typing import Any

from hpcremote.client.comm import base_of
from hpcremote.wire.messages import EngineInfo
from hpcremote.wire.walltime import words

_COLUMNS = ("id", "set", "rank", "host", "pid", "cores", "state", "left", "memory", "python", "mpi")


class EngineTable:
    """Rows of ``id, set, rank, host, pid, cores, state, left, memory, python, mpi``, also for notebooks.

    ``state`` is ``idle`` or ``busy``, with how many calls wait. Of a process that does not run it is
    ``stopped``, or ``waiting for I/O`` where it hangs in the kernel, and with calls ``stopped while busy``.
    ``left`` (until the engine's job ends) and ``memory`` (what it has resident) are there where they are
    known.

    Args:
        engines: the engines.
        numbers: by which number ``Client.set`` gives the set of a lowest id.
        status: what the controller says of each engine, by its id as text.
        left: returns the seconds until the job of some sets ends, or None.

    Attributes:
        rows: the engines, in order of their ids.
        columns: what a row has.
    """

    def __init__(
        self,
        engines: Iterable[EngineInfo],
        numbers: Mapping[int, int],
        status: Mapping[str, Mapping[str, Any]],
        left: Callable[[Collection[str]], float | None] = lambda sets: None,
    ) -> None:
        rows = [
            _row(
                engine,
                numbers.get(base_of(engine), -1),
                status.get(str(engine.id), {}),
                left({engine.set_id}),
            )
            for engine in sorted(engines, key=lambda engine: engine.id)
        ]
        known = {name: any(row[_COLUMNS.index(name)] for row in rows) for name in ("left", "memory")}
        kept = [index for index, name in enumerate(_COLUMNS) if known.get(name, True)]
        self.columns = tuple(_COLUMNS[index] for index in kept)
        self.rows = [tuple(row[index] for index in kept) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        table = [self.columns, *self.rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(self.columns))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in self.columns)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<table><tr>{head}</tr>{body}</table>"


def _row(engine: EngineInfo, number: int, status: Mapping[str, Any], left: float | None) -> tuple[str, ...]:
    return (
        str(engine.id),
        str(number) if number >= 0 else engine.set_id[:8],
        f"{engine.rank}/{engine.size}" if engine.rank >= 0 else "-",
        engine.host,
        str(engine.pid),
        engine.cores,
        _state(int(status.get("queue", 0)), status.get("state", "")) if status else "?",
        "" if left is None else words(left),
        f"{status['memory'] / 2**20:.0f} MiB" if status.get("memory") else "",
        engine.python,
        engine.mpi.partition("\n")[0],
    )


def _state(queue: int, noticed: str) -> str:
    if queue == 0:
        return noticed or "idle"
    busy = "busy" if queue == 1 else f"busy, {queue - 1} queued"
    return f"{noticed} while {busy}" if noticed else busy
