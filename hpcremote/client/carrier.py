"""Who carries bulk data between the engines of a call: MPI, or the controller.

::

    by MPI:             client ══ once ══▶ first engine ══ Bcast, Scatterv ══▶ the others
    by the controller:  client ══ once ══▶ controller ════ to each engine ═══▶ engines

Which is faster depends on what lies between. On the controller's machine a big array lies in shared memory:
it is written once, every engine maps it, and nothing beats that. Elsewhere the controller sends as many
copies of a pushed array as there are engines, over encrypted connections, and MPI needs one. What is
scattered or gathered crosses the controller once either way, so there MPI only adds a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpcremote.client.comm import comm_of
from hpcremote.errors import HPCRemoteError

if TYPE_CHECKING:
    from hpcremote.client.client import Client

#: From so many bytes on it is worth asking whether the engines are free for MPI.
THRESHOLD = 1 << 20
_VIAS = (None, "mpi", "controller")


def carried_by_mpi(client: Client, ids: Sequence[int], via: str | None, *, free: bool = True) -> bool:
    """Say whether MPI is to carry the data of a call, for which it would be the faster one.

    Args:
        client: the client.
        ids: the engines of the call.
        via: ``mpi``, ``controller``, or None: MPI if it can be.
        free: only if none of them is at work. With MPI all wait for the last; where each has to work on it
            anyway, as for a reduction, that makes no difference.

    Raises:
        ValueError: *via* is none of these.
        HPCRemoteError: *via* is ``mpi``, and no communicator is over these engines.
    """
    if via not in _VIAS:
        raise ValueError(f"via is 'mpi', 'controller' or None, not {via!r}")
    if via == "controller" or (via is None and len(ids) < 2):
        return False
    if via == "mpi":
        comm_of(ids, client.link.engines)
        return True
    return _one_job(client, ids) and not (free and _busy(client, ids))


def _one_job(client: Client, ids: Sequence[int]) -> bool:
    try:
        comm_of(ids, client.link.engines)
    except HPCRemoteError:
        return False
    return True


def _busy(client: Client, ids: Sequence[int]) -> bool:
    status = client.queue_status(list(ids))
    return any(status[engine]["queue"] for engine in ids)


def share_memory(client: Client, ids: Sequence[int]) -> bool:
    """Say whether the client and these engines pass big data by shared memory."""
    engines = client.link.engines
    return bool(client.link.welcome.shm) and all(key in engines and engines[key].local for key in ids)
