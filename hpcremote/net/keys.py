"""Who may talk to a controller over TCP: CURVE keys, and the decision about each handshake (ZAP).

::

    peer ──handshake──▶ ROUTER (CURVE) ──ZAP request──▶ inproc REP of the server's loop ──▶ Admission.answer
                                       ◀──"200", user id = role──┘   (or "400": the peer gets nothing)

A cluster has three key pairs: the controller's, one for its clients, one for its engines. The role
that a key stands for comes back with every message (``frame.get("User-Id")``), so an engine's key can
never submit and a client's can never register.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import zmq
from zmq.utils import z85

from hpcremote.errors import ConfigError

#: Where libzmq looks for whoever decides about handshakes.
ZAP_ENDPOINT = "inproc://zeromq.zap.01"

_VERSION = b"1.0"
# version, request id, domain, address, identity, mechanism, then the credentials
_REQUEST_FRAMES = 6


class KeyPair(NamedTuple):
    """A CURVE key pair as Z85 text. The secret half is in no repr."""

    public: str
    secret: str

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"


def new_keypair() -> KeyPair:
    """Return a fresh key pair.

    Raises:
        ConfigError: this libzmq was built without CURVE.
    """
    if not zmq.has("curve"):
        raise ConfigError("this ZeroMQ library has no CURVE encryption; install the pyzmq wheel from PyPI")
    public, secret = zmq.curve_keypair()
    return KeyPair(public.decode("ascii"), secret.decode("ascii"))


class Verdict(NamedTuple):
    """What to do about one handshake: the reply for the ZAP socket, and a line for the log or nothing."""

    frames: list[bytes]
    role: str = ""
    log: str = ""


class RateLimit:
    """Keeps a log readable while somebody hammers on the port: some lines a period, then a count.

    Pure: time comes in as ``now``.
    """

    def __init__(self, most: int = 10, period: float = 60.0) -> None:
        self._most = most
        self._period = period
        self._since = float("-inf")
        self._said = 0
        self._hidden = 0

    def admit(self, now: float, line: str) -> str:
        """Return what to log for *line*: it, with the count of those left out before it, or nothing."""
        if now - self._since >= self._period:
            self._since, self._said = now, 0
        if self._said >= self._most:
            self._hidden += 1
            return ""
        self._said += 1
        hidden, self._hidden = self._hidden, 0
        return f"{line} ({hidden} more left out before it)" if hidden else line


class Admission:
    """Lets in whoever holds the cluster's client or engine key, and nobody else. Does no I/O."""

    def __init__(self, client_key: str, engine_key: str) -> None:
        self._roles = {z85.decode(client_key.encode()): "client", z85.decode(engine_key.encode()): "engine"}
        self._limit = RateLimit()

    def answer(self, request: Sequence[bytes], now: float) -> Verdict:
        """Decide about one handshake.

        Args:
            request: the frames that the REP socket at :data:`ZAP_ENDPOINT` received.
            now: seconds on any clock that only moves on; refusals are logged at a bounded rate.
        """
        request_id = request[1] if len(request) > 1 else b""
        if len(request) < _REQUEST_FRAMES or request[0] != _VERSION:
            return self._refuse(request_id, b"500", now, "malformed authentication request refused")
        address = request[3].decode("ascii", "backslashreplace")
        mechanism, credentials = request[5], request[6:]
        if mechanism != b"CURVE" or len(credentials) != 1:
            return self._refuse(request_id, b"400", now, f"peer without keys refused: {address}")
        role = self._roles.get(bytes(credentials[0]))
        if role is None:
            return self._refuse(request_id, b"400", now, f"peer with keys of no role here refused: {address}")
        return Verdict([_VERSION, request_id, b"200", b"OK", role.encode(), b""], role)

    def _refuse(self, request_id: bytes, status: bytes, now: float, line: str) -> Verdict:
        # The peer learns nothing but the status.
        return Verdict([_VERSION, request_id, status, b"refused", b"", b""], log=self._limit.admit(now, line))
