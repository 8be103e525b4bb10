"""What a client remembers of its calls: all of the recent ones by name, few of them by content.

A million calls must not fill the memory. So of every call only its number and targets are kept, of
the last :data:`HISTORY` calls; its flight is kept by whoever holds a result of it, by the link until
it has landed, and, if it is small, here among the last :data:`RECENT`.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from hpcremote.client.flight import Flight, Raised, Seat
from hpcremote.client.metadata import Metadata

#: How many calls the history goes back.
HISTORY = 10_000
#: How many finished calls are kept with their results, for ``get_result``...
RECENT = 100
#: ... if their results take at most this many bytes.
SMALL = 65_536
#: References to calls that nobody holds any more are thrown out when there are so many, or twice the others.
SWEEP = 1_000

Value = TypeVar("Value")


class History:
    """The names of the last calls, oldest first."""

    def __init__(self, uid: str) -> None:
        self._uid = uid
        self._calls: deque[tuple[int, Sequence[int]]] = deque(maxlen=HISTORY)

    def add(self, flight: Flight) -> None:
        """Remember a call that was sent."""
        self._calls.append((flight.call, flight.targets))

    def msg_ids(self) -> list[str]:
        """Return one name for each call and engine."""
        return [f"{self._uid}_{call}_{engine}" for call, targets in list(self._calls) for engine in targets]

    def pick(self, index: int) -> str:
        """Return the name at *index* of the history.

        Raises:
            IndexError: the history does not go that far back.
        """
        names = self.msg_ids()
        try:
            return names[index]
        except IndexError:
            raise IndexError(f"the history has {len(names)} entries, no number {index}") from None

    def forget(self) -> None:
        """Forget all."""
        self._calls.clear()


class Memory:
    """The calls of one client; see the module's docstring."""

    def __init__(self, uid: str) -> None:
        self._uid = uid
        self.history = History(uid)
        self._flights: dict[int, weakref.ref[Flight]] = {}
        self._sweep = SWEEP
        self._recent: deque[Flight] = deque(maxlen=RECENT)

    def add(self, flight: Flight) -> None:
        """Remember a call that was sent."""
        flights = self._flights
        flights[flight.call] = weakref.ref(flight)
        if len(flights) > self._sweep:
            self._forget_dead()
        self.history.add(flight)

    def _forget_dead(self) -> None:
        # A callback for each reference, which a WeakValueDictionary would have, costs several times as much.
        for call, held in list(self._flights.items()):
            if held() is None:
                self._flights.pop(call, None)
        self._sweep = max(SWEEP, 2 * len(self._flights))

    def landed(self, flight: Flight) -> None:
        """Keep a finished call for a while, if it is small."""
        if flight.weight <= SMALL:
            self._recent.append(flight)

    def find(self, msg_id: str) -> Seat:
        """Return the call and seat of that name.

        Raises:
            KeyError: it is not known, or its result is no longer held.
        """
        uid, _, rest = msg_id.partition("_")
        call, _, engine = rest.partition("_")
        if uid == self._uid and call.isdigit() and engine.isdigit():
            held = self._flights.get(int(call))
            flight = held() if held is not None else None
            if flight is not None and int(engine) in flight.targets:
                return flight, list(flight.targets).index(int(engine))
        raise KeyError(
            f"no result for {msg_id!r}: a client keeps its own last {RECENT} results up to {SMALL} bytes, "
            "and those whose AsyncResult is still held"
        )

    def flights(self) -> list[Flight]:
        """Return the calls that are held by anybody, oldest first."""
        held = [flight for ref in list(self._flights.values()) if (flight := ref()) is not None]
        return sorted(held, key=lambda flight: flight.call)

    def pending(self) -> list[Flight]:
        """Return the calls that owe a result."""
        return [flight for flight in self.flights() if flight.missing]

    def outstanding(self) -> set[str]:
        """Return the names of what owes a result."""
        return {
            flight.msg_id(seat)
            for flight in self.pending()
            for seat, result in enumerate(flight.results)
            if result is None
        }

    def forget(self, seats: Iterable[Seat] | None = None) -> None:
        """Let go of these results (None: all)."""
        gone = {id(flight) for flight, _ in seats} if seats is not None else None
        kept = [flight for flight in self._recent if gone is not None and id(flight) not in gone]
        self._recent.clear()
        self._recent.extend(kept)
        if gone is None:
            for flight in self.flights():
                if not flight.missing:
                    self._flights.pop(flight.call, None)
        else:
            for flight in self.flights():
                if id(flight) in gone:
                    self._flights.pop(flight.call, None)


class ByName(Mapping[str, Value]):
    """What is still known of calls, by their names; read-only."""

    def __init__(self, memory: Memory, read: Callable[[Flight, int], Value], *, pending: bool) -> None:
        self._memory = memory
        self._read = read
        self._pending = pending

    def __getitem__(self, msg_id: str) -> Value:
        flight, seat = self._memory.find(msg_id)
        if flight.results[seat] is None and not self._pending:
            raise KeyError(f"{msg_id!r} is not there yet")
        return self._read(flight, seat)

    def __iter__(self) -> Iterator[str]:
        return iter([
            flight.msg_id(seat)
            for flight in self._memory.flights()
            for seat, result in enumerate(flight.results)
            if self._pending or result is not None
        ])  # fmt: skip

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{name!r}: {self[name]!r}' for name in self)}}}"


def results_of(memory: Memory) -> Mapping[str, Any]:
    """Return the values (exceptions for calls that failed) by name."""

    def value(flight: Flight, seat: int) -> Any:
        outcome = flight.outcome(seat)
        return outcome.error if isinstance(outcome, Raised) else outcome

    return ByName(memory, value, pending=False)


def metadata_of(memory: Memory) -> Mapping[str, Metadata]:
    """Return the metadata by name."""
    return ByName(memory, Flight.metadata, pending=True)
