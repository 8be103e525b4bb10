"""What the notes of several ranks say: collectives that do not match. Pure.

::

    engine's I/O thread ──dump──▶ a file ──node agent──▶ controller ──▶ client ──read──▶ Note ─┐
                                                             stack of the rank, seen by signal ┴─▶ differing

A note may be a moment old, and much older if the rank's C code holds the GIL since: the operation in it
counts only if the rank's stack, which is never old, is at the line that called it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpcremote.wire.notes import Note, read
from hpcremote.wire.stacks import Stack, Waiting, mismatches


def differing(notes: Mapping[int, tuple[Note, Stack]], noun: str = "rank") -> list[str]:
    """Name the collectives that ranks of one MPI job wait in and that are others on other ranks."""
    rows: list[Waiting] = []
    met: set[tuple[str, int]] = set()
    for rank, (note, stack) in notes.items():
        if not stack.frames:
            continue  # it is in no call: the note is of the last one
        inside = any((frame.file, frame.line) == (note.file, note.line) for frame in stack.frames)
        for name, steps in note.steps.items():
            for step in steps:
                current = inside and step is steps[-1] and step.operation == note.operation
                rows.append(Waiting(rank, name, *step, over=not current))
                if current:
                    met.add((name, step.number))
    return mismatches([row for row in rows if (row.communicator, row.number) in met], noun)


def told(rows: Mapping[int, Mapping[str, Any]], by_engine: Mapping[int, Stack], noun: str) -> list[str]:
    """Do so for what a controller answers about engines, which may be of several jobs."""
    jobs: dict[int, dict[int, tuple[Note, Stack]]] = {}
    for engine, row in rows.items():
        if text := row.get("note"):
            notes = jobs.setdefault(engine - int(row["rank"]), {})
            notes[engine] = read(str(text)), by_engine[engine]
    return [line for notes in jobs.values() for line in differing(notes, noun)]
