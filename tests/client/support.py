"""A cluster inside the test's process: the client's Link, and engines that really do the operations.

Everything is real but the sockets: calls are made of parts and frames and read from them, functions go by
their digests, results and failures come back as parts. Engines work while somebody waits, in the waiting
thread, one call after the other in the order of submission, so tests are deterministic. ``pause()`` keeps
them from working; ``step()`` lets one engine do one call.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

from hpcremote.client.client import Client
from hpcremote.client.machine import PLAIN, Terms
from hpcremote.client.walltime import Walltime
from hpcremote.engine.namespace import Namespace
from hpcremote.engine.operations import Operations
from hpcremote.errors import EngineError, NoEnginesRegistered, NotConnected
from hpcremote.ids import new_uid
from hpcremote.wire import payload
from hpcremote.wire.messages import EngineInfo, Output, Part, Result
from hpcremote.wire.scope import set_namespace

HOST = "node7"
Wire = tuple[Part, list[Any]]


class Engine:
    """One engine: a namespace and the operations on it."""

    def __init__(self, engine_id: int) -> None:
        self.id = engine_id
        self.uid = new_uid()
        self.namespace = Namespace()
        self.operations = Operations(self.namespace)
        self.done = 0

    def info(self, size: int) -> EngineInfo:
        return EngineInfo(self.id, self.uid, "set", self.id, size, HOST, 1000 + self.id, True, "3.11.7")

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Make this process the engine's for a moment."""
        main = sys.modules["__main__"]
        self.namespace.install()
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            set_namespace(None)

    def perform(self, op: str, digest: bytes, wire: Wire) -> tuple[str, Wire]:
        with self.at_work():
            status, pieces = self.operations.answer(op, None, digest, payload.from_part(*wire))
        return status, over_the_wire(pieces)


def over_the_wire(pieces: Sequence[Any]) -> Wire:
    """Return the pieces as they arrive: copied, and writable."""
    part, frames = payload.to_part(pieces)
    return part, [memoryview(bytearray(frame)) for frame in frames]


@dataclass
class Call:
    number: int
    engine: int
    op: str
    digest: bytes
    wire: Wire
    sink: Any
    label: str


@dataclass
class Sent:
    """One message that went out, for tests that count."""

    targets: list[int]
    op: str
    parts: int
    defined: bool
    label: str


