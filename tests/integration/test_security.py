"""Issue: only who holds the cluster's keys gets in, each key does its role only, and secrets stay secret."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import zmq

import hpcremote
from hpcremote import connection, files
from hpcremote.client.link import Link
from hpcremote.connection import Connection
from hpcremote.net.connect import connect, context
from hpcremote.net.keys import KeyPair, new_keypair
from hpcremote.net.sockets import dealer
from hpcremote.wire import messages as m
from hpcremote.wire.frames import pack, unpack
from tests.integration.support import Running, eventually

TCP = "tcp://127.0.0.1:{}"


@pytest.fixture(scope="module")
def cluster(session_home: Path) -> Iterator[Running]:
    with Running(n=2, profile="local") as running:
        yield running


@pytest.fixture
def rc(cluster: Running) -> Iterator[hpcremote.Client]:
    """The cluster's client; it and its engines work after each test as before."""
    yield cluster.rc
    assert cluster.rc[:].apply_sync(abs, -3) == [3, 3]


def keys_of(cluster: Running, role: str) -> Connection:
    return connection.read(cluster.client_file().parent / f"{role}.json", role)


def address(cluster: Running) -> str:
    port = keys_of(cluster, "client").addresses[0].rpartition(":")[2]
    return TCP.format(port)


def remote_only(info: Connection, **changes: object) -> Connection:
    """The same, as it looks from another machine."""
    port = info.addresses[0].rpartition(":")[2]
    return dataclasses.replace(info, machine="elsewhere", addresses=(TCP.format(port),), **changes)  # type: ignore[arg-type]


def log_of(cluster: Running) -> str:
    return (cluster.client_file().parent / "logs" / "controller.log").read_text()


@contextlib.contextmanager
def working(rc: hpcremote.Client) -> Iterator[list[float]]:
    """Calls go on meanwhile; gives how long each took."""
    took: list[float] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            began = time.monotonic()
            rc[:].apply_sync(abs, -1)
            took.append(time.monotonic() - began)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert took


class Remote:
    """A DEALER with keys of one's choice."""

    def __init__(self, where: str, keys: KeyPair, server_key: str) -> None:
        self.socket = dealer(context(), where, keys, server_key)
        self.socket.connect(where)

    def is_in(self, seconds: float = 10.0) -> bool:
        return bool(self.socket.poll(int(seconds * 1000), zmq.POLLOUT))

    def ask(self, *messages: m.AnyMessage) -> list[m.AnyMessage]:
        """Send, and return what comes until half a second of silence."""
        self.socket.send_multipart(pack([(message, ()) for message in messages]))
        came: list[m.AnyMessage] = []
        while self.socket.poll(500):
            head, *frames = self.socket.recv_multipart()
            came += [message for message, _ in unpack(head, frames)]
        return came

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(0)


def key_pair(info: Connection) -> KeyPair:
    return KeyPair(info.public_key, info.secret_key)


HELLO = m.Hello("c" * 32, m.PROTOCOL, "0", "here", 1, "3")
CALL = m.Call(1, [0, 1], "execute", b"", [m.Part(b"x", [1])])
JOIN = m.Join("e" * 32, "s" * 32, 0, m.PROTOCOL, "0")
REGISTER = m.Register("s" * 32, 1, [m.Member("e" * 32, 0, "here", 1)])


# ---------------------------------------------------------------- keys and roles


def test_the_keys_of_a_client_work_over_tcp(cluster: Running, rc: hpcremote.Client) -> None:
    link = Link(remote_only(keys_of(cluster, "client")))
    try:
        assert link.address == address(cluster)
        assert sorted(link.engines) == [0, 1]
        assert link.query("info")["engines"] == 2
    finally:
        link.close()


def test_the_key_of_an_engine_cannot_submit(cluster: Running, rc: hpcremote.Client) -> None:
    info = keys_of(cluster, "engine")
    with Remote(address(cluster), key_pair(info), info.server_key) as thief:
        assert thief.is_in()
        for messages in ([HELLO, CALL], [CALL], [m.Query(1, "info")], [m.Shutdown(1, [], True)]):
            answers = thief.ask(*messages)
            assert {type(answer) for answer in answers} <= {m.Refused}
        (refused,) = thief.ask(HELLO)
        assert isinstance(refused, m.Refused) and "not for a client's work" in refused.reason
        # Nor after it has been an engine.
        thief.ask(m.Phase("e" * 32, "here", 1, "started"), m.Leaving("bye"))
        assert {type(answer) for answer in thief.ask(HELLO, CALL)} <= {m.Refused}
    assert rc.queue_status()[0]["queue"] == 0


