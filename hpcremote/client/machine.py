"""What a client knows: the engines, its open calls, which functions are where. Pure.

Messages come in and turn into *deliveries*, calls that the link makes afterwards; calls go out as
the messages that they need.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from hpcremote.errors import EngineError, HPCRemoteError
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame
from hpcremote.wire.targets import compact

#: Definitions kept for engines that forgot theirs.
KEPT_DEFINITIONS = 4096


class Sink(Protocol):
    """Takes what comes of a call. Called by whichever thread reads; must be quick and not raise."""

    def on_result(self, result: m.Result, frames: Sequence[Frame]) -> None:
        """One engine's outcome; *frames* are the big pieces of its part."""

    def on_results(self, results: Sequence[tuple[m.Result, Sequence[Frame]]]) -> None:
        """Several engines' outcomes."""

    def on_output(self, output: m.Output) -> None:
        """Some text that the call printed."""

    def on_lost(self, error: Exception) -> None:
        """The connection ended: nothing more will come."""


class Function(Protocol):
    """A packed function (wire.functions.PackedFunction)."""

    @property
    def digest(self) -> bytes:
        """Its name on the wire."""

    @property
    def data(self) -> bytes:
        """Its definition."""


class Terms(NamedTuple):
    """What goes with a call: a name for people, and seconds for the controller (see ``Call``)."""

    label: str = ""
    grace: float = -1.0
    needs: float = 0.0


PLAIN = Terms()

#: A call to make when no lock is held: a function and its arguments.
Delivery = tuple[Callable[..., object], tuple[Any, ...]]


class Answer(NamedTuple):
    """What a request got."""

    data: Any
    error: str


