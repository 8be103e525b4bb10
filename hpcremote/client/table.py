"""A table of engines, for people."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from hpcremote.wire.messages import EngineInfo

_COLUMNS = ("id", "set", "rank", "host", "pid", "python", "mpi")


class EngineTable:
    """Rows of ``id, set, rank, host, pid, python, mpi``; prints as text, and as a table in notebooks.

    Attributes:
        rows: the engines, in order of their ids.
    """

    columns = _COLUMNS

    def __init__(self, engines: Iterable[EngineInfo]) -> None:
        self.rows = [
            (
                str(engine.id),
                engine.set_id[:8],
                f"{engine.rank}/{engine.size}" if engine.rank >= 0 else "-",
                engine.host,
                str(engine.pid),
                engine.python,
                engine.mpi.partition("\n")[0],
            )
            for engine in sorted(engines, key=lambda engine: engine.id)
        ]

    def __str__(self) -> str:
        table = [_COLUMNS, *self.rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in table
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{column}</th>" for column in _COLUMNS)
        body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        return f"<table><tr>{head}</tr>{body}</table>"
