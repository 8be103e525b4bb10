"""How fast this machine's ZeroMQ encrypts: the sodium in pyzmq's wheel from PyPI is slow."""

from __future__ import annotations

import time

import zmq

from hpcremote.net.keys import new_keypair

_PIECE = 1 << 18
_FIRST = 4  # pieces before the clock starts: by then the handshake is over


def encrypted(seconds: float = 0.3) -> float:
    """Return how many bytes a second go through an encrypted connection here, measured for so long.

    Raises:
        zmq.ZMQError: this libzmq has no CURVE.
        TimeoutError: nothing comes through.
    """
    server, client = new_keypair(), new_keypair()
    with zmq.Context() as context, context.socket(zmq.PULL) as pull, context.socket(zmq.PUSH) as push:
        for socket in (pull, push):
            socket.setsockopt(zmq.LINGER, 0)
        pull.curve_server = True
        pull.curve_secretkey, pull.curve_publickey = server.secret.encode(), server.public.encode()
        push.curve_serverkey = server.public.encode()
        push.curve_secretkey, push.curve_publickey = client.secret.encode(), client.public.encode()
        push.setsockopt(zmq.SNDHWM, 4)
        pull.setsockopt(zmq.RCVHWM, 4)
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push.connect(f"tcp://127.0.0.1:{port}")
        return _through(push, pull, seconds)


def _through(push: zmq.Socket[bytes], pull: zmq.Socket[bytes], seconds: float) -> float:
    piece = bytes(_PIECE)
    came = 0
    began = time.monotonic()
    limit = began + 10.0 + seconds
    while (now := time.monotonic()) < limit:
        if push.poll(0, zmq.POLLOUT):
            push.send(piece, copy=False)
        if pull.poll(20):
            pull.recv(copy=False)
            came += 1
            began = now if came == _FIRST else began
            if came > _FIRST and time.monotonic() - began > seconds:
                return (came - _FIRST) * _PIECE / (time.monotonic() - began)
    raise TimeoutError(f"only {came} messages came through an encrypted connection in {limit - began:.0f} s")
