"""``hpcremote.embed()``: a running program lends its ranks as engines.

::

    embed()                  serves calls until a client resumes the program, or ends the set
    embed(block=False)       ──▶ Steering: poll() between two steps does the calls that are waiting
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from hpcremote import connection as connections
from hpcremote.connection import Connection
from hpcremote.engine import mpi
from hpcremote.engine.guest import working
from hpcremote.engine.member import Member, is_embedded, join, mark
from hpcremote.engine.ranks import Alone, Ranks, Together
from hpcremote.engine.steering import Steering
from hpcremote.errors import HPCRemoteError
from hpcremote.wire.scope import engine_namespace

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Where(TypedDict, total=False):
    """Options of :func:`embed` that have nothing to do with whether it blocks."""

    namespace: dict[str, Any] | None
    profile: str | None
    cluster_id: str | None
    file: str | os.PathLike[str] | None
    wait: float
    comm: Any


@overload
def embed(*, block: Literal[True] = True, **where: Unpack[Where]) -> str: ...
@overload
def embed(*, block: Literal[False], **where: Unpack[Where]) -> Steering: ...
def embed(
    *,
    block: bool = True,
    namespace: dict[str, Any] | None = None,
    profile: str | None = None,
    cluster_id: str | None = None,
    file: str | os.PathLike[str] | None = None,
    wait: float = 10.0,
    comm: Any = None,
) -> str | Steering:
    """Make the ranks of this program engines of a running cluster. All ranks call this, in the main thread.

    MPI is not finalized, and what belongs to the program (signal handlers, standard output and error,
    ``__main__``) is only borrowed while a call runs.

    Args:
        block: serve calls until a client calls :func:`hpcremote.resume` on all ranks, or ends this set
            (``rc.shutdown(ids)``), and return why. If False, return a :class:`Steering` at once.
        namespace: the variables that calls find and set: a dict, ``vars(an_object)``, or
            ``{**globals(), "u": u}`` for names that are local to a function. Default: the globals of the
            module that calls this.
        profile: join the running cluster of this profile (default: ``$HPCREMOTE_PROFILE``).
        cluster_id: which cluster of that profile.
        file: join the cluster of this connection file (``engine.json``).
        wait: seconds to wait for the connection file, and for the controller to answer (10).
        comm: the communicator of the ranks that take part. Default: COMM_WORLD, if the program uses MPI
            or was started as a rank; ``HPCREMOTE_MPI=0`` says that it does not.

    Raises:
        ClusterNotFound: there is no such cluster. This and the others: the same on all ranks.
        NotConnected: its controller does not answer.
        HPCRemoteError: it refused, or this process is an engine already.
    """
    names = sys._getframe(1).f_globals if namespace is None else namespace  # noqa: SLF001
    _check(names)

    def find() -> Connection:
        if file is not None:
            return connections.read(file, "engine")
        return connections.find(profile, cluster_id, "engine")

    ranks = _ranks(comm)
    try:
        member = join(ranks, find, names, wait, polls=not block)
    except HPCRemoteError:  # on all ranks alike
        ranks.close()
        raise
    return _serve(ranks, member) if block else Steering(ranks, find, names, member)


def _serve(ranks: Ranks, member: Member) -> str:
    why = ""
    mark(embedded=True)
    try:
        why = member.guest.serve(member.connection.controller_timeout)
    finally:
        mark(embedded=False)
        member.leave(f"its program goes on: {why or 'it was interrupted'}", together=bool(why))
    ranks.close()
    return why


def resume() -> None:
    """Let a program go on that has called ``embed()``; run by a client, on all of its ranks at once.

    ``rc[:].apply_sync(hpcremote.resume)`` makes ``embed()`` return on every rank, when this call has
    ended. In a program that polls it closes the steering, at the same step everywhere.

    Raises:
        HPCRemoteError: not in a call on such a program, or not on all of its ranks.
    """
    guest = working()
    if guest is None:
        raise HPCRemoteError(
            "hpcremote.resume() works in a call on the ranks of a program that has called "
            "hpcremote.embed(): rc[:].apply_sync(hpcremote.resume)"
        )
    guest.resume()


def _check(names: dict[str, Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        raise HPCRemoteError("hpcremote.embed() has to be called in the main thread: calls run there")
    if is_embedded() or engine_namespace() is not None:
        raise HPCRemoteError(
            "this process is an engine already: leave the cluster first (close the steering, or return "
            "from the call)"
        )
    if not isinstance(names, dict):
        raise TypeError(f"namespace has to be a dict (vars(object) is one), and is a {type(names).__name__}")


def _ranks(comm: Any) -> Ranks:
    if comm is not None:
        return Together(comm)
    if os.environ.get("HPCREMOTE_MPI") != "0" and (mpi.has_begun() or mpi.started_as_rank()):
        return Together(mpi.world())
    return Alone()
