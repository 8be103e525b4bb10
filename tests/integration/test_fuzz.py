"""Bytes of all kinds, by peers that hold valid keys, at a controller that has other work to do."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from hpcremote import connection
from hpcremote.client.link import Link
from hpcremote.net.connect import context
from hpcremote.net.keys import KeyPair
from hpcremote.net.sockets import dealer
from hpcremote.net.stream import Closed, Stream
from hpcremote.wire import messages as m
from hpcremote.wire.frames import pack
from tests.integration.support import Running, eventually
from tests.wire.test_messages import SAMPLES

BATCHES = 3_000
#: Ending the cluster is a client's good right, and stopping an engine too: not what is looked for here.
HARMLESS = [sample for sample in SAMPLES if not isinstance(sample, m.Shutdown)]

Frames = list[bytes]


@pytest.fixture(scope="module")
def cluster(session_home: Path) -> Iterator[Running]:
    with Running(n=2, profile="local") as running:
        yield running


def head(dice: random.Random) -> bytes:
    return bytes(pack([(dice.choice(HARMLESS), ()) for _ in range(dice.randint(1, 4))])[0])


def random_bytes(dice: random.Random) -> Frames:
    return [dice.randbytes(dice.randint(0, 300)) for _ in range(dice.randint(1, 4))]


def valid(dice: random.Random) -> Frames:
    return [head(dice)]


def mutated(dice: random.Random) -> Frames:
    text = bytearray(head(dice))
    for _ in range(dice.randint(1, 5)):
        text[dice.randrange(1, len(text))] = dice.randrange(256)
    return [bytes(text)] if b"shutdown" not in text else [b"\x01"]


def cut(dice: random.Random) -> Frames:
    text = head(dice)
    return [text[: dice.randrange(len(text))]]


def swapped(dice: random.Random) -> Frames:
    frames = [head(dice), head(dice), dice.randbytes(70_000)]
    dice.shuffle(frames)
    return frames


def wrong_count(dice: random.Random) -> Frames:
    announced = dice.choice([0, 1, 2, 5, 1 << 31, (1 << 64) - 1])
    part = m.Part(b"", [70_000] * min(announced, 5), announced)
    message = dice.choice([m.Done(1, "ok", part), m.Call(1, [0, 1], "execute", b"", [part, part])])
    return [bytes(pack([(message, ())])[0]), *[b"x" * 70_000] * dice.randint(0, 3)]


def long_claims(dice: random.Random) -> Frames:
    return [b"\x01" + dice.choice([b"\xdd", b"\x91\xdd", b"\x91\x92\xa4drop\xdd", b"\x91\xdb"]) + b"\xff" * 4]


KINDS: list[Callable[[random.Random], Frames]] = [
    random_bytes, valid, mutated, mutated, mutated, cut, swapped, wrong_count, long_claims
]  # fmt: skip
INTRODUCTIONS = {
    "client": [m.Hello("c" * 32, m.PROTOCOL, "0", "here", 1, "3")],
    "engine": [
        m.Phase("f" * 32, "here", 1, "started"),
        m.Join("f" * 32, "a" * 32, 0, m.PROTOCOL, "0"),
        m.Register("a" * 32, 2, [m.Member("f" * 32, 0, "here", 1), m.Member("d" * 32, 1, "here", 2)]),
    ],
}


def check(cluster: Running) -> None:
    """An ordinary client, old or new, works as ever."""
    assert cluster.rc[[0, 1]].apply_sync(abs, -3) == [3, 3]
    with cluster.new_client() as another:
        assert another[[0, 1]].apply_sync(abs, -4) == [4, 4]
        # What the other one sent may have been a call, which still runs.
        eventually(
            lambda: all(row["queue"] == 0 for row in another.queue_status().values() if isinstance(row, dict))
        )
    assert all(process.is_running() for process in cluster.engines.values())


@pytest.mark.parametrize("role", ["client", "engine"])
def test_fuzz_over_tcp(cluster: Running, role: str) -> None:
    info = connection.read(cluster.client_file().parent / f"{role}.json", role)
    where = "tcp://127.0.0.1:" + info.addresses[0].rpartition(":")[2]
    dice = random.Random(role)
    memory = cluster.controller.memory_info().rss
    for introduced in (False, True):
        peer = dealer(context(), where, KeyPair(info.public_key, info.secret_key), info.server_key)
        try:
            peer.connect(where)
            assert peer.poll(10_000, zmq.POLLOUT)
            if introduced:
                peer.send_multipart(pack([(message, ()) for message in INTRODUCTIONS[role]]))
            for _ in range(BATCHES // 2):
                assert peer.poll(10_000, zmq.POLLOUT)
                peer.send_multipart(dice.choice(KINDS)(dice))
                while peer.poll(0):
                    peer.recv_multipart()
            check(cluster)
        finally:
            peer.close(0)
    finish(cluster, memory)


@pytest.mark.parametrize("role", ["client", "engine"])
def test_fuzz_on_this_machine(cluster: Running, role: str) -> None:
    info = connection.read(cluster.client_file())
    dice = random.Random(f"{role} here")
    memory = cluster.controller.memory_info().rss
    peer: Stream | None = None
    for number in range(BATCHES):
        if peer is None or number % 500 == 0:
            if peer is not None:
                peer.close()
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(info.ipc.removeprefix("ipc://"))
            peer = Stream(sock, keep=False)
            if dice.random() < 0.8:
                peer.send(pack([(message, ()) for message in INTRODUCTIONS[role]]))
        try:
            peer.send(dice.choice(KINDS)(dice))
            while peer.pending:
                peer.flush()
            peer.receive()
        except Closed:
            peer.close()
            peer = None
        if number % 1_000 == 0:
            check(cluster)
    if peer is not None:
        peer.close()
    finish(cluster, memory)


def test_fuzz_below_the_frames(cluster: Running) -> None:
    """The stream's own framing: any bytes, cut anywhere."""
    info = connection.read(cluster.client_file())
    dice = random.Random(7)
    memory = cluster.controller.memory_info().rss
    starts = [
        b"",
        b"hpc1",
        b"hpc1\1\0\0\0",
        b"hpc1\2\0\0\0" + b"\x05" + bytes(7),
        b"hpc1\1\0\0\0" + bytes(5) + b"\x03\0\0",
    ]
    for number in range(600):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        sock.connect(info.ipc.removeprefix("ipc://"))
        try:
            sock.sendall(starts[number % len(starts)] + dice.randbytes(dice.randint(0, 200)))
        except OSError as error:
            assert isinstance(error, (BrokenPipeError, ConnectionResetError))
        sock.close()
    finish(cluster, memory)


