"""Why engines of a batch system's job went: the scheduler is asked before anybody is told. Pure.

::

    an engine of a job goes ──▶ amended(): held ──Inquire──▶ (the shell asks, in a thread)
    ──Inquired──▶ told(): all that were held go, with the job's end as a part of their cause; the one that
                          ended first, if what started them has written that, before the others

An engine that said why it leaves is not held, unless that is its scheduler, or its MPI launcher, which the
scheduler may have told to; nor is one when the cluster ends.
That lasts a second as a rule, and never longer than :data:`PATIENCE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hpcremote.controller.events import Actions, Inquire, Inquired, Lost, Peer
from hpcremote.controller.roster import BY_LAUNCHER, BY_SCHEDULER, Roster

#: How long the scheduler may take to answer, in seconds.
PATIENCE = 10.0
#: An engine that goes so many seconds before its job's end went with it: starts and clocks are not exact.
AT_ITS_END = 10.0
#: For how long an answer is good for engines of the job that go after it, in seconds.
FRESH = 5.0


@dataclass(slots=True)
class Inquest:
    """One job whose engines go; ``words`` is what is known of it, None while that is being asked.

    ``before`` is what was known of the same run of the job: meanwhile it may have begun another one.
    """

    until: float
    set_id: str
    before: str = ""
    held: list[Lost] = field(default_factory=list)
    words: str | None = None


class Inquests:
    """All jobs whose engines go.

    Args:
        roster: the engines.
        actions: takes what has to be done.
        left: returns how many seconds a set's job has.

    Attributes:
        ending: why the cluster ends, if it does: then nobody waits for a scheduler.
    """

    def __init__(
        self, roster: Roster, actions: Actions, left: Callable[[str], float] = lambda _: math.inf
    ) -> None:
        self._roster = roster
        self._actions = actions
        self._left = left
        self.ending = ""
        self._open: dict[str, Inquest] = {}

    @property
    def open(self) -> bool:
        """Whether some engine's end waits for what a scheduler says."""
        return any(one.held for one in self._open.values())

    def amended(self, lost: Lost) -> list[Lost]:
        """Return the end of an engine with what its job's scheduler says; nothing: it comes in a moment."""
        job, set_id = self._job_of(lost.peer)
        if not job or self.ending:
            return [lost]
        found = self._open.get(job)
        now = self._actions.now
        if found is None or (found.words is not None and now >= found.until):  # that was another time
            before = (found.words or "") if found is not None and found.set_id == set_id else ""
            found = self._open[job] = Inquest(now + PATIENCE, set_id, before)
            self._actions.inquire(Inquire(job, self._left(set_id) < AT_ITS_END))
        if found.words is not None:
            return [self._with(lost, found.words)]
        found.held.append(lost)
        return []

    def told(self, answer: Inquired) -> list[Lost]:
        """Take in what the scheduler says; return the ends that have waited for it."""
        found = self._open.get(answer.job)
        if found is None or found.words is not None:
            return []
        return self._first_one_first(found, self._close(found, answer.words), answer.first)

    def leftovers(self, answer: Inquired) -> list[int]:
        """Return the engines of a job that runs no more: ranks which its scheduler did not find."""
        if not answer.words:
            return []
        groups = {info.id: self._roster.group(info.set_id) for info in self._roster.infos()}
        return [number for number, group in groups.items() if group is not None and group.job == answer.job]

    def given_up(self) -> list[Lost]:
        """Return the ends that have waited for long enough."""
        if not self._open:
            return []
        now = self._actions.now
        late = [one for one in self._open.values() if one.words is None and (self.ending or now >= one.until)]
        return [lost for one in late for lost in self._close(one, "")]

    def due(self) -> float | None:
        """Return when somebody has waited long enough, or None."""
        if not self._open:  # asked at every turn
            return None
        return min((one.until for one in self._open.values() if one.words is None), default=None)

    def _close(self, found: Inquest, words: str) -> list[Lost]:
        words = words or found.before
        held, found.held, found.words = found.held, [], words
        found.until = self._actions.now + FRESH
        return [self._with(lost, words) for lost in held]

    def _first_one_first(self, found: Inquest, ends: list[Lost], first: str) -> list[Lost]:
        """Have the engine go first in whose wake the others went, if it is among them."""
        group = self._roster.group(found.set_id)
        culprit = next((lost for lost in ends if first and self._is(lost.peer, first)), None)
        if culprit is None or group is None:
            return ends
        group.in_its_wake = True
        return [culprit, *(lost for lost in ends if lost is not culprit)]

    def _is(self, peer: Peer, first: str) -> bool:
        engine = self._roster.by_peer(peer)
        if engine is None:
            return False
        pid, at, host = first.partition("@")
        info = engine.info
        if not at:
            return str(info.rank) == first
        return str(info.pid) == pid and host.partition(".")[0] == info.host.partition(".")[0]

    def _job_of(self, peer: Peer) -> tuple[str, str]:
        """Return the job whose end an engine's may be, if there is one, and the engine's set."""
        engine = self._roster.by_peer(peer)
        if engine is None:
            return "", ""
        if engine.leaving and not engine.leaving.startswith((BY_SCHEDULER, BY_LAUNCHER)):
            return "", ""
        group = self._roster.group(engine.info.set_id)
        return (group.job if group is not None else ""), engine.info.set_id

    def _with(self, lost: Lost, words: str) -> Lost:
        engine = self._roster.by_peer(lost.peer)
        if engine is not None and engine.leaving:  # that is what counts
            engine.leaving = "; ".join(filter(None, [engine.leaving, words]))
            return lost
        return Lost(lost.peer, "; ".join(filter(None, [lost.cause, words])), lost.output)
