"""The controller's sockets, with real peers: who comes, what they say, and that nobody's going is missed."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from hpcremote.errors import ConfigError
from hpcremote.net import locals
from hpcremote.net.happenings import Came, Got, Happening, Peer, Went
from hpcremote.net.hub import Hub
from hpcremote.net.keys import Admission, KeyPair, new_keypair
from hpcremote.net.sockets import dealer
from hpcremote.net.stream import Stream
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Parcel, pack, unpack
from hpcremote.wire.lanes import bundle, is_bundle, unbundle
from hpcremote.wire.session import Resume, encode

SERVER, CLIENT, ENGINE, STRANGER = (new_keypair() for _ in range(4))
SOON = 10.0


class Bench:
    """A hub, and peers of it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "hub.sock")
        self.hub = Hub(SERVER, Admission(CLIENT.public, ENGINE.public), f"ipc://{self.path}")
        self.port = self.hub.bind("127.0.0.1", 0)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.seen: list[Happening] = []
        self._streams: list[Stream] = []
        self._remotes: list[zmq.Socket[bytes]] = []

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def remote(self, keys: KeyPair = CLIENT, *, name: bytes = b"") -> zmq.Socket[bytes]:
        made = dealer(self.context, self.address, keys, SERVER.public)
        if name:
            made.setsockopt(zmq.ROUTING_ID, name)
        made.connect(self.address)
        self._remotes.append(made)
        return made

    def local(self) -> Stream:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        self._streams.append(Stream(sock, keep=False))
        return self._streams[-1]

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), SOON)

    def until(self, what: Callable[[], bool], seconds: float = SOON) -> None:
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, f"it did not happen; there was: {self.seen[-10:]}"
            self.seen += self.hub.poll(0.05)

    def came(self) -> list[Came]:
        return [one for one in self.seen if isinstance(one, Came)]

    def went(self) -> list[Peer]:
        return [one.peer for one in self.seen if isinstance(one, Went)]

    def got(self) -> list[m.AnyMessage]:
        return [one.message for one in self.seen if isinstance(one, Got)]

    def tell(self, peer: zmq.Socket[bytes], text: str) -> None:
        """Send once the connection is up (before, the sockets refuse)."""
        self.until(lambda: bool(peer.poll(0, zmq.POLLOUT)))
        peer.send_multipart(say(text))

    def settle(self) -> None:
        """Take in whatever is on its way."""
        quiet = time.monotonic() + 0.7
        while time.monotonic() < quiet:
            self.seen += self.hub.poll(0.05)

    def close(self) -> None:
        for remote in self._remotes:
            remote.close(0)
        self.context.destroy(linger=0)
        for stream in self._streams:
            stream.close()
        self.hub.close(0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def say(text: str) -> list[bytes]:
    return pack([(m.Leaving(text), ())])


# ---------------------------------------------------------------- coming, speaking, going


def test_peers_come_with_the_role_of_their_key(bench: Bench) -> None:
    client, engine, local = bench.remote(CLIENT), bench.remote(ENGINE), bench.local()
    bench.tell(client, "client")
    bench.tell(engine, "engine")
    local.send(say("local"))
    bench.until(lambda: len(bench.got()) == 3)
    roles = {one.peer: (one.role, one.local) for one in bench.came()}
    said = {one.message.cause: roles[one.peer] for one in bench.seen if isinstance(one, Got)}  # type: ignore[union-attr]
    assert said == {"client": ("client", False), "engine": ("engine", False), "local": ("any", True)}


def test_answers_go_to_the_right_peer_with_their_frames(bench: Bench) -> None:
    remote, local = bench.remote(), bench.local()
    bench.tell(remote, "remote")
    local.send(say("local"))
    bench.until(lambda: len(bench.got()) == 2)
    frames = [b"small", os.urandom(3_000_000)]
    for one in list(bench.seen):
        if isinstance(one, Got):
            run = m.Run(1, one.message.cause, b"", m.Part(b"", [], 2), False, [0])  # type: ignore[union-attr]
            bench.hub.send(one.peer, [(m.Stop("first"), ()), (run, frames)])
    head, *came = remote.recv_multipart()
    (_, _), (run_came, _) = unpack(head, came)
    assert isinstance(run_came, m.Run) and run_came.op == "remote"
    assert came == frames
    batches: list[Parcel] = []

    def received() -> bool:
        for head, rest in local.receive():
            batches.extend(unpack(head, rest))
        return len(batches) == 2

    bench.until(received)
    assert isinstance(batches[1][0], m.Run) and batches[1][0].op == "local"
    assert [bytes(frame) for frame in batches[1][1]] == frames
    local.close()


@pytest.mark.parametrize("where", ["local", "remote"])
def test_what_was_said_before_going_comes_first(bench: Bench, where: str) -> None:
    if where == "local":
        local = bench.local()
        for number in range(500):
            local.send(say(str(number)))
        local.close()
    else:
        remote = bench.remote()
        bench.until(lambda: bool(remote.poll(0, zmq.POLLOUT)))
        for number in range(500):
            remote.send_multipart(say(str(number)))
        remote.close(linger=2_000)
    bench.until(lambda: len(bench.went()) == 1)
    kinds = [type(one) for one in bench.seen]
    assert kinds == [Came] + [Got] * 500 + [Went]
    assert [message.cause for message in bench.got()] == [str(n) for n in range(500)]  # type: ignore[union-attr]


def test_a_peer_that_went_before_anybody_looked(bench: Bench) -> None:
    """Its first message is read after its departure was announced; it must not stay for ever."""
    remote = bench.remote()
    while not remote.poll(10, zmq.POLLOUT):  # ZAP is answered, and nothing else
        bench.hub._answer_zap()
    bench.hub._read_monitor()
    assert bench.hub._open, "its connection was accepted before it was let in"
    remote.send_multipart(say("short"))
    remote.close(linger=2_000)
    deadline = time.monotonic() + SOON
    while bench.hub._open:  # the departure is noticed first
        assert time.monotonic() < deadline
        bench.hub._read_monitor()
    bench.settle()
    assert [type(one) for one in bench.seen] == [Came, Got, Went]


def test_descriptors_that_are_used_again_do_not_confuse_peers(bench: Bench) -> None:
    """Visitors come and go while one stays: exactly those who went are said to have gone."""
    stays = bench.remote()
    bench.tell(stays, "stays")
    bench.until(lambda: len(bench.got()) == 1)
    for number in range(30):
        visitor = bench.remote()
        bench.tell(visitor, f"visitor {number}")
        visitor.close(linger=1_000)
        if number % 3 == 0:
            bench.seen += bench.hub.poll(0)
    last = bench.remote()
    bench.tell(last, "last")
    bench.until(lambda: len(bench.went()) == 30 and len(bench.got()) == 32)
    bench.settle()
    named = {one.peer: one.message.cause for one in bench.seen if isinstance(one, Got)}  # type: ignore[union-attr]
    gone = [named[peer] for peer in bench.went()]
    assert sorted(gone) == sorted(f"visitor {number}" for number in range(30))
    stays.close()
    last.close()
    bench.until(lambda: len(bench.went()) == 32)
    assert not bench.hub._known and not bench.hub._by_fd


def test_sending_to_who_has_gone_is_no_error(bench: Bench) -> None:
    remote, local = bench.remote(), bench.local()
    bench.tell(remote, "x")
    local.send(say("y"))
    bench.until(lambda: len(bench.got()) == 2)
    peers = [one.peer for one in bench.came()]
    remote.close()
    local.close()
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        for peer in peers:
            bench.hub.send(peer, [(m.Stop("z"), ())])
    bench.until(lambda: len(bench.went()) == 2)
    for peer in peers:
        bench.hub.send(peer, [(m.Stop("z"), ())])
    bench.settle()
    assert sorted(bench.went()) == sorted(peers)


# ---------------------------------------------------------------- under load


@contextlib.contextmanager
def flood(bench: Bench, make: Callable[[], Callable[[], None]]) -> Iterator[None]:
    """Keep the hub's inbox from ever being empty."""
    stop = threading.Event()

    def work() -> None:
        send = make()
        while not stop.is_set():
            send()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        while thread.is_alive():
            bench.hub.poll(0.01)
            thread.join(0.01)


def flooding_remote(bench: Bench) -> Callable[[], None]:
    batch = pack([(m.Leaving("flood"), ())] * 50)
    peer = bench.remote()
    assert peer.poll(int(SOON * 1000), zmq.POLLOUT)  # the test's thread polls the hub meanwhile

    def send() -> None:
        for _ in range(50):
            peer.send_multipart(batch)
        time.sleep(0.001)

    return send


def flooding_local(bench: Bench) -> Callable[[], None]:
    batch = pack([(m.Leaving("flood"), ())] * 50)
    peer = bench.local()

    def send() -> None:
        if not peer.pending:
            peer.send(batch)
        peer.flush()

    return send


@pytest.mark.parametrize("make", [flooding_remote, flooding_local])
def test_who_goes_and_who_comes_is_seen_while_others_shout(
    bench: Bench, make: Callable[[Bench], Callable[[], None]]
) -> None:
    leaves, stays = bench.remote(), bench.local()
    bench.tell(leaves, "remote")
    stays.send(say("local"))
    bench.until(lambda: len(bench.got()) == 2)
    gone = next(one.peer for one in bench.came() if not one.local)
    with flood(bench, lambda: make(bench)):
        bench.until(lambda: len(bench.got()) > 1_000)
        began = time.monotonic()
        leaves.close()
        bench.until(lambda: gone in bench.went())
        assert time.monotonic() - began < 3.0
        bench.seen.clear()
        late = bench.remote(ENGINE)
        began = time.monotonic()
        bench.tell(late, "late")
        bench.until(lambda: any(one.role == "engine" for one in bench.came()))
        assert time.monotonic() - began < 3.0
        stays.send(say("still here"))
        bench.until(lambda: any(one.cause == "still here" for one in bench.got()))  # type: ignore[union-attr]


# ---------------------------------------------------------------- who may not


def test_a_peer_that_chooses_its_name_has_no_role(bench: Bench) -> None:
    chosen = bench.remote(CLIENT, name=b"engine-0")
    bench.tell(chosen, "let me")
    bench.until(lambda: len(bench.got()) == 1)
    assert [one.role for one in bench.came()] == [""]


def test_strangers_get_nothing_and_the_log_stays_short(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    plain = bench.context.socket(zmq.DEALER)
    plain.connect(bench.address)
    bench._remotes.append(plain)
    plain.send_multipart(say("no keys"))
    wrong = [bench.remote(STRANGER) for _ in range(20)]
    other = dealer(bench.context, bench.address, CLIENT, STRANGER.public)
    other.connect(bench.address)
    bench._remotes.append(other)
    for number in range(60):
        with bench.raw() as sock, contextlib.suppress(OSError):
            sock.sendall([b"GET / HTTP/1.1\r\n\r\n", b"", os.urandom(500)][number % 3])
        bench.seen += bench.hub.poll(0)
    bench.settle()
    assert bench.seen == []
    assert not any(peer.poll(0, zmq.POLLOUT) for peer in wrong)
    lines = [record.getMessage() for record in caplog.records]
    assert any("before it had introduced itself" in line for line in lines)
    assert any("keys of no role" in line for line in lines)
    assert len(lines) <= 25
    friend = bench.remote()
    bench.tell(friend, "still fine")
    bench.until(lambda: len(bench.got()) == 1)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_unreadable_messages_are_dropped(bench: Bench, where: str, caplog: pytest.LogCaptureFixture) -> None:
    garbage = [
        [b""],
        [b"\x01"],
        [os.urandom(50)],
        [b"\x01\xdd\xff\xff\xff\xff"],
        [*say("x"), b"a frame too many"],
    ]
    if where == "local":
        local = bench.local()
        for frames in garbage * 20:
            local.send(frames)
        local.send(say("after"))
    else:
        remote = bench.remote()
        bench.until(lambda: bool(remote.poll(0, zmq.POLLOUT)))
        for frames in garbage * 20:
            remote.send_multipart(frames)
        remote.send_multipart(say("after"))
    bench.until(lambda: len(bench.got()) == 1)
    assert [type(one) for one in bench.seen] == [Came, Got]
    assert 1 <= len(caplog.records) <= 12


def test_a_local_peer_that_speaks_another_language_is_cut_off(bench: Bench) -> None:
    texts = [b"GET / HTTP/1.1\r\n\r\n", b"hpc1" + b"\xff" * 4, b"hpc1\1\0\0\0" + b"\xff" * 8, b"\0" * 100]
    for number, text in enumerate(texts, 1):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(bench.path)
        sock.sendall(text)
        bench.until(lambda: len(bench.went()) == number)  # noqa: B023
        sock.settimeout(SOON)
        assert sock.recv(100) == b""
        sock.close()
    assert bench.got() == []


# ---------------------------------------------------------------- the rest


def test_a_byte_wakes_it(bench: Bench) -> None:
    bench.settle()
    began = time.monotonic()
    threading.Timer(0.05, os.write, (bench.hub.wake_fd, b"!")).start()
    assert bench.hub.poll(SOON) == []
    assert time.monotonic() - began < SOON / 2


def test_it_sleeps_when_nothing_happens(bench: Bench) -> None:
    remote = bench.remote()
    bench.tell(remote, "hello")
    bench.until(lambda: len(bench.got()) == 1)
    bench.settle()
    before = time.process_time()
    assert bench.hub.poll(0.3) == []
    assert time.process_time() - before < 0.1


def test_places_where_it_cannot_listen(bench: Bench) -> None:
    with pytest.raises(
        ConfigError, match=f"cannot listen on 127.0.0.1 port {bench.port}: Address already in use"
    ):
        bench.hub.bind("127.0.0.1", bench.port)
    with pytest.raises(ConfigError, match=r"cannot listen on 192.0.2.1 port any"):
        bench.hub.bind("192.0.2.1", 0)
    with pytest.raises(ConfigError, match=r"cannot make the local socket .*hub.sock: Address already in use"):
        Hub(SERVER, Admission(CLIENT.public, ENGINE.public), f"ipc://{bench.path}").close(0)


# ---------------------------------------------------------------- who does not read


def test_a_peer_that_reads_nothing_is_told_and_can_be_cut(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locals, "MOST_WAITING", 1 << 22)
    monkeypatch.setattr(locals, "STILL", 0.2)
    deaf, other = bench.local(), bench.local()
    deaf.send(say("deaf"))
    other.send(say("other"))
    bench.until(lambda: len(bench.got()) == 2)
    peers = {one.message.cause: one.peer for one in bench.seen if isinstance(one, Got)}  # type: ignore[union-attr]
    began = time.monotonic()
    while not bench.hub.stalled:
        for peer in peers.values():
            bench.hub.send(peer, [(m.Stop("x" * 100_000), ())])
        other.receive()
        bench.seen += bench.hub.poll(0.01)
        assert time.monotonic() - began < SOON
    assert bench.hub.stalled == [peers["deaf"]]
    assert time.monotonic() - began > 0.2
    bench.hub.cut(peers["deaf"])
    bench.until(lambda: bench.went() == [peers["deaf"]])
    assert bench.hub.stalled == []
    bench.hub.send(peers["deaf"], [(m.Stop("nobody is there"), ())])
    bench.hub.send(peers["other"], [(m.Stop("still here"), ())])

    def heard() -> bool:
        return any(b"still here" in head for head, _ in other.receive())

    bench.until(heard)


def test_what_waits_is_counted(bench: Bench) -> None:
    near, far = socket.socketpair()
    sender, reader = Stream(near, keep=True), Stream(far, keep=False)
    frames = [b"head", bytearray(5_000_000)]
    sender.send(frames)
    sender.send([b"more"])
    assert 0 < sender.waiting < 5_010_000
    came: list[object] = []
    deadline = time.monotonic() + SOON
    while len(came) < 2 and time.monotonic() < deadline:
        came += reader.receive()
        sender.flush()
    assert sender.waiting == 0 and not sender.pending
    sender.send([bytes(5_000_000)])
    assert sender.waiting > 0
    sender.cut()
    assert sender.waiting == 0
    for stream in (sender, reader):
        stream.close()


# ---------------------------------------------------------------- ranks behind an agent


def test_ranks_behind_an_agent_are_peers_of_their_own(bench: Bench) -> None:
    agent = bench.remote(ENGINE)
    bench.tell(agent, "agent")
    agent.send_multipart(
        bundle([([1, 2, 3], [encode(Resume(""))]), ([1], say("one")), ([2, 3], say("two, three"))])
    )
    agent.send_multipart(bundle([([2], []), ([1], say("again")), ([9], [])]))
    bench.until(lambda: len(bench.got()) == 5)
    said = [(one.peer.lane, one.message.cause) for one in bench.seen if isinstance(one, Got)]  # type: ignore[union-attr]
    assert said == [(0, "agent"), (1, "one"), (2, "two, three"), (3, "two, three"), (1, "again")]
    assert [(one.peer.lane, one.role, one.local) for one in bench.came()] == [
        (lane, "engine", False) for lane in range(4)
    ]
    assert [peer.lane for peer in bench.went()] == [2]
    agent.close(0)
    bench.until(lambda: len(bench.went()) == 4)
    assert [peer.lane for peer in bench.went()] == [2, 0, 1, 3]


def test_what_is_the_same_for_ranks_of_a_node_is_sent_there_once(bench: Bench) -> None:
    agent, other = bench.remote(ENGINE), bench.local()
    bench.tell(agent, "agent")
    agent.send_multipart(bundle([([1, 2, 3], [encode(Resume(""))]), ([1, 2, 3], say("here"))]))
    other.send(say("other"))
    bench.until(lambda: len(bench.got()) == 5)
    peers = {one.peer.lane: one.peer for one in bench.came() if not one.peer.local}
    run, frames = m.Run(1, "all", b"", m.Part(b"", [], 1), False, [0]), [os.urandom(300_000)]
    own = m.Stop("you")
    bench.hub.send_all([
        (peers[1], [(run, frames)]),
        (peers[2], [(run, frames), (own, ())]),
        (peers[0], [(m.Stop("agent"), ())]),
        (peers[3], [(run, frames)]),
    ])  # fmt: skip
    came = [agent.recv_multipart() for _ in range(2)]
    (batch,) = [one for one in came if not is_bundle(one[0])]
    assert unpack(batch[0]) == [(m.Stop("agent"), ())]
    (head, *rest) = next(one for one in came if is_bundle(one[0]))
    entries = [(lanes, unpack(batch, share)) for lanes, batch, share in unbundle(head, rest)]
    assert entries == [([1, 3], [(run, frames)]), ([2], [(run, frames), (own, ())])]


@pytest.mark.parametrize(
    ("keys", "entry", "why"),
    [
        (CLIENT, ([1], [encode(Resume(""))]), "a client's lane is its own"),
        (ENGINE, ([0], [encode(Resume(""))]), "no lane 0"),
        (ENGINE, ([1], say("lie")), "a lane that has not been opened"),
        (ENGINE, ([1], [encode(Resume("../etc"))]), "opened once, by a rank"),
    ],
)
def test_who_may_not_speak_for_ranks(
    bench: Bench,
    keys: KeyPair,
    entry: tuple[list[int], list[bytes]],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    liar = bench.remote(keys)
    bench.tell(liar, "hello")
    liar.send_multipart(bundle([entry]))
    liar.send_multipart(say("after"))
    bench.until(lambda: len(bench.got()) == 2)
    assert [message.cause for message in bench.got()] == ["hello", "after"]  # type: ignore[union-attr]
    assert [one.peer.lane for one in bench.came()] == [0]
    assert why in caplog.text