def finish(cluster: Running, memory: int) -> None:
    check(cluster)
    info = connection.read(cluster.client_file())
    eventually(lambda: clients(info) == 2, why="the controller still knows peers that have gone")
    assert cluster.controller.memory_info().rss - memory < 64 << 20
    assert cluster.controller.is_running()


def clients(info: connection.Connection) -> int:
    link = Link(info)
    try:
        return int(link.query("info")["clients"])
    finally:
        link.close()


def test_a_claim_of_gigabytes_takes_no_memory(cluster: Running) -> None:
    info = connection.read(cluster.client_file())
    before = cluster.controller.memory_info().rss
    held = []
    for _ in range(8):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(info.ipc.removeprefix("ipc://"))
        sock.sendall(b"hpc1\1\0\0\0" + (1 << 31).to_bytes(8, "little") + b"only this")
        held.append(sock)
    check(cluster)
    assert cluster.controller.memory_info().rss - before < 64 << 20
    for sock in held:
        sock.close()
    check(cluster)


def test_a_client_that_never_reads_does_not_hold_others_up(cluster: Running) -> None:
    info = connection.read(cluster.client_file())
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(info.ipc.removeprefix("ipc://"))
    deaf = Stream(sock, keep=False)
    deaf.send(pack([(message, ()) for message in INTRODUCTIONS["client"]]))
    for number in range(2_000):
        deaf.send(pack([(m.Query(number, "info"), ())]))
    began = time.monotonic()
    check(cluster)
    assert time.monotonic() - began < 5.0
    deaf.close()
    check(cluster)
