"""A running program that is steered: calls are done between its steps, at the same step on every rank.

::

    poll():  rank 0 ──one byte──▶ all      "nothing", "a turn", or "join again"
             turn:   agree on the calls    (engine.turns), and do them
             ranks ──ask──▶ rank 0         a call that rank 0 has no part in; it looks when it polls

Between two polls a thread receives messages, and does nothing else.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from hpcremote.connection import Connection
from hpcremote.engine.member import Member, join, mark
from hpcremote.engine.ranks import Ranks
from hpcremote.engine.turns import Turn
from hpcremote.errors import HPCRemoteError

_log = logging.getLogger("hpcremote.engine")

#: How long a call that one rank has may be on its way to another one, in seconds.
ARRIVAL = 60.0
#: How often a program whose cluster is gone looks for a new one, in seconds; and after it failed to join.
LOOK, LOOK_AFTER_FAILURE = 2.0, 30.0
#: How long it may take to connect to that one, in seconds.
REJOIN = 5.0
#: How much later one rank may see what another one saw, in seconds: a controller that ends does so for all.
ALSO = 1.0

_NOTHING, _TURN, _JOIN = 0, 1, 2


class Steering:
    """A running program that clients can watch and steer: what ``embed(block=False)`` returns.

    All ranks call :meth:`poll` and :meth:`close` at the same places, as they do collectives.
    """

    def __init__(
        self, ranks: Ranks, find: Callable[[], Connection], names: dict[str, Any], member: Member
    ) -> None:
        self._ranks = ranks
        self._find = find
        self._names = names
        self._member: Member | None = member
        self._closed = False
        self._lost = ""  # the uid of a cluster that is not to be joined again
        self._look_at = 0.0
        mark(embedded=True)
        atexit.register(self._at_exit)

    @property
    def closed(self) -> bool:
        """Whether it was closed, by the program or by a client; the same on all ranks."""
        return self._closed

    @property
    def connected(self) -> bool:
        """Whether the program is in a cluster; the same on all ranks."""
        return self._member is not None

    def poll(self, timeout: float = 0.0) -> int:
        """Do the calls that are waiting: the same ones on every rank, in the same order.

        Args:
            timeout: seconds to wait for one if none is there (what rank 0 says counts).

        Returns:
            How many were done on this rank. A call on some of the ranks is done on those.
        """
        if self._closed:
            return 0
        ranks, member = self._ranks, self._member
        word = _NOTHING
        if ranks.rank == 0:
            word = self._word(timeout)
        elif member is not None and self._wants_turn(member):
            ranks.ask()
        word = ranks.tell(word)
        if word == _TURN and member is not None:
            return self._turn(member)
        if word == _JOIN:
            self._join_again()
        if member is not None:
            member.guest.tidy()
            if member.machine.queued:
                return self._work(member)
        return 0

    def close(self) -> None:
        """Leave the cluster. All ranks call this; calls that are still waiting fail."""
        if self._closed:
            return
        self._end("its program has ended the steering", together=True)

    def __enter__(self) -> Steering:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif not self._closed:  # the other ranks may know nothing of it: no MPI here
            self._end(f"its program raised {kind.__name__ if kind else ''}: {error}")

    # ------------------------------------------------------------ a turn

    @staticmethod
    def _wants_turn(member: Member) -> bool:
        machine = member.machine
        if member.link.lost_since is None and not (machine.queued or machine.stopping or machine.refused):
            return False
        return bool(member.trouble()) or machine.wants_turn()

    def _word(self, timeout: float) -> int:
        member = self._member
        if member is None:
            return _JOIN if self._is_another_there() else _NOTHING
        if self._ranks.asked() or self._wants_turn(member):
            return _TURN
        if timeout > 0.0 and not member.machine.queued:
            return self._linger(member, time.monotonic() + timeout)
        return _NOTHING

    def _linger(self, member: Member, deadline: float) -> int:
        machine = member.machine
        while (left := deadline - time.monotonic()) > 0.0 and not machine.queued:
            # In slices: other ranks ask by MPI, for which nothing wakes us up.
            slice_ = min(left, 0.02) if self._ranks.size > 1 else left
            member.link.wait(lambda: bool(machine.queued or member.trouble()), slice_)
            if self._ranks.asked() or self._wants_turn(member):
                return _TURN
        return _TURN if self._wants_turn(member) else _NOTHING

    def _turn(self, member: Member) -> int:
        machine, rank = member.machine, self._ranks.rank
        turn, again = Turn(), True
        while again:
            problem = self._await(member, turn.due(rank))
            said = self._ranks.all((problem, machine.offers(turn)))
            if any(problem for problem, _ in said):
                self._part(member, self._troubles(member, problem))
                return 0
            again = turn.merge([offers for _, offers in said])
        machine.begin_turn(turn)
        try:
            return self._work(member)
        finally:
            machine.end_turn()

    @staticmethod
    def _await(member: Member, seqs: set[int]) -> str:
        """Wait until these calls are here; return what is wrong, or ""."""
        machine = member.machine
        if not machine.arrived(seqs):
            member.link.wait(lambda: machine.arrived(seqs) or bool(member.trouble()), ARRIVAL)
        if trouble := member.trouble():
            return trouble
        if machine.arrived(seqs):
            return ""
        return f"a call that other ranks have did not arrive within {ARRIVAL:g} s"

    def _troubles(self, member: Member, problem: str) -> list[str]:
        """Some rank has a problem; return what is wrong on each one, when all have had time to see it."""
        member.link.wait(lambda: bool(problem or member.trouble()), ALSO)
        return self._ranks.all(problem or member.trouble())

    def _work(self, member: Member) -> int:
        done = member.guest.work()
        if member.guest.resumed:
            self._end("its program goes on: a client has resumed it", together=True)
        return done

    # ------------------------------------------------------------ clusters that come and go

    def _part(self, member: Member, problems: list[str]) -> None:
        """Leave a cluster together, because some rank has to."""
        rank = next(rank for rank, problem in enumerate(problems) if problem)
        why = problems[rank] + (f" (rank {rank})" if rank else "")
        self._member = None
        # A rank's broken network is no reason to stay away; a controller that is gone, or sent us away, is.
        gone = bool(problems[0])
        self._lost = member.connection.cluster_uid if gone else ""
        self._look_at = time.monotonic() + LOOK
        member.leave(f"its program left: {why}", together=True)
        if self._ranks.rank == 0:
            _log.warning(
                "left cluster %r: %s; the program goes on, and joins the next such cluster that is started",
                member.connection.cluster_id,
                why,
            )

    def _is_another_there(self) -> bool:
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + LOOK
        try:
            return self._find().cluster_uid != self._lost
        except HPCRemoteError:  # as long as there is none
            return False

    def _join_again(self) -> None:
        try:
            self._member = join(self._ranks, self._find, self._names, REJOIN, polls=True)
        except HPCRemoteError as error:
            self._look_at = time.monotonic() + LOOK_AFTER_FAILURE
            if self._ranks.rank == 0:
                _log.warning("could not join again: %s", error)
            return
        if self._ranks.rank == 0:
            _log.info("joined cluster %r", self._member.connection.cluster_id)

    # ------------------------------------------------------------ the end

    def _end(self, why: str, *, together: bool = False) -> None:
        self._closed = True
        atexit.unregister(self._at_exit)
        mark(embedded=False)
        if self._member is not None:
            self._member.leave(why, together=together)
            self._member = None
        if together:
            self._ranks.close()

    def _at_exit(self) -> None:
        self._end("its program ended")
