"""What a rank notes of its collectives while a call runs, for those who ask where it is. Pure, and small."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

#: So many of each communicator's last collectives are noted.
NOTED = 8


class Step(NamedTuple):
    """A collective that a rank has entered: its number on its communicator, name, and root."""

    number: int
    operation: str
    root: int | None


class Note(NamedTuple):
    """The blocking operation that a rank is in ("" if in none), and its collectives by communicator."""

    operation: str = ""
    file: str = ""
    line: int = 0
    steps: Mapping[str, Sequence[Step]] = {}
    communicator: str = ""


def dump(note: Note) -> str:
    """Return *note* as text."""
    steps = {name: list(some)[-NOTED:] for name, some in note.steps.items()}
    return json.dumps([note.operation, note.file, note.line, steps, note.communicator])


def read(text: str) -> Note:
    """Return the note in *text*, an empty one if there is none or it is half written."""
    try:
        operation, file, line, steps, communicator = json.loads(text)
        found = {name: [Step(*step) for step in some] for name, some in steps.items()}
    except (ValueError, TypeError, AttributeError):
        return Note()
    return Note(operation, file, line, found, communicator)
