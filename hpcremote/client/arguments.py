"""What the arguments of ``Client()`` mean: which connection file, and by which way."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpcremote import connection as connections
from hpcremote.client.link import Link
from hpcremote.connection import Connection
from hpcremote.errors import NotConnected

if TYPE_CHECKING:
    from hpcremote.net.tunnel import Tunnel

_log = logging.getLogger("hpcremote")

#: What to do instead of what ipyparallel's Client can be told about ssh.
_INSTEAD = {
    "password": "in a program it is no secret: ssh asks for it at the terminal, or use a key (sshkey=)",
    "paramiko": "the system's ssh is used, with its configuration; leave it out",
}


def refuse(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments of ipyparallel's Client that have no counterpart.

    Raises:
        TypeError: one is not None.
    """
    for name, value in arguments.items():
        if value is not None:
            instead = _INSTEAD.get(name, "everything is in the connection file")
            raise TypeError(f"Client() has no argument {name!r}: {instead}")


def connection_of(info: Any, profile: str | None, cluster_id: str | None) -> Connection:
    """Return the connection that *info* (a path, contents, or nothing: a running cluster) means."""
    if info is None:
        return connections.find(profile, cluster_id)
    if isinstance(info, Connection):
        return info
    if isinstance(info, Mapping):
        return connections.from_dict(info)
    if isinstance(info, (str, os.PathLike)):
        return connections.read(info)
    raise TypeError(
        f"connection_info is a path or the contents of a connection file, not {type(info).__name__}"
    )


def through(sshserver: str, sshkey: str | os.PathLike[str] | None, ssh: str | Sequence[str] | None) -> Tunnel:
    """Return the tunnel that these mean; it is not open yet."""
    from hpcremote.net.tunnel import Tunnel, server_of  # which is seldom needed

    return Tunnel(server_of(sshserver, os.fspath(sshkey or ""), ssh or ()), _log.warning)


def connect(
    info: Any, profile: str | None, cluster_id: str | None, timeout: float, tunnel: Tunnel | None
) -> Link:
    """Return a connection to the cluster that is meant, through the tunnel if there is one."""
    if tunnel is None:
        return Link(connection_of(info, profile, cluster_id), timeout=timeout)
    try:
        known = None if info is None else connection_of(info, profile, cluster_id)
        return Link(tunnel.open(profile, cluster_id, known=known), timeout=timeout)
    except NotConnected as error:
        refusals = tunnel.refusals
        tunnel.close()
        raise NotConnected(f"{error}\n  (ssh says: {refusals})" if refusals else str(error)) from None
    except BaseException:
        tunnel.close()
        raise


def end_tunnel(tunnel: Tunnel | None) -> None:
    """End a tunnel, if there is one."""
    if tunnel is not None:
        tunnel.close()
