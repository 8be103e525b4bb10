"""What the notes of several ranks say: collectives that do not match. Pure.

::

    engine's I/O thread ──dump──▶ a file ──node agent──▶ controller ──▶ client ──read──▶ Note ─┐
                                                             stack of the rank, seen by signal ┴─▶ differing

A note may be a moment old, and much older if the rank's C code holds the GIL since: the operation in it
counts only if the rank's stack, which is never old, is at the line that called it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

from hpcremote.wire.notes import Note, Step, read
from hpcremote.wire.stacks import Stack, Waiting, mismatches, who


def differing(notes: Mapping[int, tuple[Note, Stack]], noun: str = "rank", base: int = 0) -> list[str]:
    """Name the collectives that ranks of one MPI job wait in and that are others on other ranks.

    Args:
        notes: what each engine notes, and its stack.
        noun: what an engine is called.
        base: the engine that is rank 0.
    """
    rows: list[Waiting] = []
    met: set[tuple[str, int]] = set()
    waits: dict[str, dict[int, Step]] = {}
    for rank, (note, stack) in notes.items():
        if not stack.frames:
            continue  # it is in no call: the note is of the last one
        there = any((frame.file, frame.line) == (note.file, note.line) for frame in stack.frames)
        for name, steps in note.steps.items():
            inside = there and name == note.communicator
            for step in steps:
                current = inside and step is steps[-1] and step.operation == note.operation
                rows.append(Waiting(rank, name, *step, over=not current))
                if current:
                    met.add((name, step.number))
                    waits.setdefault(name, {})[rank] = step
    found = mismatches([row for row in rows if (row.communicator, row.number) in met], noun)
    return found + _crossed(waits, {rank: note for rank, (note, _) in notes.items()}, noun, base)


def _crossed(
    waits: Mapping[str, Mapping[int, Step]], notes: Mapping[int, Note], noun: str, base: int
) -> list[str]:
    """Name ranks that wait for each other, each side on a communicator of its own."""

    def lacks(name: str, elsewhere: Iterable[int]) -> bool:
        members, number = _members(name), min(step.number for step in waits[name].values())
        steps = {rank: notes[rank].steps.get(name, ()) for rank in elsewhere}
        return any(
            (members is None or rank - base in members) and not (came and came[-1].number >= number)
            for rank, came in steps.items()
        )

    return [
        f"{_those(one, waits[one], noun)}, {_those(other, waits[other], noun)}: they wait for each other"
        for one, other in combinations(sorted(waits, key=lambda name: (len(waits[name]), name)), 2)
        if lacks(one, waits[other]) and lacks(other, waits[one])
    ]


def _members(name: str) -> set[int] | None:
    """Return the ranks of a communicator by its label; None: all."""
    ranks = name.rpartition(" of ranks ")[2] if " of ranks " in name else ""
    return {int(rank) for rank in ranks.split(",")} if ranks else None


def _those(name: str, there: Mapping[int, Step], noun: str) -> str:
    operations = "/".join(dict.fromkeys(step.operation for step in there.values()))
    return f"{who(sorted(there), noun)} in {operations} of {name}"


def told(rows: Mapping[int, Mapping[str, Any]], by_engine: Mapping[int, Stack], noun: str) -> list[str]:
    """Do so for what a controller answers about engines, which may be of several jobs."""
    jobs: dict[int, dict[int, tuple[Note, Stack]]] = {}
    for engine, row in rows.items():
        if text := row.get("note"):
            notes = jobs.setdefault(engine - int(row["rank"]), {})
            notes[engine] = read(str(text)), by_engine[engine]
    return [line for base, notes in jobs.items() for line in differing(notes, noun, base)]
