"""Find the way to the controller: try its addresses, and say what each one answered."""

from __future__ import annotations

import os
import socket as tcp
import threading
import time
from typing import NamedTuple

import zmq

from hpcremote import files
from hpcremote.connection import Connection
from hpcremote.errors import NotConnected
from hpcremote.ids import new_uid
from hpcremote.net.addresses import own_addresses
from hpcremote.net.keys import KeyPair
from hpcremote.net.resuming import ResumingTransport
from hpcremote.net.sockets import dealer, readable
from hpcremote.net.sshwords import TUNNEL
from hpcremote.net.stream import Stream
from hpcremote.net.transport import StreamTransport, Transport, ZmqTransport

_contexts: dict[int, zmq.Context[zmq.Socket[bytes]]] = {}
_lock = threading.Lock()

#: How long one address may take before the next one is tried.
PER_ADDRESS = 5.0
#: The same for an address that is our own machine's as well: it leads there only if somebody forwards it.
OWN = 1.0
#: How the address of a local socket begins.
LOCAL = "ipc://"
#: How long a tunnel may be away until its clients give up, in seconds.
AWAY = 60.0


class Open(NamedTuple):
    """A connection that is up."""

    transport: Transport
    address: str


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return this process' ZeroMQ context (a forked child gets one of its own)."""
    with _lock:
        if os.getpid() not in _contexts:
            _contexts[os.getpid()] = zmq.Context()
        return _contexts[os.getpid()]


def addresses(connection: Connection) -> list[str]:
    """Return the controller's addresses in the order in which to try them."""
    if connection.ipc and connection.machine == files.machine_id():
        return [connection.ipc, *connection.addresses]
    return list(connection.addresses)


def connect(connection: Connection, timeout: float) -> Open:
    """Connect to the first address that answers with the cluster's key.

    Raises:
        NotConnected: none did within *timeout* seconds; the message has one line for each address.
    """
    keys = KeyPair(connection.public_key, connection.secret_key)
    deadline = time.monotonic() + timeout
    answers = []
    own = {} if connection.is_local or connection.tunnel else own_addresses()
    candidates = sorted(addresses(connection), key=lambda one: _host(one) in own)
    for index, address in enumerate(candidates):
        left = deadline - time.monotonic()
        share = left / (len(candidates) - index)
        most = OWN if _host(address) in own else PER_ADDRESS
        found = _try(address, keys, connection.server_key, max(0.2, min(most, share)))
        if isinstance(found, Open):
            return _lasting(found) if address.startswith(TUNNEL) else found
        answers.append(f"  {address}: {found}{_leads_here(own.get(_host(address)))}")
    tried = "\n".join(answers) if answers else "  (the connection file names no address)"
    raise NotConnected(
        f"cannot reach the controller of cluster {connection.cluster_id!r} (pid {connection.pid} on "
        f"{connection.host}) from {tcp.gethostname()}; tried\n{tried}"
    )


def _host(address: str) -> str:
    return address.rpartition("//")[2].rpartition(":")[0].strip("[]")


def _leads_here(name: str | None) -> str:
    """Say of an address that this machine has, too, what that means."""
    if name is None:
        return ""
    here = tcp.gethostname()
    return (
        f"; {here} has that address itself ({name}), so it does not lead to another machine: see interface:"
    )


def _try(address: str, keys: KeyPair, server_key: str, timeout: float) -> Open | str:
    """Return an open connection, or what happened instead."""
    if address.startswith(LOCAL):
        return _try_local(address, timeout)
    socket = dealer(context(), address, keys, server_key)
    monitor = socket.get_monitor_socket(
        zmq.EVENT_HANDSHAKE_SUCCEEDED
        | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
        | zmq.EVENT_DISCONNECTED
        | (zmq.EVENT_CONNECT_RETRIED if address.startswith(TUNNEL) else 0)
    )
    problem = "interrupted"
    try:
        # Behind the Unix socket of a tunnel is the controller's TCP port: what is spoken there is the same.
        socket.connect(address.replace(TUNNEL, LOCAL) if address.startswith(TUNNEL) else address)
        problem = _await_handshake(monitor, time.monotonic() + timeout)
        if not problem:
            return Open(ZmqTransport(socket, monitor), address)
    except zmq.ZMQError as error:
        problem = str(error)
    finally:
        if problem:
            socket.disable_monitor()
            monitor.close(0)
            socket.close(0)
    if address.startswith(TUNNEL):
        return "the ssh server cannot reach that address, or somebody else answers there"
    return problem if problem != "silent" else _explain(address, timeout)


def _lasting(found: Open) -> Open:
    """Have it go on when the tunnel breaks and is made again."""
    return Open(ResumingTransport(found.transport, new_uid(), AWAY), found.address)


def _try_local(address: str, timeout: float) -> Open | str:
    sock = tcp.socket(tcp.AF_UNIX, tcp.SOCK_STREAM)
    sock.settimeout(timeout)
    try:
        sock.connect(address[len(LOCAL) :])
    except BaseException as error:
        sock.close()
        if not isinstance(error, OSError):
            raise
        return (error.strerror or str(error)).lower()
    return Open(StreamTransport(Stream(sock, keep=False)), address)


def _await_handshake(monitor: zmq.Socket[bytes], deadline: float) -> str:
    """Return "" when the handshake succeeded, else what is wrong."""
    while (left := deadline - time.monotonic()) > 0:
        if not monitor.poll(int(left * 1000) + 1):
            break
        event = int.from_bytes(monitor.recv_multipart()[0][:2], "little")
        # Asked until it has nothing more: only then does its descriptor announce the next event.
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED and not readable(monitor):
            return ""
        if event == zmq.EVENT_CONNECT_RETRIED:  # the socket of a tunnel that is being made again
            continue
        return "it answered, but refused our keys (another cluster, or a controller that was started anew)"
    return "silent"


def _explain(address: str, timeout: float) -> str:
    """Say why nothing answered at *address*."""
    host, _, port = address[6:].rpartition(":")
    try:
        tcp.create_connection((host.strip("[]"), int(port)), min(timeout, 2.0)).close()
    except TimeoutError:
        return f"no answer within {timeout:.1f} s (a firewall, or an interface that leads nowhere)"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return f"something accepts connections there, but did not greet within {timeout:.1f} s"
