"""One call under way: the link puts in what arrives, results take out what was asked for.

::

    Link ──on_result──▶ Flight ◀──value(i), error(i), metadata(i)── AsyncResult, get_result, history
           on_output       │
           on_lost         └──landed──▶ the AsyncResults that wait for it, the streams that show its output

A flight has one *seat* for each engine, in view order. What arrives is kept as bytes and unpickled
when somebody looks, in that thread. A flight knows nobody once it has landed (no cycles): it lives
as long as a result of it is held, or as one of the client's last few (see ``client.memory``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from hpcremote.client.metadata import Metadata, moment
from hpcremote.client.reply import ExecuteReply
from hpcremote.errors import EngineError, HPCRemoteError, NotEnoughTime, PayloadError, TaskAborted
from hpcremote.wire import failure, payload
from hpcremote.wire.frames import Frame
from hpcremote.wire.messages import EngineInfo, Output, Part, Result

#: Held for the few instructions in which a result lands or somebody begins to wait for one. Reentrant,
#: because the garbage collector may run in there and close a client.
LANDING = threading.RLock()
_NOTHING: Final = Part()
_NONE: Final = payload.to_part(payload.dump_result(None))[0].data
_STDOUT, _STDERR = 1, 2
_MISSING: Final = object()


class Waiter(Protocol):
    """Who wants to know that a seat, or the whole flight, has landed."""

    owed: int

    def arrived(self) -> None:
        """Everything it waited for is there."""


class Stream(Protocol):
    """Who shows output as it comes."""

    def feed(self, engine: int, stream: int, text: str) -> None:
        """Show *text*; must not raise."""


class Raised:
    """An outcome that is an exception."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Flight:
    """A call on one or more engines; see the module's docstring.

    Attributes:
        call: its number; 0 until it is known.
        missing: how many engines have not answered.
        failed: on how many it has failed.
        results: what each engine answered, or None.
        weight: how many bytes the answers took.
    """

    __slots__ = (
        "__weakref__", "_engines", "_frames", "_index", "_keep", "_outcomes", "_received", "_streams",
        "_texts", "_uid", "_waiters", "call", "failed", "label", "method", "missing", "name", "results",
        "submitted", "targets", "weight",
    )  # fmt: skip
    #: Who carries the data between engines.
    carrier = "controller"

    def __init__(
        self,
        *,
        uid: str,
        method: str,
        name: str,
        label: str | None,
        targets: Sequence[int],
        engines: Mapping[int, EngineInfo],
        keep: Callable[[Flight], None],
    ) -> None:
        count = len(targets)
        self.call = 0
        self.method = method
        self.name = name
        self.label = label
        self.targets = targets
        self.submitted = time.time()
        self.missing = count
        self.failed = 0
        self.weight = 0
        self.results: list[Result | None] = [None] * count
        self._uid = uid
        self._engines = engines
        self._keep: Callable[[Flight], None] | None = keep
        self._index = dict(zip(targets, range(count), strict=True)) if count > 1 else None
        # Made when there is something to put in: there may be many flights at once.
        self._frames: dict[int, Sequence[Frame]] | None = None
        self._received: dict[int, float] | None = None
        self._texts: dict[tuple[int, int], list[str]] | None = None
        self._outcomes: dict[int, Any] | None = None
        self._waiters: Sequence[tuple[int, Waiter]] = ()
        self._streams: tuple[Stream, ...] = ()

    # ------------------------------------------------------------ what the link calls

    def on_result(self, result: Result, frames: Sequence[Frame]) -> None:
        """An engine has answered."""
        self.on_results(((result, frames),))

    def on_results(self, came: Sequence[tuple[Result, Sequence[Frame]]]) -> None:
        """Several engines have answered."""
        arrived: list[Waiter] = []
        now = time.time()
        index, results = self._index, self.results
        with LANDING:
            streams = self._streams
            received = self._received = self._received or {}
            for result, frames in came:
                seat = 0 if index is None else index[result.engine]
                if results[seat] is not None:
                    continue
                if frames:
                    self._frames = self._frames or {}
                    self._frames[seat] = frames
                received[seat] = now
                self.weight += len(result.out) + len(result.err)
                self.weight += sum(result.part.sizes) if frames else len(result.part.data)
                arrived += self._land(seat, result)
        if streams:
            _show(streams, came)
        self._tell(arrived)

    def on_output(self, output: Output) -> None:
        """An engine has printed."""
        with LANDING:
            seat = 0 if self._index is None else self._index[output.engine]
            texts = self._texts = self._texts or {}
            texts.setdefault((seat, output.stream), []).append(output.text)
            self.weight += len(output.text)
            streams = self._streams
        _feed(streams, output.engine, output.stream, output.text)

    def on_lost(self, error: Exception) -> None:
        """The controller went away: what is missing will not come."""
        arrived: list[Waiter] = []
        with LANDING:
            for seat, result in enumerate(self.results):
                if result is None:
                    self._known_outcomes()[seat] = Raised(error)
                    lost = Result(call=self.call, engine=self.targets[seat], status="lost", part=_NOTHING)
                    arrived += self._land(seat, lost)
        self._tell(arrived)

    def _land(self, seat: int, result: Result) -> Sequence[Waiter]:
        self.results[seat] = result
        self.call = result.call
        self.missing -= 1
        if result.status != "ok":
            self.failed += 1
        if not self.missing:
            self._streams = ()
        return self._awaited(seat) if self._waiters else ()

    def _awaited(self, seat: int) -> list[Waiter]:
        """Strike *seat*, which has landed, off the lists; return those who have now got everything."""
        still: list[tuple[int, Waiter]] = []
        arrived: list[Waiter] = []
        for entry in self._waiters:
            wanted, waiter = entry
            if wanted == seat or (wanted < 0 and not self.missing):
                waiter.owed -= 1
                if not waiter.owed:
                    arrived.append(waiter)
            else:
                still.append(entry)
        self._waiters = still
        return arrived

    def _tell(self, arrived: Sequence[Waiter]) -> None:
        keep = self._keep
        if keep is not None and not self.missing:
            self._keep = None
            keep(self)
        for waiter in arrived:
            waiter.arrived()

    # ------------------------------------------------------------ who waits, who watches

    def add_waiter(self, waiter: Waiter, seat: int) -> None:
        """Count *seat* (-1: all) among what *waiter* waits for, unless it has landed. See attend()."""
        if self.missing if seat < 0 else self.results[seat] is None:
            waiter.owed += 1
            self._waiters = [*self._waiters, (seat, waiter)]

    def watch(self, stream: Stream) -> list[tuple[int, int, str]]:
        """Let *stream* have output from now on; return what there was before, as (engine, stream, text)."""
        with LANDING:
            if self.missing:
                self._streams = (*self._streams, stream)
            return [
                (self.targets[seat], number, text)
                for seat in range(len(self.targets))
                for number in (_STDOUT, _STDERR)
                if (text := self.text(seat, number))
            ]

    def unwatch(self, stream: Stream) -> None:
        """Undo :meth:`watch`."""
        with LANDING:
            self._streams = tuple(other for other in self._streams if other is not stream)

    # ------------------------------------------------------------ what came

    def outcome(self, seat: int) -> Any:
        """Return what came of the call on that engine: the value, or :class:`Raised`. It must have landed."""
        found = _MISSING if self._outcomes is None else self._outcomes.get(seat, _MISSING)
        if found is _MISSING:
            value = self._read(seat)
            # Two threads may both get here; both are given what the first one found.
            found = self._known_outcomes().setdefault(seat, value)
            self._forget_bytes(seat)
        return found

    def outcomes(self) -> list[Any]:
        """Return what came of the call on every engine; all must have landed."""
        known = self._known_outcomes()
        if self.method != "execute":
            known.update(_nothings(self.results))
        return [known[seat] if seat in known else self.outcome(seat) for seat in range(len(self.results))]

    def _known_outcomes(self) -> dict[int, Any]:
        if self._outcomes is None:
            with LANDING:
                if self._outcomes is None:
                    self._outcomes = {}
        return self._outcomes

    def _read(self, seat: int) -> Any:
        result = self.results[seat]
        if result is None:
            raise RuntimeError(f"engine {self.targets[seat]} has not answered")
        try:
            if result.status == "ok":
                value = payload.load(payload.from_part(result.part, self._frames_of(seat)))
                return (
                    value if self.method != "execute" or value is None else ExecuteReply(value, result.engine)
                )
            return Raised(self._error_in(seat, result))
        except Exception as error:  # noqa: BLE001 - unpickling runs the user's code, which may raise anything
            return Raised(self._unreadable(seat, error))

    def _error_in(self, seat: int, result: Result) -> BaseException:
        what = f"{self.method}({self.name})" if self.name != self.method else self.method
        if result.status in ("error", "released"):
            (data,) = payload.from_part(result.part, self._frames_of(seat))
            return failure.rebuild(bytes(data), self.engine_info(seat))
        if result.status == "unreadable":  # so says our own link
            return self._unreadable(seat, PayloadError(result.part.data.decode()))
        if result.status in ("aborted", "refused"):
            aborted = f"{what} was aborted before it started on {self.where(seat)}"
            return NotEnoughTime(f"{what}: {result.err}") if result.err else TaskAborted(aborted)
        cause = result.err.strip() or "it left"
        message = f"{self.where(seat)} ended before it answered {what}: {cause}"
        tail = f"\nits last output:\n{result.out.rstrip()}" if result.out.strip() else ""
        return EngineError(message + tail, engine_id=self.targets[seat], cause=cause, output=result.out)

    def _unreadable(self, seat: int, error: Exception) -> HPCRemoteError:
        ours = isinstance(error, PayloadError)
        why = f"read here: {error}" if ours else f"unpickled here: {error!r}"
        told = PayloadError(f"what {self.name} returned on {self.where(seat)} cannot be {why}")
        told.__cause__ = None if ours else error
        return told

    def _frames_of(self, seat: int) -> Sequence[Frame]:
        return self._frames.get(seat, ()) if self._frames else ()

    def _forget_bytes(self, seat: int) -> None:
        if self._frames:
            self._frames.pop(seat, None)
        result = self.results[seat]
        if result is not None:
            result.part = _NOTHING

    def succeeded(self, seat: int) -> bool:
        """Say whether that engine has answered without an exception; reads no value."""
        result = self.results[seat]
        return result is not None and result.status == "ok"

    # ------------------------------------------------------------ what is known about it

    def msg_id(self, seat: int) -> str:
        """Return the name of this call on this engine."""
        return f"{self._uid}_{self.call}_{self.targets[seat]}"

    def text(self, seat: int, stream: int) -> str:
        """Return what was printed so far."""
        text = "".join(self._texts.get((seat, stream), ())) if self._texts else ""
        result = self.results[seat]
        if result is None or result.status == "lost":
            return text
        return text + (result.out if stream == _STDOUT else result.err)

    def engine_info(self, seat: int) -> dict[str, object]:
        """Return what identifies the engine, for errors."""
        engine = self.targets[seat]
        known: dict[str, object] = {"engine_id": engine, "method": self.method}
        info = self._engines.get(engine)
        if info is not None:
            known |= {
                "engine_uuid": info.uid,
                "host": info.host,
                "rank": info.rank if info.rank >= 0 else None,
            }
        return known

    def where(self, seat: int) -> str:
        """Return the engine in words."""
        engine = self.targets[seat]
        info = self._engines.get(engine)
        if info is None:
            return f"engine {engine}"
        return f"engine {engine} ({f'rank {info.rank} ' if info.rank >= 0 else ''}on {info.host})"

    def metadata(self, seat: int) -> Metadata:
        """Return what is known of the call on that engine by now."""
        engine = self.targets[seat]
        info = self._engines.get(engine)
        known = Metadata(
            msg_id=self.msg_id(seat),
            engine_id=engine,
            engine_uuid=info.uid if info else None,
            label=self.label,
            carrier=self.carrier,
            submitted=moment(self.submitted),
            stdout=self.text(seat, _STDOUT),
            stderr=self.text(seat, _STDERR),
        )
        if (result := self.results[seat]) is not None:
            known.update(
                started=moment(result.started),
                completed=moment(result.completed),
                received=moment(self._received_at(seat)),
                status={"lost": "error", "unreadable": "error"}.get(result.status, result.status),
            )
            if result.status != "ok":
                known["error"] = self.outcome(seat).error
            elif self.method == "execute" and isinstance(shown := self.outcome(seat), ExecuteReply):
                known["execute_result"] = shown.record
        return known

    def times(self, seat: int) -> tuple[float, float, float]:
        """Return when the call started and completed there and when that was known here, or 0.0."""
        result = self.results[seat]
        return (result.started, result.completed, self._received_at(seat)) if result else (0.0, 0.0, 0.0)

    def _received_at(self, seat: int) -> float:
        return self._received.get(seat, 0.0) if self._received else 0.0


#: One engine of one call.
Seat = tuple[Flight, int]


def attend(waiter: Waiter, seats: Iterable[Seat]) -> None:
    """Tell *waiter* when all of these have landed; not at all if they have by now."""
    with LANDING:
        for flight, seat in seats:
            flight.add_waiter(waiter, seat)


def _nothings(results: Sequence[Result | None]) -> Iterable[tuple[int, None]]:
    """Yield the seats that returned None (most of them, as a rule: seen quicker than read), and None."""
    for seat, result in enumerate(results):
        if result is not None and result.part.data == _NONE and result.status == "ok":
            result.part = _NOTHING
            yield seat, None


def _show(streams: tuple[Stream, ...], came: Sequence[tuple[Result, Sequence[Frame]]]) -> None:
    for result, _ in came:
        if result.status != "lost":
            for number, text in ((_STDOUT, result.out), (_STDERR, result.err)):
                if text:
                    _feed(streams, result.engine, number, text)


def _feed(streams: tuple[Stream, ...], engine: int, number: int, text: str) -> None:
    for stream in streams:
        stream.feed(engine, number, text)
