from __future__ import annotations

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st
from zmq.utils import z85

from hpcremote.net.keys import ZAP_ENDPOINT, Admission, KeyPair, RateLimit, new_keypair

CLIENT, ENGINE, STRANGER = new_keypair(), new_keypair(), new_keypair()


def request(key: bytes, mechanism: bytes = b"CURVE", version: bytes = b"1.0") -> list[bytes]:
    return [version, b"7", b"", b"10.0.0.5", b"", mechanism, key]


def raw(keys: KeyPair) -> bytes:
    return z85.decode(keys.public.encode())


def door() -> Admission:
    return Admission(CLIENT.public, ENGINE.public)


# ---------------------------------------------------------------- the decision


def test_key_pairs_are_fresh_and_do_not_show_their_secret() -> None:
    assert len({CLIENT.public, ENGINE.public, STRANGER.public, CLIENT.secret}) == 4
    assert CLIENT.secret not in repr(CLIENT)
    assert CLIENT.secret not in f"{CLIENT}"
    assert len(CLIENT.public) == len(CLIENT.secret) == 40


@pytest.mark.parametrize(("keys", "role"), [(CLIENT, "client"), (ENGINE, "engine")])
def test_the_role_is_the_key(keys: KeyPair, role: str) -> None:
    verdict = door().answer(request(raw(keys)), 0.0)
    assert verdict.frames == [b"1.0", b"7", b"200", b"OK", role.encode(), b""]
    assert (verdict.role, verdict.log) == (role, "")


@pytest.mark.parametrize(
    ("frames", "status", "words"),
    [
        (request(raw(STRANGER)), b"400", "10.0.0.5"),
        (request(b""), b"400", "10.0.0.5"),
        (request(raw(CLIENT), mechanism=b"NULL"), b"400", "without keys"),
        ([*request(raw(CLIENT)), b"more"], b"400", "without keys"),
        (request(raw(CLIENT))[:-1], b"400", "without keys"),
        (request(raw(CLIENT), version=b"2.0"), b"500", "malformed"),
        ([b"1.0", b"7"], b"500", "malformed"),
        ([], b"500", "malformed"),
    ],
)
def test_everybody_else_is_refused(frames: list[bytes], status: bytes, words: str) -> None:
    verdict = door().answer(frames, 0.0)
    assert verdict.frames[2] == status
    assert verdict.frames[4] == b""
    assert verdict.role == ""
    assert words in verdict.log


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_any_frames_give_a_refusal(frames: list[bytes]) -> None:
    verdict = door().answer(frames, 0.0)
    assert verdict.role == ""
    assert len(verdict.frames) == 6
    assert verdict.frames[2] in (b"400", b"500")


def test_refusals_are_logged_at_a_bounded_rate() -> None:
    admission = door()
    lines = [admission.answer(request(raw(STRANGER)), float(second) / 100).log for second in range(1000)]
    assert sum(map(bool, lines)) == 10
    assert "990 more" in admission.answer(request(raw(STRANGER)), 100.0).log


# ---------------------------------------------------------------- the rate


def test_rate_limit_counts_what_it_leaves_out() -> None:
    limit = RateLimit(most=2, period=60)
    assert [limit.admit(now, "a") for now in (0, 1, 2, 59.9)] == ["a", "a", "", ""]
    assert limit.admit(60, "b") == "b (2 more left out before it)"
    assert limit.admit(61, "b") == "b"
    assert limit.admit(62, "b") == ""
    assert limit.admit(1000, "c") == "c (1 more left out before it)"
    assert limit.admit(2000, "c") == "c"


@given(st.lists(st.floats(0, 1000), min_size=1, max_size=200))
def test_rate_limit_holds_whatever_comes(times: list[float]) -> None:
    limit = RateLimit(most=3, period=60)
    said = [now for now in sorted(times) if limit.admit(now, "x")]
    assert said
    # In a window as long as the period two periods can meet, no more.
    assert all(sum(first <= now < first + 60 for now in said) <= 6 for first in said)


# ---------------------------------------------------------------- with real sockets


def handshake(keys: KeyPair | None, *, timeout: int) -> str | None:
    """Say hello to a server that has our Admission; return the role that the server saw."""
    server_keys, admission = new_keypair(), door()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with context, context.socket(zmq.REP) as zap, context.socket(zmq.ROUTER) as server:
        zap.bind(ZAP_ENDPOINT)
        server.curve_server = True
        server.curve_publickey = server_keys.public.encode()
        server.curve_secretkey = server_keys.secret.encode()
        port = server.bind_to_random_port("tcp://127.0.0.1")
        with context.socket(zmq.DEALER) as peer:
            peer.linger = server.linger = 0
            if keys:
                peer.curve_serverkey = server_keys.public.encode()
                peer.curve_publickey = keys.public.encode()
                peer.curve_secretkey = keys.secret.encode()
            peer.connect(f"tcp://127.0.0.1:{port}")
            peer.send(b"hello")
            poller = zmq.Poller()
            poller.register(zap, zmq.POLLIN)
            poller.register(server, zmq.POLLIN)
            while ready := dict(poller.poll(timeout)):
                if zap in ready:
                    zap.send_multipart(admission.answer(zap.recv_multipart(), 0.0).frames)
                if server in ready:
                    server.recv()
                    frame = server.recv(copy=False)
                    assert frame.bytes == b"hello"
                    return str(frame.get("User-Id"))
            return None


def test_a_real_peer_gets_the_role_of_its_key() -> None:
    assert handshake(CLIENT, timeout=10_000) == "client"
    assert handshake(ENGINE, timeout=10_000) == "engine"


def test_a_real_peer_with_the_wrong_keys_or_none_gets_nothing() -> None:
    assert handshake(STRANGER, timeout=500) is None
    assert handshake(None, timeout=500) is None
