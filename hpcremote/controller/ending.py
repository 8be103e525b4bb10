"""What engines do before their job ends: hooks, a save, and a stop when their scheduler insists. Pure.

::

    Hook ──▶ hooked()                      the time has come ──▶ fire()
    Warned (USR1, USR2) ──▶ signalled() ─────────────────────────▶ fire()
    Warned (TERM, XCPU) ──▶ signalled() ──▶ fire() ──done, or no time left──▶ Stop

To fire is to number runs of the operation ``walltime`` for all ranks of the set: first the hooks, then the
save of namespaces, which goes on where a hook has failed. They have their place in the one order, as calls
have, so hooks may communicate. What runs before them they wait for; if that takes half of the time that is
left, the log says so.
"""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcremote.controller.events import Actions, Peer
from hpcremote.controller.roster import BY_LAUNCHER, BY_SCHEDULER, Engine, Roster
from hpcremote.controller.walltime import Term, Walltime
from hpcremote.wire import messages as m
from hpcremote.wire.walltime import FINAL, words

#: Schedulers send SIGKILL so many seconds after SIGTERM or more (30 in Slurm, if it was not changed).
KILL_WAIT = 25.0
#: A launcher sends SIGTERM, too, when a rank has died; that it has is known by then, in seconds.
SETTLED = 1.0
#: What is told of a hook that failed, in characters.
_TAIL = 300

Hear = Callable[[Engine, m.Done | None], None]
#: Numbers a run for some engines: operation, data, and who hears what comes of it.
Order = Callable[[Sequence[Engine], str, bytes, Hear], None]


@dataclass(slots=True)
class Round:
    """Runs that were numbered before the end of a set's job.

    Attributes:
        owed: how many answers are to come.
        since: when they were numbered.
        grumble: when it is said that they still wait.
        failed: what went wrong, by engine.
        said: what engines printed.
    """

    owed: int
    since: float
    grumble: float
    failed: dict[int, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)


