"""How the whole cluster comes to its end. Pure.

::

    Shutdown, a signal ──▶ begin() ──Stop──▶ engines          told() ──▶ hooks run, sets end ──▶ begin()
                              └─ none is left, or ``grace`` is over ──▶ End
    the job's script ──▶ ranks_ended() ──▶ how they did is known ──▶ told()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from hpcremote.controller.ending import KILL_WAIT, Ending
from hpcremote.controller.events import Actions, Peer
from hpcremote.controller.roster import Roster
from hpcremote.wire import messages as m

#: Seconds that engines have to end when their job's scheduler is about to kill everything.
_AFTER_HOOKS = 3.0
#: For so long connections of ranks that are said to have ended may be there; how long it may take to find out
#: how they ended; how often that is looked at.
_SETTLED, _PATIENCE, _LOOK_AGAIN = 0.5, 10.0, 0.05


class Heeding(Protocol):
    """A part of the controller that does otherwise when the cluster ends, and says why."""

    ending: str


class Closing:
    """The end of the cluster.

    Args:
        roster: the engines.
        hooks: what engines do before the end.
        heeding: who is told.
        open_ends: says whether it is being found out how some engines ended.
        actions: takes what has to be done.
        grace: seconds that engines have to end.

    Attributes:
        why: why the cluster ends; empty as long as it does not.
    """

    def __init__(
        self,
        roster: Roster,
        hooks: Ending,
        heeding: Iterable[Heeding],
        open_ends: Callable[[], bool],
        actions: Actions,
        grace: float,
    ) -> None:
        self._roster = roster
        self._hooks = hooks
        self._heeding = tuple(heeding)
        self._open_ends = open_ends
        self._actions = actions
        self._grace = grace
        self._rumour: tuple[float, float, str] | None = None
        self._until: float | None = None
        self._after_hooks = ""  # why the cluster ends when hooks have run
        self.why = ""

    def told(self, why: str) -> None:
        """The controller's job is about to end: what has to run runs, then engines end, then everything does.

        It may be told again, by the job's script, say, whose commands end before the ranks do.
        """
        if self._until is None:
            self._after_hooks = why
            self._until = self._actions.now + KILL_WAIT
            self._tell(why, [peer for peer in self._roster.peers() if self._roster.by_peer(peer) is None])
            self._hooks.last_call(why)
        self.check()

    def ranks_ended(self, why: str) -> None:
        """All ranks are said to have ended, and with them the job will: how they did is told first."""
        if not self._until:
            now = self._actions.now
            self._rumour = (now + _SETTLED, now + _PATIENCE, why)
        self.check()

    def _heed_rumour(self) -> None:
        if self._rumour is None:
            return
        when, until, why = self._rumour
        now = self._actions.now
        if self._roster.empty or now >= until or (now >= when and not self._open_ends()):
            self._rumour = None
            self.told(why)
        elif now >= when:
            self._rumour = (now + _LOOK_AGAIN, until, why)

    def begin(self, reason: str) -> None:
        """Begin to end everything: engines first, for at most ``grace`` seconds."""
        if self.why:
            return
        grace = min(self._grace, _AFTER_HOOKS) if self._after_hooks else self._grace
        self._until, self.why = self._actions.now + grace, reason
        self._actions.log(f"ending: {reason}")
        self._tell(reason, self._roster.peers())

    def _tell(self, reason: str, peers: Iterable[Peer]) -> None:
        for part in self._heeding:
            part.ending = reason
        for peer in peers:
            self._actions.send(peer, m.Stop(reason))

    def due(self) -> float | None:
        """Return when nobody is waited for any longer, or None."""
        return self._rumour[0] if self._rumour is not None and self._until is None else self._until

    def check(self) -> None:
        """End if nobody has to be waited for."""
        self._heed_rumour()
        if self._until is None or not (self._roster.empty or self._actions.now >= self._until):
            return
        self.begin(self._after_hooks)
        if self._roster.empty:
            self._actions.end(self.why)
        elif self._actions.now >= self._until:
            left = len(self._roster.peers())
            self._actions.log(f"{left} engines did not end in time")
            self._actions.end(self.why)