@dataclass
class Session:
    """The state of one connection of a client."""

    engines: dict[int, m.EngineInfo] = field(default_factory=dict)
    gone: dict[int, m.Gone] = field(default_factory=dict)
    welcome: m.Welcome | None = None
    refused: str = ""
    open: int = 0  # results that are still to come
    on_hanging: Callable[[m.Hanging, str], object] = lambda message, name: None
    on_time_left: Callable[[m.TimeLeft], object] = lambda message: None
    # Of the calls that have not been answered by all their targets. Two dictionaries and not a pair for each:
    # the garbage collector looks at every pair, and there may be many calls.
    _sinks: dict[int, Sink] = field(default_factory=dict)
    _owing: dict[int, set[int] | Sequence[int]] = field(default_factory=dict)  # a set shrinks
    _numbers: int = 0
    _known: dict[str, set[bytes]] = field(default_factory=dict)
    _definitions: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)
    _answers: dict[int, Answer | None] = field(default_factory=dict)

    # ------------------------------------------------------------ going out

    def number(self) -> int:
        """Return a new number for a call or request."""
        self._numbers += 1
        return self._numbers

    def check(self, targets: Sequence[int]) -> None:
        """Raise an EngineError if one of *targets* is not here (any more)."""
        engines = self.engines
        for target in targets:
            if target not in engines:
                raise self._absent(target)

    def _absent(self, target: int) -> EngineError:
        if gone := self.gone.get(target):
            tail = f"; its last output:\n{gone.output}" if gone.output else ""
            return EngineError(
                f"engine {target} is gone: {gone.cause}{tail}",
                engine_id=target,
                cause=gone.cause,
                output=gone.output,
            )
        have = ", ".join(map(str, sorted(self.engines)[:20])) or "none"
        return EngineError(f"there is no engine {target}; there are: {have}", engine_id=target)

    def call(
        self,
        call: int,
        targets: Sequence[int],
        op: str,
        parts: list[m.Part],
        function: Function | None,
        terms: Terms,
        sink: Sink,
    ) -> list[m.AnyMessage]:
        """Open a call and return the messages that make it, definitions first."""
        out: list[m.AnyMessage] = []
        digest = b""
        if function is not None:
            digest = function.digest
            out += self._define(targets, function)
        count = len(targets)
        self._sinks[call] = sink
        self._owing[call] = targets if count == 1 else set(targets)
        self.open += count
        out.append(m.Call(call, compact(targets), op, digest, parts, *terms))
        return out

    def _define(self, targets: Sequence[int], function: Function) -> list[m.AnyMessage]:
        digest = function.digest
        without = []
        for target in targets:
            info = self.engines.get(target)
            if info is None:
                continue  # it went just now; the controller will answer for it
            known = self._known.get(info.uid)
            if known is None:
                known = self._known[info.uid] = set()
            if digest not in known:
                known.add(digest)
                without.append(target)
        if not without:
            return []
        self._definitions[digest] = function.data
        self._definitions.move_to_end(digest)
        while len(self._definitions) > KEPT_DEFINITIONS:
            forgotten, _ = self._definitions.popitem(last=False)
            for known in self._known.values():
                known.discard(forgotten)
        return [m.Define(without, digest, function.data)]

    def withdraw(self, call: int) -> None:
        """Forget a call that could not be sent."""
        if self._sinks.pop(call, None) is not None:
            self.open -= len(self._owing.pop(call))

    def request(self) -> int:
        """Open a request and return its number."""
        number = self.number()
        self._answers[number] = None
        return number

    def answer(self, request: int) -> Answer | None:
        """Return the answer to a request, if it came."""
        return self._answers.get(request)

    def close_request(self, request: int) -> None:
        """Forget a request."""
        self._answers.pop(request, None)

    # ------------------------------------------------------------ coming in

    def handle(
        self, message: m.AnyMessage, frames: Sequence[Frame]
    ) -> tuple[list[Delivery], list[m.AnyMessage]]:
        """Take in a message; return what to deliver and what to send."""
        if type(message) is m.Result:
            sink = self.landed(message)
            return [(sink.on_result, (message, frames))] if sink is not None else [], []
        if type(message) is m.Output:
            sink = self._sinks.get(message.call)
            return [(sink.on_output, (message,))] if sink is not None else [], []
        if isinstance(message, m.Hanging):
            sink = self._sinks.get(message.call)
            name = getattr(sink, "name", "a call")
            return [(self.on_hanging, (message, name))] if sink is not None else [], []
        if isinstance(message, m.TimeLeft):
            return [(self.on_time_left, (message,))], []
        if isinstance(message, m.Engines):
            self.change([message])
        elif isinstance(message, m.Missing):
            return [], [self._missing(message)]
        elif isinstance(message, m.Answer):
            self._answer(message)
        elif isinstance(message, m.Welcome):
            self.welcome = message
            self.engines = {info.id: info for info in message.engines}
        elif isinstance(message, m.Refused):
            self.refused = message.reason
        return [], []

    def landed(self, result: m.Result) -> Sink | None:
        """Strike off a result that came; return who takes it, or None if nobody waits for it."""
        call = result.call
        owing = self._owing.get(call)
        if owing is None or result.engine not in owing:
            return None
        self.open -= 1
        if len(owing) == 1:
            del self._owing[call]
            return self._sinks.pop(call)
        if isinstance(owing, set):
            owing.discard(result.engine)
        return self._sinks[call]

    def change(self, changes: Sequence[m.Engines]) -> None:
        """Take in who came and went; all at once, because each time costs as much as there are engines."""
        engines = dict(self.engines)
        for change in changes:
            for gone in change.went:
                engines.pop(gone.id, None)
                self.gone[gone.id] = gone
                self._known.pop(gone.uid, None)
            for info in change.came:
                engines[info.id] = info
                self.gone.pop(info.id, None)
        # Replaced, never changed: other threads read it as it was.
        self.engines = dict(sorted(engines.items()))

    def _missing(self, missing: m.Missing) -> m.AnyMessage:
        return m.Define([missing.engine], missing.digest, self._definitions.get(missing.digest, b""))

    def _answer(self, answer: m.Answer) -> None:
        if answer.request in self._answers:
            data = json.loads(answer.data) if answer.data else None
            self._answers[answer.request] = Answer(data, answer.error)

    # ------------------------------------------------------------ the end

    def fail_all(self, error: HPCRemoteError) -> list[Delivery]:
        """The connection ended: close every call."""
        sinks, self._sinks, self._owing = self._sinks, {}, {}
        self.open = 0
        self.engines = {}
        return [(sink.on_lost, (error,)) for sink in sinks.values()]