class Ending:
    """The last minutes of sets.

    Args:
        roster: the engines.
        walltime: when their jobs end.
        order: see :data:`Order`.
        actions: takes what has to be done.
        warning: seconds before the end at which hooks run that do not say when.
        folder: where namespaces are saved then; empty: they are not.

    Attributes:
        of_agents: what to do with messages of agents.
    """

    def __init__(
        self,
        roster: Roster,
        walltime: Walltime,
        order: Order,
        actions: Actions,
        warning: float,
        folder: str,
    ) -> None:
        self._roster = roster
        self._walltime = walltime
        self._order = order
        self._actions = actions
        self._warning = warning
        self._folder = folder
        self._rounds: dict[str, Round] = {}
        self._stops: dict[str, tuple[float, str]] = {}
        self._signals: dict[str, tuple[float, int]] = {}  # that have come, and when they are judged
        self._look = math.inf  # when there is something to do
        self.of_agents: dict[type[Any], Callable[..., None]] = {
            m.Remaining: self._remaining,
            m.Warned: self._warned,
        }

    # ------------------------------------------------------------ what is heard

    def registered(self, register: m.Register) -> None:
        """A set says when its job ends."""
        self._look = 0.0
        self._walltime.registered(register)

    def _remaining(self, _peer: Peer, remaining: m.Remaining, _frames: Sequence[object]) -> None:
        self._look = 0.0
        self._walltime.remaining(remaining)

    def hooked(self, peer: Peer, hook: m.Hook, _frames: Sequence[object]) -> None:
        """An engine has a function for the end."""
        engine = self._roster.by_peer(peer)
        self._look = 0.0
        if engine is not None:
            term = self._walltime.term(engine.info.set_id)
            said = term.hooks.setdefault(hook.before, set())
            if engine.info.id in said or not said:  # a new one, of which the other ranks are about to say so
                said.clear()
                term.done.pop(hook.before, None)
            said.add(engine.info.id)

    def _warned(self, _peer: Peer, warned: m.Warned, _frames: Sequence[object]) -> None:
        uids = set(warned.uids)
        sets = {e.info.set_id for e in self._roster.engines.values() if e.info.uid in uids}
        for set_id in sets:
            self.signalled(set_id, warned.number)

    def signalled(self, set_id: str, number: int) -> None:
        """The scheduler is about to end a set's job; one that is restarted was signalled by us."""
        group = self._roster.group(set_id)
        if group is not None and group.restarting:
            return
        self._look = 0.0
        if number not in FINAL:
            if not self._walltime.term(set_id).why:  # every rank of every node says so
                self._last_minutes(set_id, _about_to_end(number), self._walltime.left(set_id))
        elif set_id not in self._stops:
            self._signals.setdefault(set_id, (self._actions.now + SETTLED, number))

    def _told_to_end(self, set_id: str, number: int) -> None:
        """Ranks were sent what ends them, by their scheduler, or by their launcher after one died."""
        mates = self._roster.mates(set_id)
        if mates and len(mates) < mates[0].info.size:
            self._stops[set_id] = (self._actions.now, f"{BY_LAUNCHER} ({_name(number)})")
        elif mates:
            left = min(self._walltime.left(set_id), KILL_WAIT)
            self._stops[set_id] = (
                self._actions.now + left,
                f"{BY_SCHEDULER} ({_name(number)})",
            )
            self._last_minutes(set_id, _about_to_end(number), left)
            self._maybe_stop(set_id)

    def last_call(self, why: str) -> None:
        """The controller's job is about to end: what has to run runs, then the sets end, for that reason."""
        self._look = 0.0
        for set_id in {engine.info.set_id for engine in self._roster.engines.values()} - self._stops.keys():
            left = min(self._walltime.left(set_id), KILL_WAIT)
            self._stops[set_id] = (self._actions.now + left, why)
            self._last_minutes(set_id, why, left)
            self._maybe_stop(set_id)

    def _last_minutes(self, set_id: str, why: str, left: float) -> None:
        self._walltime.learn(set_id, -1.0 if left == math.inf else left, why)
        term = self._walltime.term(set_id)
        self._fire(set_id, term, self._waiting(term))

    # ------------------------------------------------------------ time

    def due(self) -> float | None:
        """Return when something has to be done, said or asked, or None."""
        return None if self._look == math.inf else self._look

    def _due(self) -> float:
        times = [one.grumble for one in self._rounds.values()]
        times += [when for when, _ in (*self._stops.values(), *self._signals.values())]
        for term in self._walltime.terms.values():
            times += [self._when(term, before) for before in self._waiting(term)]
        return min(times, default=math.inf)

    def turn(self) -> None:
        """Do what it is time for."""
        now = self._actions.now
        if now < self._look:
            return
        self._walltime.turn()
        for set_id, term in list(self._walltime.terms.items()):
            if ready := {before for before in self._waiting(term) if now >= self._when(term, before)}:
                self._fire(set_id, term, ready)
        for set_id, one in self._rounds.items():
            if now >= one.grumble:
                one.grumble = math.inf
                self._grumble(set_id)
        for set_id, (when, number) in list(self._signals.items()):
            if now >= when:
                del self._signals[set_id]
                self._told_to_end(set_id, number)
        for set_id, (when, _) in list(self._stops.items()):
            if now >= when:
                self._stop(set_id)
        self._look = min(self._due(), self._walltime.due())

    def _waiting(self, term: Term) -> set[float]:
        """Return the hooks that have not run; the save counts as one that runs at the usual time."""
        wanted = term.hooks.keys() | ({-1.0} if self._folder else set())
        return {before for before in wanted if not self._has_run(term, before)}

    def _has_run(self, term: Term, before: float) -> bool:
        """Say whether a hook has run; where the limit was put off by far, it runs once more."""
        ran = term.done.get(before)
        return ran is not None and not term.ends - ran > 2 * self._span(before)

    def _when(self, term: Term, before: float) -> float:
        return term.ends - self._span(before)

    def _span(self, before: float) -> float:
        return self._warning if before < 0 else before

    # ------------------------------------------------------------ firing

    def _fire(self, set_id: str, term: Term, befores: set[float]) -> None:
        """Number what has to run now."""
        term.done.update(dict.fromkeys(befores, term.ends))
        mates = self._roster.mates(set_id)
        if not befores or not mates:
            return
        name = self._walltime.name(set_id)
        if len(mates) < mates[0].info.size:
            self._actions.log(f"nothing runs before the end of {name}: it has lost ranks")
            return
        left = self._walltime.left(set_id)
        data: list[dict[str, object]] = []
        if hooks := sorted(befores & term.hooks.keys()):
            data.append({"hooks": hooks, "left": -1.0 if left == math.inf else left})
        if self._folder and -1.0 in befores:
            data.append({"save": self._folder})
        now = self._actions.now
        former = self._rounds.get(set_id)
        self._rounds[set_id] = Round(
            len(data) * len(mates) + (former.owed if former else 0), now, now + left / 2
        )
        what = " and ".join("hooks" if "hooks" in one else f"a save to {self._folder}" for one in data)
        room = "no limit is known" if left == math.inf else f"{words(left)} are left"
        self._actions.log(f"{what} before the end of {name}: numbered, {room}")
        for one in data:
            self._order(mates, "walltime", json.dumps(one).encode(), self._hear)

    def _hear(self, engine: Engine, done: m.Done | None) -> None:
        """An engine has done a run, or has ended (None)."""
        set_id, number = engine.info.set_id, engine.info.id
        one = self._rounds.get(set_id)
        if one is None:
            return
        one.owed -= 1
        if done is None:
            one.failed[number] = "it has ended"
        elif done.status == "error":  # others may have been released from waiting for it
            lines = [line for line in done.err.splitlines() if line.strip()]
            one.failed[number] = (lines[-1] if lines else done.status)[:_TAIL]
        elif done.out.strip() and engine.info.rank <= 0:
            one.said.append(done.out.strip().splitlines()[-1][:_TAIL])
        if one.owed <= 0:
            self._report(set_id, self._rounds.pop(set_id))
            self._maybe_stop(set_id)

    def _report(self, set_id: str, one: Round) -> None:
        name, took = self._walltime.name(set_id), self._actions.now - one.since
        if one.failed:
            first = min(one.failed)
            others = f" (and on {len(one.failed) - 1} others)" if one.failed.keys() - {first} else ""
            text = f"failed on engine {first}{others}: {one.failed[first]}"
        else:
            text = f"is done ({took:.1f} s)"
        said = f"; {'; '.join(one.said)}" if one.said else ""
        self._actions.log(f"what runs before the end of {name} {text}{said}")

    def _grumble(self, set_id: str) -> None:
        """Say what keeps the hooks waiting."""
        oldest = {
            engine.info.id: next(iter(engine.runs.values()))
            for engine in self._roster.mates(set_id)
            if engine.runs
        }
        busy = sorted(number for number, work in oldest.items() if work.hear is None)
        what = (
            f"a call that still runs on engine {busy[0]}"
            + (f" and {len(busy) - 1} others" if busy[1:] else "")
            if busy
            else "the hooks themselves, which have not ended"
        )
        name, left = self._walltime.name(set_id), words(self._walltime.left(set_id))
        self._actions.log(f"what has to run before the end of {name} waits for {what}; {left} are left")

    # ------------------------------------------------------------ stopping

    def _maybe_stop(self, set_id: str) -> None:
        if set_id in self._stops and set_id not in self._rounds:
            self._stop(set_id)

    def _stop(self, set_id: str) -> None:
        _, reason = self._stops.pop(set_id)
        for engine in self._roster.mates(set_id):
            engine.leaving = engine.leaving or reason
            self._actions.send(engine.peer, m.Stop(reason))


def _about_to_end(number: int) -> str:
    return f"its scheduler is about to end it ({_name(number)})"


def _name(number: int) -> str:
    return signal.Signals(number).name if number in list(signal.Signals) else f"signal {number}"
