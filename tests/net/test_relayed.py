"""A rank's end of a relayed connection, with agents that come and go (real sockets) and no process."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcremote import files
from hpcremote.connection import Connection
from hpcremote.net import relayed
from hpcremote.net.hub import Hub
from hpcremote.net.keys import Admission, new_keypair
from hpcremote.net.nodes import Node
from hpcremote.net.relayed import RelayedTransport, find_agent
from hpcremote.net.stream import Closed, Stream
from hpcremote.wire import messages as m
from hpcremote.wire.frames import pack
from hpcremote.wire.session import BATCHES, Ack, Resume, Resumed, decode, encode, is_control
from tests.integration.support import eventually

UID = "a" * 32


class FakeAgent:
    """Something that listens where the agent would."""

    def __init__(self, node: Node) -> None:
        node.link.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(node.link))
        self._listener.listen()
        self._listener.setblocking(False)
        self.stream: Stream | None = None
        self.heard: list[bytes] = []

    def accept(self, resumed: Resumed, *more: bytes) -> bool:
        """Take a rank in that waits, and answer; keep what it said."""
        with contextlib.suppress(BlockingIOError):
            sock, _ = self._listener.accept()
            self.stream = Stream(sock, keep=True)
            self.stream.send([encode(resumed)])
            for one in more:
                self.stream.send([one])
        return self.stream is not None

    def hear(self, count: int) -> list[object]:
        def there() -> bool:
            assert self.stream is not None
            self.heard += [bytes(head) for head, _ in self.stream.receive()]
            return len(self.heard) >= count

        eventually(there, why=f"{count} batches did not come")
        heard, self.heard = self.heard, []
        return [decode(head) if is_control(head) else head for head in heard]

    def die(self) -> None:
        self._listener.close()
        if self.stream is not None:
            self.stream.close()


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node whose lock somebody holds: no process is started."""
    monkeypatch.setattr(files, "runtime_dir", lambda: files.private_dir(tmp_path / "run"))
    keys = new_keypair()
    connection = Connection(
        "engine", "x", "c" * 32, "p", "0", m.PROTOCOL, "h", 1, 0.0, files.machine_id(), "", (),
        keys.public, keys.public, keys.secret, relay="always",
    )  # fmt: skip
    made = Node(connection)
    lock = made.take_lock()
    assert lock is not None
    yield made
    os.close(lock)


def say(text: str) -> bytes:
    (head,) = pack([(m.Leaving(text), ())])
    return head


def go(node: Node, agent: FakeAgent) -> RelayedTransport:
    """Connect while the agent is played by a thread of its own."""
    thread = threading.Thread(target=lambda: eventually(lambda: agent.accept(Resumed(0, False))))
    thread.start()
    way = find_agent(node, UID, 0, 10.0)
    thread.join()
    assert way is not None
    return RelayedTransport(node, UID, way)


def heads(transport: RelayedTransport, count: int) -> list[bytes]:
    found: list[bytes] = []

    def there() -> bool:
        found.extend(bytes(head) for head, _ in transport.receive(certain=True))
        return len(found) >= count

    eventually(there, why=f"{count} batches did not come")
    return found


def test_what_was_under_way_is_sent_again_to_the_next_agent(node: Node) -> None:
    first = FakeAgent(node)
    transport = go(node, first)
    try:
        for text in ("taken", "lost", "lost too"):
            assert transport.send([say(text)])
        assert first.hear(4) == [Resume(UID), say("taken"), say("lost"), say("lost too")]
        assert first.stream is not None
        first.stream.send([say("from the controller")])
        assert heads(transport, 1) == [say("from the controller")]
        first.die()
        before = transport.fds
        eventually(lambda: transport.receive(certain=True) == [] and transport.fds != before)
        assert transport.send([say("in between")])
        second = FakeAgent(node)
        eventually(lambda: second.accept(Resumed(1, True), say("again")))
        assert heads(transport, 1) == [say("again")]
        assert second.hear(4) == [Resume(UID, 1), say("lost"), say("lost too"), say("in between")]
        assert transport.changes() == []  # nobody has noticed
        second.die()
    finally:
        transport.close(0)


def test_who_was_given_up_introduces_itself_again(node: Node) -> None:
    first = FakeAgent(node)
    transport = go(node, first)
    try:
        transport.send([say("old")])
        first.die()
        before = transport.fds
        eventually(lambda: transport.receive(certain=True) == [] and transport.fds != before)
        second = FakeAgent(node)
        eventually(lambda: second.accept(Resumed(0, False)))
        eventually(lambda: transport.receive(certain=True) == [] and bool(transport._changes))
        assert transport.changes() == [False, True]
        transport.send([say("new")])
        assert second.hear(2) == [Resume(UID), say("new")]
        second.die()
    finally:
        transport.close(0)


def test_what_has_been_taken_is_not_kept_and_acks_are_given(node: Node) -> None:
    agent = FakeAgent(node)
    transport = go(node, agent)
    assert agent.stream is not None
    try:
        buffer = bytearray(b"as it was")
        transport.send([say("x"), memoryview(buffer)])
        buffer[:] = b"changed !"
        assert transport._session.kept == 1
        agent.stream.send([encode(Ack(1))])
        eventually(lambda: transport.receive(certain=True) == [] and transport._session.kept == 0)
        for _ in range(BATCHES):
            agent.stream.send([say("y")])
        heads(transport, BATCHES)
        assert agent.hear(3)[2:] == [Ack(BATCHES)]
    finally:
        transport.close(0)
        agent.die()


def test_an_agent_that_does_not_answer_is_not_waited_for_for_ever(node: Node) -> None:
    silent = FakeAgent(node)  # it listens, and accepts nobody
    assert find_agent(node, UID, 0, 0.1) is None
    silent.die()
    assert find_agent(node, UID, 0, 0.1) is None


def test_without_an_agent_the_controller_is_reached_directly(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = new_keypair(), new_keypair()
    path = node.folder / "hub.sock"
    hub = Hub(server, Admission(client.public, new_keypair().public), f"ipc://{path}")
    monkeypatch.setattr(relayed, "NEXT", 0.05)
    first = FakeAgent(node)
    transport = go(node, first)
    node.connection = dataclasses.replace(node.connection, ipc=f"ipc://{path}")
    try:
        transport.send([say("is given up")])
        first.die()
        eventually(lambda: transport.receive(certain=True) == [] and bool(transport._changes))
        assert transport.changes() == [False, True]
        transport.send([say("direct")])
        seen: list[object] = []
        eventually(lambda: seen.extend(hub.poll(0.01)) or len(seen) == 2)
        assert seen[1].message == m.Leaving("direct")  # type: ignore[attr-defined]
    finally:
        transport.close(0)
        hub.close(0)


def test_the_end_is_noticed_only_when_all_has_been_read(node: Node) -> None:
    agent = FakeAgent(node)
    transport = go(node, agent)
    try:
        assert agent.stream is not None
        for _ in range(3):
            agent.stream.send([say("z")])
        agent.die()
        assert heads(transport, 3) == [say("z")] * 3
        with pytest.raises(Closed):  # the agent is deaf
            agent.stream.send([b"x"])
    finally:
        transport.close(0)
