"""A program's stay in a cluster, from its connection to its leaving: all ranks together, or none."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from hpcremote.connection import Connection
from hpcremote.engine import mpi
from hpcremote.engine.borrowed import BorrowedNamespace, BorrowedOutput
from hpcremote.engine.guest import Guest
from hpcremote.engine.joining import await_file, register
from hpcremote.engine.link import Link
from hpcremote.engine.operations import Operations
from hpcremote.engine.presence import Presence
from hpcremote.engine.ranks import Ranks
from hpcremote.engine.turns import Steered
from hpcremote.errors import HPCRemoteError, LaunchError
from hpcremote.ids import new_uid
from hpcremote.net.connect import connect
from hpcremote.wire import messages as m

if TYPE_CHECKING:
    from hpcremote.engine.comm.lent import Lent

T = TypeVar("T")

_embedded = False


def mark(*, embedded: bool) -> None:
    """Take note of whether this process is in a cluster, or looks for one."""
    global _embedded  # noqa: PLW0603 - a process is one engine
    _embedded = embedded


def is_embedded() -> bool:
    """Say whether it is."""
    return _embedded


class Member:
    """A program's stay in a cluster, from its connection to its leaving; one on each rank."""

    def __init__(
        self, connection: Connection, ranks: Ranks, names: dict[str, Any], wait: float, *, polls: bool
    ) -> None:
        self.connection = connection
        self._uid = new_uid()
        self._polls = polls
        self._pid = os.getpid()
        self._comms: Lent | None = None
        self._crowded = False
        namespace = BorrowedNamespace(names)
        operations = Operations(namespace)
        self.machine = Steered(operations.functions.__contains__, operations.functions.define)
        self.guest = Guest(self.machine, operations, namespace)
        self.presence = Presence(connection, self._uid, lent=True)
        self.machine.tend = self.presence.tend_soon
        output: BorrowedOutput | None = None
        try:
            self.output = output = BorrowedOutput(self.presence.words, self._uid)
            way = connect(connection, wait).transport
            self.link = Link(connection, self.machine, way, tick=self._tick, ticks=self._ticks)
        except BaseException:
            if output is not None:
                output.close()
            self.presence.close()
            raise
        self.presence.tend()

    def _ticks(self) -> bool:
        """A simulation is not woken up twenty times a second, unless there are calls."""
        return not self._polls or self.machine.queued > 0 or self.machine.running is not None

    def _tick(self) -> None:
        self.presence.tick(self.machine)
        if not self._polls:
            self.guest.tick()

    def place(self, ranks: Ranks) -> mpi.Place:
        """Find out this rank's place; all ranks call this."""
        return mpi.alone(self._uid) if ranks.comm is None else mpi.place_in(ranks.comm, self._uid)

    def register(self, place: mpi.Place) -> None:
        """Become an engine.

        Raises:
            LaunchError: the controller does not take the set, or ends.
        """
        register(self.link, self.machine, self._uid, place)
        joined = self.machine.joined
        if joined is None:
            raise LaunchError(f"the cluster ended just then: {self.machine.stopping}")
        self._crowded = place.crowded
        self.machine.place(joined.engine - place.rank, place.rank, place.size, polls=self._polls)

    def settle(self, ranks: Ranks) -> None:
        """Get ready for calls; all ranks call this."""
        joined = self.machine.joined
        assert joined is not None  # noqa: S101
        if ranks.comm is not None:
            self.machine.mpi, self._comms = mpi.lend(ranks.comm, crowded=self._crowded)
            self.machine.mpi.place(joined.engine)
        self.guest.attach(self.link, self.output, joined.shm)
        if self._polls:
            self.guest.outlive(self.link)

    def trouble(self) -> str:
        """Return why this stay is over, or ""."""
        if self.machine.stopping:
            return self.machine.stopping
        if self.machine.refused:
            return f"refused by the controller: {self.machine.refused}"
        return "the controller went away" if self.link.lost_since is not None else ""

    def leave(self, why: str, *, together: bool = False) -> None:
        """Be an engine no more. *together*: all ranks call this now."""
        if os.getpid() != self._pid:  # a forked child of the program's
            return
        self.link.send([(m.Leaving(why), ())])
        self.link.close()
        self.output.close()
        self.presence.close()
        if together and self._comms is not None:
            self._comms.close()


def join(
    ranks: Ranks, find: Callable[[], Connection], names: dict[str, Any], wait: float, *, polls: bool
) -> Member:
    """Become engines, all ranks or none: what goes wrong on one is raised on all."""
    found = _together(ranks, lambda: await_file(find, wait) if ranks.rank == 0 else None)
    uid = ranks.all(found.cluster_uid if found else "")[0]
    connection = _together(ranks, lambda: found or _same(await_file(find, wait), uid))
    made: list[Member] = []
    try:
        _together(ranks, lambda: made.append(Member(connection, ranks, names, wait, polls=polls)))
        place = made[0].place(ranks)
        _together(ranks, lambda: made[0].register(place))
        made[0].settle(ranks)
    except BaseException as error:
        for member in made:
            member.leave(str(error))
        raise
    return made[0]


def _same(found: Connection, uid: str) -> Connection:
    if found.cluster_uid != uid:
        raise LaunchError(
            f"the connection file here is of another cluster than on rank 0: {found.cluster_id!r} of profile "
            f"{found.profile!r}. Name profile and cluster_id, and let all ranks see the same files"
        )
    return found


def _together(ranks: Ranks, action: Callable[[], T]) -> T:
    """Do *action*; if it fails on any rank, raise the first one's error on all."""
    failure: HPCRemoteError | None = None
    value: Any = None
    try:
        value = action()
    except HPCRemoteError as error:
        failure = error
    except OSError as error:
        failure = LaunchError(str(error))
    for rank, theirs in enumerate(ranks.all(failure)):
        if theirs is not None:
            raise type(theirs)(f"{theirs} (rank {rank})" if rank else str(theirs))
    result: T = value
    return result
