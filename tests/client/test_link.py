"""A client's connection, with a controller that says what the test wants."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcremote import files
from hpcremote.client.link import Link
from hpcremote.connection import Connection
from hpcremote.errors import EngineError, HPCRemoteError, NoEnginesRegistered, NotConnected, Refused
from hpcremote.net.happenings import Got, Peer
from hpcremote.net.hub import Hub
from hpcremote.net.keys import Admission, new_keypair
from hpcremote.net.shm import write_blob
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame

SOON = 20.0


class Sink:
    def __init__(self) -> None:
        self.results: list[tuple[m.Result, Sequence[Frame]]] = []
        self.lost: list[Exception] = []

    def on_result(self, result: m.Result, frames: Sequence[Frame]) -> None:
        self.results.append((result, frames))

    def on_results(self, results: Sequence[tuple[m.Result, Sequence[Frame]]]) -> None:
        self.results += results

    def on_output(self, output: m.Output) -> None:
        raise AssertionError(output)

    def on_lost(self, error: Exception) -> None:
        self.lost.append(error)

    @property
    def done(self) -> bool:
        return bool(self.results or self.lost)


class Controller:
    """Answers Hello, and what else a test wants answered; in a thread."""

    def __init__(self, folder: Path) -> None:
        server, client, engine = (new_keypair() for _ in range(3))
        self.shm = folder / "shm"
        self.shm.mkdir()
        ipc = f"ipc://{folder}/hub.sock"
        self.hub = Hub(server, Admission(client.public, engine.public), ipc)
        self.answers: dict[type, Any] = {}
        self.asked: list[m.AnyMessage] = []
        self.peer: Peer | None = None
        self.greeting: m.AnyMessage | None = m.Welcome(
            "c1",
            "0",
            "here",
            1,
            [m.EngineInfo(n, f"u{n}", "s", n, 2, "here", 1, True) for n in (0, 1)],
            str(self.shm),
        )
        self.info = Connection(
            role="client", cluster_id="c1", cluster_uid="u", profile="p", version="0", protocol=1,
            host="here",
            pid=1, started=0.0, machine=files.machine_id(), ipc=ipc, addresses=(),
            server_key=server.public,
            public_key=client.public, secret_key=client.secret,
        )  # fmt: skip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stop.is_set():
            for one in self.hub.poll(0.01):
                if isinstance(one, Got):
                    self._answer(one)

    def _answer(self, got: Got) -> None:
        self.peer = got.peer
        self.asked.append(got.message)
        if isinstance(got.message, m.Hello) and self.greeting is not None:
            self.hub.send(got.peer, [(self.greeting, ())])
        if make := self.answers.get(type(got.message)):
            self.hub.send(got.peer, [(answer, ()) for answer in make(got.message)])

    def stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self.hub.close(0.5)


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    made = Controller(tmp_path)
    yield made
    made.stop()


@pytest.fixture
def link(controller: Controller) -> Iterator[Link]:
    made = Link(controller.info)
    yield made
    made.close()


def submit(link: Link, sink: Sink, *targets: int, payload: Any = b"x") -> int:
    return link.submit(targets or (0,), "apply", [[payload]], sink=sink)


def echo(call: m.Call) -> list[m.AnyMessage]:
    return [m.Result(call.call, target, "ok", call.parts[0]) for target in call.targets]


def test_calls_are_answered(controller: Controller, link: Link) -> None:
    controller.answers[m.Call] = echo
    assert link.cluster_id == "c1" and sorted(link.engines) == [0, 1]
    for _ in range(50):
        sink = Sink()
        submit(link, sink, 0, 1)
        assert link.wait(lambda: len(sink.results) == 2, SOON)  # noqa: B023


def test_calls_of_threads_have_one_order_and_own_numbers(controller: Controller, link: Link) -> None:
    controller.answers[m.Call] = echo
    sinks = [Sink() for _ in range(400)]

    def work(some: list[Sink]) -> None:
        for sink in some:
            submit(link, sink)

    threads = [threading.Thread(target=work, args=(sinks[index::4],)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert link.wait(lambda: all(sink.done for sink in sinks), SOON)
    numbers = [call.call for call in controller.asked if isinstance(call, m.Call)]
    assert numbers == sorted(set(numbers)) and len(numbers) == 400


def test_what_cannot_be_submitted(link: Link) -> None:
    with pytest.raises(NoEnginesRegistered):
        link.submit((), "apply", [[b"x"]], sink=Sink())
    with pytest.raises(EngineError, match="there is no engine 9"):
        submit(link, Sink(), 9)


def test_a_refusal_is_told(controller: Controller) -> None:
    controller.greeting = m.Refused("cluster c1 is ending")
    with pytest.raises(Refused, match="cluster c1 is ending"):
        Link(controller.info)


def test_a_controller_that_does_not_answer(controller: Controller) -> None:
    controller.greeting = None
    began = time.monotonic()
    with pytest.raises(NotConnected, match="did not answer within 0.3 s"):
        Link(controller.info, timeout=0.3)
    assert time.monotonic() - began < 5.0


def test_requests(controller: Controller, link: Link) -> None:
    controller.answers[m.Query] = lambda query: [m.Answer(query.request, '{"a": 1}')]
    assert link.query("info") == {"a": 1}
    controller.answers[m.Query] = lambda query: [m.Answer(query.request, "", "cannot tell")]
    with pytest.raises(HPCRemoteError, match="cannot tell"):
        link.query("info")
    controller.answers.clear()
    with pytest.raises(TimeoutError):
        link.query("info", timeout=0.1)


def test_a_controller_that_goes_away_fails_what_is_open(controller: Controller, link: Link) -> None:
    sink = Sink()
    submit(link, sink)
    controller.stop()
    assert link.wait(lambda: sink.done, SOON)
    assert "went away" in str(sink.lost[0])
    raised = []
    for _ in range(2):
        with pytest.raises(NotConnected, match="went away") as caught:
            submit(link, Sink())
        raised.append(caught.value)
    assert raised[0] is not raised[1], "each has a traceback of its own"


def test_closing_wakes_who_waits(controller: Controller, link: Link) -> None:
    sink = Sink()
    submit(link, sink)
    threading.Timer(0.1, link.close).start()
    assert link.wait(lambda: sink.done, SOON)
    assert "closed" in str(sink.lost[0])


def test_large_results_come_by_shared_memory_or_are_said_to_be_unreadable(
    controller: Controller, link: Link
) -> None:
    data = os.urandom(2 << 20)
    name = write_blob(str(controller.shm), [data])
    sink = Sink()
    controller.answers[m.Call] = lambda call: [
        m.Result(call.call, 0, "ok", m.Part(b"", [len(data)], 0, name))
    ]
    submit(link, sink)
    assert link.wait(lambda: sink.done, SOON)
    assert bytes(sink.results[0][1][0]) == data
    assert list(controller.shm.iterdir()) == []
    for part in (
        m.Part(b"", [len(data)], 0, name),
        m.Part(b"", [], 0, name),
        m.Part(b"", [9 << 40], 0, "../x"),
    ):
        controller.answers[m.Call] = lambda call, part=part: [m.Result(call.call, 0, "ok", part)]
        sink = Sink()
        submit(link, sink)
        assert link.wait(lambda: sink.done, SOON)  # noqa: B023
        assert sink.results[0][0].status == "unreadable"
        assert b"shared-memory blob" in sink.results[0][0].part.data


def test_a_large_argument_goes_by_shared_memory_once(controller: Controller, link: Link) -> None:
    data = os.urandom(2 << 20)
    link.submit((0, 1), "apply", [[b"stream", data]], sink=Sink())
    assert link.wait(lambda: any(isinstance(one, m.Call) for one in controller.asked), SOON)
    call = next(one for one in controller.asked if isinstance(one, m.Call))
    assert [part.sizes for part in call.parts] == [[6, len(data)]]
    assert (controller.shm / call.parts[0].blob).stat().st_size == len(data)


def test_a_fork_is_told_not_to_use_it(controller: Controller, link: Link) -> None:
    sink = Sink()
    submit(link, sink)
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        said = []
        for attempt in (lambda: submit(link, Sink()), lambda: link.wait(lambda: sink.done, 5.0)):
            try:
                attempt()
                said.append("nothing")
            except NotConnected as error:
                said.append(str(error))
        link.close()
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read().splitlines()
    os.waitpid(pid, 0)
    assert len(said) == 2 and all("cannot be used in its fork" in line for line in said)
    controller.answers[m.Call] = echo
    another = Sink()
    submit(link, another)
    assert link.wait(lambda: another.done, SOON)
