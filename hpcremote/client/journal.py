"""What a client has executed on the engines, as text, so that a restarted set can be set up again.

::

    view.execute / run / sync_imports ──add()──▶ journal ──take()──▶ EngineSet.restart(replay=True)

Kept is code only: no arguments, no data. Code that raised, or whose engine died, is not run again.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcremote.client.result import AsyncResult

#: How many pieces of code are kept, and how many characters in all.
MOST, MOST_TEXT = 1_000, 4_000_000


@dataclass(slots=True)
class Entry:
    """A piece of code, where it ran, and whether it did without an error."""

    ids: tuple[int, ...]
    code: str
    filename: str
    good: bool = False


class Journal:
    """The last pieces of code that a client has executed.

    Attributes:
        forgotten: how many have been forgotten because there was no room for them.
    """

    def __init__(self) -> None:
        self.forgotten = 0
        self._entries: deque[Entry] = deque()
        self._text = 0
        self._lock = threading.Lock()

    def add(self, result: AsyncResult, code: str, filename: str) -> None:
        """Take note of code that was sent; *result* says where, and will say how it went."""
        entry = Entry(tuple(flight.targets[seat] for flight, seat in result.seats), code, filename)
        with self._lock:
            self._entries.append(entry)
            self._text += len(code)
            while len(self._entries) > MOST or self._text > MOST_TEXT:
                self._text -= len(self._entries.popleft().code)
                self.forgotten += 1

        def note(done: AsyncResult) -> None:
            entry.good = not done.cancelled() and done.exception() is None

        result.add_done_callback(note)  # type: ignore[arg-type]

    def take(self, ids: Iterable[int]) -> list[Entry]:
        """Return what went well on some of these engines, for these alone, and forget that it ran there."""
        wanted = set(ids)
        taken: list[Entry] = []
        with self._lock:
            for entry in self._entries:
                here = tuple(one for one in entry.ids if one in wanted)
                if here and entry.good:
                    taken.append(Entry(here, entry.code, entry.filename, good=True))
                entry.ids = tuple(one for one in entry.ids if one not in wanted)
            self._entries = deque(entry for entry in self._entries if entry.ids)
            self._text = sum(len(entry.code) for entry in self._entries)
        return taken
