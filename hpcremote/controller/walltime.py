"""When the jobs of engine sets end: what is known of it, who is told, which calls are refused. Pure.

::

    Register.left ─┐
    Remaining ─────┼─▶ learn() ──TimeLeft──▶ every client         a line in the log at some marks
    Warned ────────┘      │
                          └─▶ refusal(): a call that needs more   (asked in the step in which it is numbered)
    HowLong ──▶ agent of rank 0, now and then, where a batch system can be asked: limits are changed

What runs before the end is decided in ``ending.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hpcremote.controller.events import Actions, Peer
from hpcremote.controller.roster import Roster
from hpcremote.wire import messages as m
from hpcremote.wire.walltime import words

#: So many seconds before the end there is a line in the log.
MARKS = (600.0, 120.0)
#: How often a batch system is asked whether the limit is what it was, and how soon again if nobody could be.
ASK_AGAIN, NOBODY_YET = 300.0, 2.0
#: News that differ by less than this from what is known are none.
_SAME = 2.0


@dataclass(slots=True)
class Term:
    """What is known of the end of one set's job.

    Attributes:
        ends: when, on the controller's clock; infinite: nobody knows of a limit.
        why: its scheduler is about to end it, as far as was heard.
        passed: the marks that were told.
        ask: when its batch system is asked next; infinite: it cannot be.
        hooks: how long before the end functions are to run (negative: as usual), and of which engines.
        done: of these, the ones that have run, and for which end.
    """

    ends: float = math.inf
    why: str = ""
    passed: set[float] = field(default_factory=set)
    ask: float = math.inf
    hooks: dict[float, set[int]] = field(default_factory=dict)
    done: dict[float, float] = field(default_factory=dict)


class Walltime:
    """The ends of all sets' jobs.

    Args:
        roster: the engines.
        clients: who is told.
        agent_of: returns the node agent of a rank, by its uid.
        actions: takes what has to be done.
        limit: when the controller's own job ends, on the controller's clock, which all sets end with.

    Attributes:
        terms: what is known, by set.
    """

    def __init__(
        self,
        roster: Roster,
        clients: Mapping[Peer, object],
        agent_of: Callable[[str], Peer | None],
        actions: Actions,
        limit: float = math.inf,
    ) -> None:
        self._limit = limit
        self._roster = roster
        self._clients = clients
        self._agent_of = agent_of
        self._actions = actions
        self.terms: dict[str, Term] = {}

    # ------------------------------------------------------------ what is known

    def registered(self, register: m.Register) -> None:
        """A set says when its job ends; said again, it would be old."""
        if register.set_id in self.terms:
            return
        ends = self._end(register.left)
        asked = self._actions.now if register.job else math.inf
        if ends < math.inf or register.job:
            self.terms[register.set_id] = Term(ends, ask=asked)

    def announced(self, set_id: str) -> None:
        """A set is there: tell clients when it ends."""
        term = self.terms.get(set_id)
        if term is not None and term.ends < math.inf:
            self._tell(set_id, term)

    def term(self, set_id: str) -> Term:
        """Return what is known of a set, to be written to."""
        return self.terms.setdefault(set_id, Term())

    def learn(self, set_id: str, seconds: float, why: str = "") -> None:
        """The job ends in so many seconds (negative: never)."""
        term = self.term(set_id)
        ends = self._end(seconds)
        same = ends == term.ends or abs(ends - term.ends) < _SAME
        if same and why in ("", term.why):
            return
        if not same:
            term.ends = ends
            term.passed = {mark for mark in term.passed if ends - self._actions.now <= mark}
        term.why = why or term.why
        self._tell(set_id, term)

    def _end(self, seconds: float) -> float:
        """Return when a job ends that has so many seconds (negative: no limit)."""
        return min(self._limit, self._actions.now + seconds if seconds >= 0 else math.inf)

    def remaining(self, remaining: m.Remaining) -> None:
        """A batch system has answered."""
        set_id = self._set_of(remaining.uid)
        if set_id and not self.term(set_id).why:  # a job that is being ended has its old limit
            self.learn(set_id, remaining.seconds)

    def _set_of(self, uid: str) -> str:
        return next((e.info.set_id for e in self._roster.engines.values() if e.info.uid == uid), "")

    def left(self, set_id: str) -> float:
        """Return the seconds that a set has; infinite where nobody knows of a limit."""
        term = self.terms.get(set_id)
        return math.inf if term is None else max(0.0, term.ends - self._actions.now)

    # ------------------------------------------------------------ who is told

    def greet(self, client: Peer) -> None:
        """Tell a client that has just come."""
        for set_id, term in self.terms.items():
            if (term.ends < math.inf or term.why) and self._roster.mates(set_id):
                self._actions.send(client, self._message(set_id, term))

    def _tell(self, set_id: str, term: Term) -> None:
        message = self._message(set_id, term)
        for client in self._clients:
            self._actions.send(client, message)
        if term.ends < math.inf:
            because = f": {self._because(term)}" if self._because(term) else ""
            span = words(term.ends - self._actions.now)
            self._actions.log(f"the job of {self.name(set_id)} ends in {span}{because}")
        else:
            self._actions.log(
                f"the job of {self.name(set_id)} has no limit that is known{term.why and ': '}{term.why}"
            )

    def _message(self, set_id: str, term: Term) -> m.TimeLeft:
        left = max(0.0, term.ends - self._actions.now) if term.ends < math.inf else -1.0
        return m.TimeLeft(set_id, left, term.why)

    def _because(self, term: Term) -> str:
        return term.why or ("the controller's own job ends then" if term.ends == self._limit else "")

    def name(self, set_id: str) -> str:
        """Return a set in words."""
        return str(self._roster.group(set_id) or "a set that has gone")

    # ------------------------------------------------------------ calls

    def refusal(self, targets: Iterable[int], needs: float) -> str:
        """Return why a call that needs so many seconds is not begun on these engines, or ""."""
        engines = (self._roster.engines.get(target) for target in targets)
        sets = {engine.info.set_id for engine in engines if engine is not None}
        shortest = min(sets, key=self.left, default="")
        left = self.left(shortest)
        if left >= needs:
            return ""
        term = self.terms[shortest]
        because = f" ({self._because(term)})" if self._because(term) else ""
        return (
            f"the job of {self.name(shortest)} ends in {words(left)}{because}, and the call needs "
            f"{words(needs)}: it was not begun on any engine"
        )

    # ------------------------------------------------------------ time

    def due(self) -> float:
        """Return when there is something to say or to ask; infinite: never."""
        times: list[float] = []
        for term in self.terms.values():
            times.append(term.ask)
            times += [term.ends - mark for mark in MARKS if mark not in term.passed]
        return min(times, default=math.inf)

    def turn(self) -> None:
        """Say and ask what it is time for; forget sets that nobody remembers."""
        now = self._actions.now
        for set_id in [one for one in self.terms if self._roster.group(one) is None]:
            del self.terms[set_id]
        for set_id, term in self.terms.items():
            if now >= term.ask:
                self._ask(set_id, term)
            passed = {mark for mark in MARKS if now >= term.ends - mark} - term.passed
            if passed:
                term.passed |= passed
                if self._roster.mates(set_id):
                    self._actions.log(f"the job of {self.name(set_id)} ends in {words(term.ends - now)}")

    def _ask(self, set_id: str, term: Term) -> None:
        mates = self._roster.mates(set_id)
        agent = self._agent_of(mates[0].info.uid) if mates else None
        group = self._roster.group(set_id)
        coming = group is not None and (group.base is None or mates)
        term.ask = self._actions.now + (NOBODY_YET if agent is None and coming else ASK_AGAIN)
        if agent is not None:
            self._actions.send(agent, m.HowLong(mates[0].info.uid))
