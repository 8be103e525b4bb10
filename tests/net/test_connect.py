"""The way to the controller: which addresses are tried, and what is said of each."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcremote import files
from hpcremote.connection import Connection
from hpcremote.errors import NotConnected
from hpcremote.net import connect as module
from hpcremote.net.connect import addresses, connect
from hpcremote.net.hub import Hub
from hpcremote.net.keys import Admission, KeyPair, new_keypair
from hpcremote.net.transport import StreamTransport, ZmqTransport

SERVER, CLIENT, ENGINE = (new_keypair() for _ in range(3))


class Controller:
    """A hub that is polled in a thread."""

    def __init__(self, folder: Path) -> None:
        self.ipc = f"ipc://{folder}/hub.sock"
        self.hub = Hub(SERVER, Admission(CLIENT.public, ENGINE.public), self.ipc)
        self.tcp = f"tcp://127.0.0.1:{self.hub.bind('127.0.0.1', 0)}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stop.is_set():
            self.hub.poll(0.02)

    def close(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join()
            self.hub.close(0)


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    made = Controller(tmp_path)
    yield made
    made.close()


def info(*tcp: str, ipc: str = "", machine: str = "", keys: KeyPair = CLIENT, server: str = "") -> Connection:
    return Connection(
        role="client", cluster_id="c1", cluster_uid="u", profile="p", version="0", protocol=1, host="node7",
        pid=4711, started=0.0, machine=machine or files.machine_id(), ipc=ipc, addresses=tcp,
        server_key=server or SERVER.public,
        public_key=keys.public, secret_key=keys.secret,
    )  # fmt: skip


def test_local_endpoints_are_for_this_machine() -> None:
    assert addresses(info("tcp://a:1", ipc="ipc:///x")) == ["ipc:///x", "tcp://a:1"]
    assert addresses(info("tcp://a:1", ipc="ipc:///x", machine="other")) == ["tcp://a:1"]
    assert addresses(info("tcp://a:1")) == ["tcp://a:1"]


def test_the_first_that_answers_is_taken(controller: Controller) -> None:
    local = connect(info(controller.tcp, ipc=controller.ipc), 10)
    assert (type(local.transport), local.address) == (StreamTransport, controller.ipc)
    remote = connect(info(controller.tcp, ipc="ipc:///nowhere/x.sock"), 10)
    assert (type(remote.transport), remote.address) == (ZmqTransport, controller.tcp)
    for found in (local, remote):
        found.transport.close(0)


def test_each_address_is_named_with_its_answer(tmp_path: Path) -> None:
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        ports = [one.getsockname()[1] for one in (closed, silent)]
        began = time.monotonic()
        with pytest.raises(NotConnected) as caught:
            connect(info(*(f"tcp://127.0.0.1:{port}" for port in ports), ipc=f"ipc://{tmp_path}/x.sock"), 1.0)
        assert time.monotonic() - began < 5.0
    said = str(caught.value)
    assert "cluster 'c1' (pid 4711 on node7)" in said
    assert f"{tmp_path}/x.sock: no such file or directory" in said
    assert f"127.0.0.1:{ports[0]}: connection refused" in said
    assert f"127.0.0.1:{ports[1]}: something accepts connections there, but did not greet within" in said


def test_no_address_at_all() -> None:
    with pytest.raises(NotConnected, match="names no address"):
        connect(info(), 1.0)


@pytest.mark.parametrize("wrong", ["client", "server"])
def test_keys_that_do_not_fit(controller: Controller, wrong: str) -> None:
    stranger = new_keypair()
    changed = (
        info(controller.tcp, keys=stranger)
        if wrong == "client"
        else info(controller.tcp, server=stranger.public)
    )
    with pytest.raises(NotConnected, match="refused our keys|did not greet") as caught:
        connect(changed, 1.0)
    assert stranger.secret not in str(caught.value)


def test_who_speaks_something_else_is_not_taken_for_a_controller() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        stop = threading.Event()

        def serve() -> None:
            listener.settimeout(0.05)
            while not stop.is_set():
                try:
                    other, _ = listener.accept()
                except TimeoutError:
                    continue
                other.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                other.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(NotConnected, match="it answered|did not greet"):
                connect(info(f"tcp://127.0.0.1:{listener.getsockname()[1]}"), 1.0)
        finally:
            stop.set()
            thread.join()


def test_a_lost_controller_is_noticed_at_once(controller: Controller) -> None:
    """The monitor's descriptor tells of the end although nothing else used the sockets since."""
    import select

    found = connect(info(controller.tcp), 10)
    try:
        poll = select.poll()
        for fd in found.transport.fds:
            poll.register(fd, select.POLLIN)
        while poll.poll(0):
            found.transport.receive(certain=False)
            assert found.transport.changes() == []
        controller.close()
        deadline = time.monotonic() + 10
        changes: list[bool] = []
        while not changes:
            assert time.monotonic() < deadline
            assert poll.poll(5_000), "no descriptor fired"
            found.transport.receive(certain=False)
            changes = found.transport.changes()
        assert changes == [False]
    finally:
        found.transport.close(0)


def test_one_context_a_process() -> None:
    assert module.context() is module.context()


def test_an_address_that_is_our_own_is_tried_last_and_said_to_lead_nowhere(
    controller: Controller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"tcp://127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(NotConnected, match=r"refused; .* has that address itself \(lo\).*see interface:"):
            connect(info(nowhere, machine="another"), 5.0)
    # Somebody may forward it: it is not left out.
    opened = connect(info(controller.tcp, machine="another"), 5.0)
    assert opened.address == controller.tcp
    opened.transport.close(0)