class FakeLink:
    cluster_id = "fake"

    def __init__(self, size: int) -> None:
        self.uid = new_uid()
        self.lost: Exception | None = None
        self.walltime = Walltime(lambda: self.engines)
        self.size = size
        self.sent: list[Sent] = []
        self.shut_down: list[tuple[list[int], bool]] = []
        self.processes: dict[str, dict[str, Any]] = {}
        self.noticed: dict[int, str] = {}
        self.interrupts = 0
        self._numbers = 0
        self._paused = False
        self._open: deque[Call] = deque()
        self._workers = {number: Engine(number) for number in range(size)}
        self._changed = threading.Condition(threading.RLock())
        self._working = threading.RLock()
        self.engines: dict[int, EngineInfo] = {}
        self._announce()

    # ------------------------------------------------------------ the Link that clients use

    def submit(
        self,
        targets: Sequence[int],
        op: str,
        payloads: Sequence[list[Any]],
        *,
        function: Any = None,
        terms: Terms = PLAIN,
        sink: Any,
    ) -> int:
        if self.lost is not None:
            raise self.lost
        if not targets:
            raise NoEnginesRegistered("no engines")
        for target in targets:
            if target not in self.engines:
                raise EngineError(f"engine {target} is gone", engine_id=target)
        assert len(payloads) in (1, len(targets))
        wires = [over_the_wire(pieces) for pieces in payloads]
        if len(wires) == 1:
            wires *= len(targets)
        digest = function.digest if function is not None else b""
        with self._changed:
            self._numbers += 1
            for target, wire in zip(targets, wires, strict=True):
                if digest:
                    self._workers[target].operations.functions.define(digest, function.data)
                self._open.append(Call(self._numbers, target, op, digest, wire, sink, terms.label))
            self.sent.append(Sent(list(targets), op, len(payloads), bool(digest), terms.label))
            self._changed.notify_all()
            return self._numbers

    def abort(self, calls: Sequence[int], targets: Sequence[int] = (), *, interrupt: bool = False) -> None:
        with self._changed:
            dropped = [c for c in self._open if c.number in calls and (not targets or c.engine in targets)]
            for call in dropped:
                self._open.remove(call)
        for call in dropped:
            self._deliver(call, "aborted", (Part(), []))

    def shutdown(self, targets: Sequence[int], *, controller: bool, timeout: float) -> None:
        self.shut_down.append((list(targets), controller))
        for target in targets:
            self.kill(target, "shut down")

    def query(self, what: str, timeout: float = 10.0) -> Any:
        if what == "ended sets":
            return []
        if what == "processes":
            return self.processes
        assert what == "queue_status"
        with self._changed:
            waiting = [call.engine for call in self._open]
            figures: dict[str, dict[str, Any]] = {
                str(number): {"queue": waiting.count(number), "completed": worker.done, "tasks": 0}
                for number, worker in self._workers.items()
            }
        for number, state in self.noticed.items():
            figures[str(number)]["state"] = state
        return {"engines": figures, "unassigned": 0}

    def wait(self, done: Callable[[], bool], timeout: float | None = None) -> bool:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not done() and self.lost is None:
            if self.interrupts:
                self.interrupts -= 1
                raise KeyboardInterrupt
            if deadline is not None and time.monotonic() >= deadline:
                break
            if self._paused or not self.step():
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                with self._changed:
                    if not done() and (self._paused or not self._open):
                        assert left is not None or threading.active_count() > 1, "this would wait for ever"
                        self._changed.wait(left if left is not None else 5.0)
        return done()

    def wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        self.lose(NotConnected("this client is closed"))

    @property
    def gone(self) -> dict[int, Any]:
        return {}

    def abandon(self) -> None:
        self.close()

    # ------------------------------------------------------------ what tests do to it

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        with self._changed:
            self._paused = False
            self._changed.notify_all()

    def step(self) -> bool:
        """Let one engine do one call; return whether there was one."""
        with self._working:
            with self._changed:
                if not self._open:
                    return False
                call = self._open.popleft()
            self._run(call)
        return True

    def run_all(self) -> None:
        while self.step():
            pass

    def step_engine(self, engine: int) -> None:
        """Let that engine do its next call, out of turn."""
        with self._changed:
            call = next(call for call in self._open if call.engine == engine)
            self._open.remove(call)
        self._run(call)

    def prints(self, engine: int, text: str, stream: int = 1) -> None:
        """The call that the engine has next prints something while it runs."""
        call = next(call for call in self._open if call.engine == engine)
        call.sink.on_output(Output(call.number, engine, stream, text))

    def kill(self, engine: int, cause: str = "killed by SIGKILL", output: str = "") -> None:
        with self._changed:
            self._workers.pop(engine)
            mine = [call for call in self._open if call.engine == engine]
            for call in mine:
                self._open.remove(call)
        for call in mine:
            self._deliver(call, "lost", (Part(), []), out=output, err=cause)
        self._announce()

    def add_engines(self, count: int) -> None:
        first = max(self._workers, default=-1) + 1
        self._workers |= {number: Engine(number) for number in range(first, first + count)}
        self._announce()

    def lose(self, error: Exception) -> None:
        if self.lost is None:
            self.lost = error
        with self._changed:
            calls, self._open = list(self._open), deque()
            self.engines = {}
            self._changed.notify_all()
        for sink in {id(call.sink): call.sink for call in calls}.values():
            sink.on_lost(error)

    def namespace(self, engine: int) -> dict[str, Any]:
        return self._workers[engine].namespace.dict

    @property
    def open(self) -> int:
        return len(self._open)

    # ------------------------------------------------------------ inside

    def _announce(self) -> None:
        with self._changed:
            self.engines = {number: worker.info(self.size) for number, worker in self._workers.items()}
            self._changed.notify_all()

    def _run(self, call: Call) -> None:
        worker = self._workers[call.engine]
        out, err = StringIO(), StringIO()
        started = time.time()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status, wire = worker.perform(call.op, call.digest, call.wire)
        worker.done += 1
        self._deliver(call, status, wire, started=started, out=out.getvalue(), err=err.getvalue())

    def _deliver(
        self, call: Call, status: str, wire: Wire, *, started: float = 0.0, out: str = "", err: str = ""
    ) -> None:
        part, frames = wire
        completed = time.time() if started else 0.0
        result = Result(call.number, call.engine, status, part, started, completed, out, err)
        call.sink.on_result(result, frames)
        with self._changed:
            self._changed.notify_all()


@dataclass
class Cluster:
    """What a test gets: a client, and the other side."""

    link: FakeLink
    client: Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = Client(link=self.link)  # type: ignore[arg-type]


def cluster(size: int = 4) -> Cluster:
    return Cluster(FakeLink(size))