def test_the_key_of_a_client_cannot_register(cluster: Running, rc: hpcremote.Client) -> None:
    info = keys_of(cluster, "client")
    with Remote(address(cluster), key_pair(info), info.server_key) as spy:
        assert spy.is_in()
        (refused,) = spy.ask(JOIN)
        assert isinstance(refused, m.Refused) and "not for an engine's work" in refused.reason
        answers = spy.ask(HELLO, JOIN, REGISTER, m.Done(1, "ok", m.Part()), m.Leaving("x"))
        assert {type(answer) for answer in answers} == {m.Welcome}
    assert rc.ids == [0, 1]


@pytest.mark.parametrize("what", ["own keys", "engine's public key", "another server key"])
def test_wrong_keys_are_refused(cluster: Running, rc: hpcremote.Client, what: str) -> None:
    info, stranger = keys_of(cluster, "client"), new_keypair()
    keys, server_key = {
        "own keys": (stranger, info.server_key),
        "engine's public key": (
            KeyPair(keys_of(cluster, "engine").public_key, info.secret_key),
            info.server_key,
        ),
        "another server key": (key_pair(info), stranger.public),
    }[what]
    with Remote(address(cluster), keys, server_key) as remote:
        assert not remote.is_in(1.0)
    changed = remote_only(info, public_key=keys.public, secret_key=keys.secret, server_key=server_key)
    with pytest.raises(hpcremote.NotConnected, match="refused our keys|did not greet"):
        connect(changed, 2.0)


def test_no_port_is_open_without_keys(cluster: Running) -> None:
    """Every TCP port of every process of the cluster demands CURVE."""
    ports = {
        one.laddr.port
        for process in cluster.processes()
        for one in process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    }
    assert ports == {int(address(cluster).rpartition(":")[2])}
    for port in ports:
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32))
            sock.settimeout(10)
            greeting = b""
            while len(greeting) < 64 and (more := sock.recv(64 - len(greeting))):
                greeting += more
            assert greeting[12:32].rstrip(b"\0") == b"CURVE"


# ---------------------------------------------------------------- those without keys


def garbage(where: tuple[str, int], number: int, kept: list[socket.socket]) -> None:
    sock = socket.create_connection(where, 10)
    text = [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        os.urandom(2_000),
        b"\xff" + bytes(8) + b"\x7f",  # half a greeting
        b"\xff" + bytes(8) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + bytes(32) + os.urandom(500),
        # ... and a command of 2**62 bytes
        b"\xff"
        + bytes(8)
        + b"\x7f\x03\x01"
        + b"CURVE".ljust(20, b"\0")
        + bytes(32)
        + b"\x06"
        + b"\x40"
        + bytes(7),
    ][number % 6]
    with contextlib.suppress(OSError):
        sock.sendall(text)
    if number % 4 == 0:
        kept.append(sock)  # half open
    else:
        sock.close()


def test_garbage_disturbs_nobody_and_is_logged_in_bounds(cluster: Running, rc: hpcremote.Client) -> None:
    where = ("127.0.0.1", int(address(cluster).rpartition(":")[2]))
    before = len(log_of(cluster).splitlines())
    memory = cluster.controller.memory_info().rss
    kept: list[socket.socket] = []
    plain = [context().socket(zmq.DEALER) for _ in range(10)]
    for peer in plain:  # ZeroMQ without keys
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(address(cluster))
        peer.send_multipart(pack([(HELLO, ()), (CALL, ())]))
    try:
        with working(rc) as took:
            for number in range(3_000):
                garbage(where, number, kept)
            assert not any(peer.poll(0) for peer in plain)
            late = Link(remote_only(keys_of(cluster, "client")))  # and somebody with keys still comes in
            late.close()
    finally:
        for sock in kept:
            sock.close()
        for peer in plain:
            peer.close(0)
    assert max(took) < 5.0
    assert sorted(took)[len(took) // 2] < 0.5
    lines = log_of(cluster).splitlines()[before:]
    # Ten a minute of each kind, the tests before this one included.
    assert "before it had introduced itself" in log_of(cluster)
    assert sum("WARNING" in line for line in lines) <= 30
    assert len(lines) <= 60
    eventually(lambda: len(cluster.controller.net_connections("tcp")) < 20, why="connections stayed open")
    assert cluster.controller.memory_info().rss - memory < 64 << 20


# ---------------------------------------------------------------- on this machine


def test_local_endpoints_are_in_folders_of_ones_own(cluster: Running) -> None:
    info = keys_of(cluster, "client")
    for path in (Path(info.ipc.removeprefix("ipc://")).parent, Path(info.shm), cluster.client_file().parent):
        status = path.stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, os.geteuid())
    for role in ("client", "engine"):
        assert stat.S_IMODE((cluster.client_file().parent / f"{role}.json").stat().st_mode) == 0o600


