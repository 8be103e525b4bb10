"""Calls whose data went by MPI, on their way: values that come together, and one value of many."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from hpcremote.client.flight import LANDING, Flight, Raised
from hpcremote.client.result import AsyncResult
from hpcremote.errors import EngineError
from hpcremote.wire import payload
from hpcremote.wire.arrays import ndarray
from hpcremote.wire.chunks import received
from hpcremote.wire.crate import ALL, CUT, FAILED, OWN, Crate, Head
from hpcremote.wire.frames import Frame
from hpcremote.wire.messages import Result
from hpcremote.wire.operators import Operator


class MPIFlight(Flight):
    """A call whose data MPI carries between the engines."""

    __slots__ = ()
    carrier = "mpi"

    def __init__(self, *, method: str, **known: Any) -> None:
        super().__init__(method=method.removeprefix("mpi_"), **known)

    def on_results(self, came: Sequence[tuple[Result, Sequence[Frame]]]) -> None:
        """Several engines have answered."""
        super().on_results([_unwrapped(result, frames) for result, frames in came])


def _unwrapped(result: Result, frames: Sequence[Frame]) -> tuple[Result, Sequence[Frame]]:
    """Return a result as it is; that of an engine which failed in agreement as one of a call that failed."""
    if result.status != "ok" or FAILED.encode() not in result.part.data:
        return result, frames
    answer = payload.load(payload.from_part(result.part, frames))
    if type(answer) is not tuple or answer[0] != FAILED:
        return result, frames
    part, frames = payload.to_part([answer[1]])
    return msgspec.structs.replace(result, status="error", part=part), frames


class PullFlight(MPIFlight):
    """A call whose first engine sends the values of all.

    Others may say before the first one that they have succeeded; that is believed when their values are
    here. So nobody who waits for one engine's value needs to know how it travels.
    """

    __slots__ = ("_crates", "_early", "_reading")

    def __init__(self, **known: Any) -> None:
        super().__init__(**known)
        self._reading = threading.RLock()  # chunks are used up by who reads them
        self._early: list[tuple[Result, Sequence[Frame]]] | None = []
        self._crates: list[Crate] = []

    def on_results(self, came: Sequence[tuple[Result, Sequence[Frame]]]) -> None:
        """Several engines have answered."""
        ready: list[tuple[Result, Sequence[Frame]]] = []
        with LANDING:
            for result, frames in came:
                one = _unwrapped(result, frames)
                if result.engine == self.targets[0]:
                    early, self._early = self._early, None
                    ready += [one, *(early or ())]
                elif self._early is not None and one[0].status == "ok":
                    self._early.append(one)
                else:
                    ready.append(one)
        if ready:
            super().on_results(ready)

    def outcome(self, seat: int) -> Any:
        """Return what came of the call on that engine: the value, or ``Raised``. It must have landed."""
        with self._reading:
            return super().outcome(seat)

    def _read(self, seat: int) -> Any:
        answer = super()._read(seat)
        if type(answer) is Raised:
            return answer
        how, value = answer
        if how == OWN:
            return value
        if how == ALL:
            self._crates = [Crate(Head(*head), list(bigs)) for head, bigs in value]
        elif how == CUT:
            self._forget_bytes(seat)  # each chunk can go when it has been copied
            heads, chunks = value
            self._crates = received([Head(*head) for head in heads], chunks)
        elif not self._crates:
            self.outcome(0)
        if not self._crates:
            return Raised(self._stranded(seat))
        try:
            return _aligned(payload.load(self._crates[seat].unpack()))
        except Exception as error:  # noqa: BLE001 - unpickling runs the user's code, which may raise anything
            return Raised(self._unreadable(seat, error))

    def _stranded(self, seat: int) -> EngineError:
        engine, first = self.targets[seat], self.targets[0]
        return EngineError(
            f"the value of {self.where(seat)} was to come by {self.where(0)}, which could not send it",
            engine_id=engine,
            cause=f"engine {first} could not send its value",
        )


def _aligned(value: Any) -> Any:
    """Return an array as its type should lie, though it came right behind one of another; else the value."""
    kind = ndarray()
    return value.copy() if kind is not None and type(value) is kind and not value.flags.aligned else value


class Reduction(AsyncResult):
    """The result of a reduction: one value, however many engines have worked on it."""

    def __init__(self, client: Any, flight: Flight, *, name: str, combine: Operator | None) -> None:
        super().__init__(client, flight, name=name, single=False)
        self._combine = combine

    def assemble(self, values: list[Any]) -> Any:
        """Return the one value; of calls that failed somewhere, what each engine says."""
        if any(isinstance(value, BaseException) for value in values):
            return values
        return values[0] if self._combine is None else functools.reduce(self._combine, values)