def as_somebody_else(attempt: Callable[[], None]) -> str:
    """Do it as another user; return the name of the exception, or ``ok``."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
            attempt()
            os.write(write, b"ok")
        except BaseException as error:
            os.write(write, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(write)
    try:
        return os.read(read, 100).decode()
    finally:
        os.close(read)
        os.waitpid(pid, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_other_users_get_nowhere(cluster: Running, rc: hpcremote.Client) -> None:
    info = keys_of(cluster, "client")
    path = info.ipc.removeprefix("ipc://")

    def knock() -> None:
        socket.socket(socket.AF_UNIX).connect(path)

    assert as_somebody_else(knock) == "PermissionError"
    assert as_somebody_else(lambda: os.listdir(info.shm) and None) == "PermissionError"
    assert as_somebody_else(lambda: cluster.client_file().read_bytes() and None) == "PermissionError"
    assert as_somebody_else(lambda: None) == "ok"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_at_the_socket_itself_is_sent_away(cluster: Running, rc: hpcremote.Client) -> None:
    """Were the folder open by mistake, the kernel would still say who connects."""
    path = keys_of(cluster, "client").ipc.removeprefix("ipc://")
    folder = os.open(Path(path).parent, os.O_PATH)

    def knock() -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(f"/proc/self/fd/{folder}/{Path(path).name}")
        if sock.recv(1) == b"":
            raise ConnectionAbortedError

    os.chmod(path, 0o777)
    try:
        assert as_somebody_else(knock) in (
            "ConnectionAbortedError",
            "ConnectionResetError",
            "PermissionError",
        )
    finally:
        os.close(folder)


# ---------------------------------------------------------------- secrets


def secrets(cluster: Running) -> list[str]:
    return [keys_of(cluster, role).secret_key for role in ("client", "engine")]


def test_no_secret_is_on_a_command_line_or_in_an_environment(cluster: Running) -> None:
    looked_at = 0
    for process in cluster.processes():
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert not any(secret.encode() in text for secret in secrets(cluster))
            looked_at += len(text)
    assert looked_at > 100


def test_no_secret_is_in_a_log(cluster: Running) -> None:
    logs = [path for path in (cluster.client_file().parent / "logs").iterdir() if path.is_file()]
    assert any(path.stat().st_size for path in logs)
    for path in logs:
        assert not any(secret.encode() in path.read_bytes() for secret in secrets(cluster))


def test_no_secret_is_in_any_other_file(cluster: Running) -> None:
    info = keys_of(cluster, "client")
    own = {cluster.client_file().parent / f"{role}.json" for role in ("client", "engine")}
    folders = [files.user_dir(), files.runtime_dir(), Path(info.shm)]
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.is_file() and path not in own:
            text = path.read_bytes()
            assert not any(secret.encode() in text for secret in secrets(cluster)), path


def test_no_secret_is_in_a_repr_or_an_error(cluster: Running, rc: hpcremote.Client) -> None:
    info = keys_of(cluster, "client")
    shown = [
        repr(info),
        str(info),
        repr(key_pair(info)),
        repr(rc),
        repr(rc[:]),
        repr(rc.link),
        repr(cluster.cluster),
    ]
    with pytest.raises(hpcremote.NotConnected) as caught:
        connect(remote_only(info, server_key=new_keypair().public), 1.0)
    shown += [str(caught.value), repr(caught.value)]
    for text in shown:
        assert info.secret_key not in text
        assert not re.search(r"secret", text)
