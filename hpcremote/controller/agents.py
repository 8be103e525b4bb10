"""Node agents: which there are, what they were asked, what they say about ranks that end. Pure.

::

    client ──Where──▶ ask() ──Look──▶ every agent ──Seen──▶ seen() ──Answer──▶ client
    engine's connection ends ──▶ amended(): of an engine elsewhere, its agent knows more; wait a moment
    agent's connection ends  ──▶ left(): engines of that node are told to see to a new one
    an engine is cut off     ──▶ cut_off(): it may come back by another agent; wait while one sees it alive
"""

from __future__ import annotations

import json
import signal
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from hpcremote.controller.events import Actions, Lost, Peer
from hpcremote.controller.roster import Roster
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame
from hpcremote.wire.lastwords import SILENT

#: How long agents have to answer, in seconds.
PATIENCE = 5.0
#: The same where a tool has to read the symbols of all libraries.
NATIVE_PATIENCE = 15.0
#: The same where they have only to read what the kernel says.
BRIEF_PATIENCE = 1.0
#: How long the end of an engine elsewhere waits for its agent to say how, in seconds.
HOLD = 0.5
#: How long an engine whose agent has ended may take to come back, or to be seen alive by another, in seconds.
RETURN = 5.0
#: A node's agent is started anew at most so many times within so many seconds.
TRIES, WITHIN = 5, 60.0
#: What is said of a rank of which an agent says such a state, and what of that is in the log.
STATES = {"T": "stopped", "D": "waiting for I/O"}
_LOGGED = {"T": "is stopped (SIGCONT lets it go on)", "D": "hangs in the kernel (a file system?)"}
#: Of how many ranks the end may be known before their connection ends.
_EARLY = 10_000


@dataclass(slots=True)
class Agent:
    """A node agent, and the ranks that it watches."""

    host: str
    pid: int
    uids: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Wish:
    """A question, until all agents have answered."""

    number: int
    answer: Callable[[dict[str, dict[str, object]]], None]
    until: float
    rows: dict[str, dict[str, object]]  # by uid
    waiting: dict[Peer, list[str]] = field(default_factory=dict)
    unwatched: dict[str, str] = field(default_factory=dict)  # uid → host; their agents are being started
    native: bool = False


@dataclass(slots=True)
class Held:
    """The end of an engine that waits for better knowledge. ``severed``: that it has ended is not known."""

    until: float
    lost: Lost
    severed: bool = False


class Agents:
    """All node agents.

    Args:
        roster: the engines.
        actions: takes what has to be done.

    Attributes:
        handlers: what to do with an agent's messages.
        noticed: the ranks that are stopped or hang in the kernel, by uid, and which of the two.
    """

    def __init__(self, roster: Roster, actions: Actions) -> None:
        self._roster = roster
        self._actions = actions
        self._agents: dict[Peer, Agent] = {}
        self._by_uid: dict[str, Peer] = {}
        self.noticed: dict[str, str] = {}
        self._wishes: dict[int, Wish] = {}
        self._asked = 0
        self._held: dict[str, Held] = {}
        self._early: dict[str, m.Exited] = {}
        self._released: list[Lost] = []
        self._starts: dict[str, deque[float]] = {}
        self._soonest = inf  # nothing is due before
        self.handlers: dict[type[Any], Callable[..., None]] = {
            m.Attend: self.attend,
            m.Seen: self._seen,
            m.Exited: self._exited,
            m.Noticed: self._noticed,
        }

    @property
    def busy(self) -> bool:
        """Whether somebody waits for an agent, or for its deadline."""
        return bool(self._wishes or self._held or self._released)

    @property
    def holds(self) -> bool:
        """Whether some engine's end waits for what its agent knows of it."""
        return bool(self._held or self._released)

    def __contains__(self, peer: Peer) -> bool:
        return peer in self._agents

    def of(self, uid: str) -> Peer | None:
        """Return the agent that watches a rank."""
        return self._by_uid.get(uid)

    # ------------------------------------------------------------ coming and going

    def attend(self, peer: Peer, attend: m.Attend, _frames: Sequence[Frame]) -> None:
        """An agent says whom it watches."""
        if attend.protocol != m.PROTOCOL:
            self._actions.send(peer, m.Refused(f"this controller speaks protocol {m.PROTOCOL}"))
            return
        agent = self._agents.setdefault(peer, Agent(attend.host, attend.pid))
        agent.uids.update(attend.uids)
        self._by_uid.update(dict.fromkeys(attend.uids, peer))
        for number, wish in self._wishes.items():
            if awaited := [uid for uid in attend.uids if wish.unwatched.pop(uid, None) is not None]:
                wish.waiting.setdefault(peer, []).extend(awaited)
                self._actions.send(peer, m.Look(number, awaited, wish.native))

    def left(self, peer: Peer, *, heal: bool) -> bool:
        """Forget an agent; say whether *peer* was one. Its node gets another one if engines are there."""
        agent = self._agents.pop(peer, None)
        if agent is None:
            return False
        for uid in agent.uids:
            if self._by_uid.get(uid) == peer:
                del self._by_uid[uid]
                self.noticed.pop(uid, None)
        for wish in list(self._wishes.values()):
            self._miss(wish, peer, f"the node agent of {agent.host} (pid {agent.pid}) has just ended")
        if heal:
            self._start_anew(agent.host)
        return True

    def _start_anew(self, host: str) -> None:
        here = self._roster.on_host(host).items()
        # Those that are cut off see to it by themselves: nobody else could tell them.
        orphans = [peer for peer, uid in here if uid not in self._by_uid and uid not in self._held]
        if not orphans:
            return
        starts = self._starts.setdefault(host, deque(maxlen=TRIES))
        now = self._actions.now
        if len(starts) == TRIES and now - starts[0] < WITHIN:
            text = f"the node agent of {host} ended {TRIES} times within {WITHIN:g} s: it is not started anew"
            self._actions.log(text, complaint=True)
            return
        starts.append(now)
        self._actions.log(f"{host} has engines and no node agent: an engine starts one")
        for peer in orphans:  # whoever gets the lock; one alone may be stuck
            self._actions.send(peer, m.Tend())

    # ------------------------------------------------------------ where ranks are

    def ask(self, client: Peer, where: m.Where, _frames: Sequence[Frame]) -> None:
        """Have agents look at their ranks, and answer the client when they have."""

        def answer(rows: dict[str, dict[str, object]]) -> None:
            self._actions.send(client, m.Answer(where.request, json.dumps(rows)))

        self.look(where.targets, answer, native=where.native)

    def look(
        self,
        engines: Sequence[int],
        answer: Callable[[dict[str, dict[str, object]]], None],
        *,
        native: bool = False,
        brief: bool = False,
    ) -> None:
        """Have agents look at these engines, and call *answer* with what they saw, by id.

        *brief* is for what can be known at once: nobody waits for an agent that is not there yet.
        """
        rows: dict[str, dict[str, object]] = {}
        targets: dict[Peer, list[str]] = {}
        unwatched: dict[str, str] = {}
        wanted = set(engines)
        for info in (info for info in self._roster.infos() if info.id in wanted):
            said = dict.fromkeys(("text", "native", "note"), "")
            rows[info.uid] = {"id": info.id, "rank": info.rank, "host": info.host, **said}
            agent = self._by_uid.get(info.uid)
            if agent is not None:
                targets.setdefault(agent, []).append(info.uid)
            elif not brief:
                unwatched[info.uid] = info.host
        self._asked += 1
        patience = NATIVE_PATIENCE if native else BRIEF_PATIENCE if brief else PATIENCE
        until = self._actions.now + patience
        wish = Wish(self._asked, answer, until, rows, targets, unwatched, native)
        self._wishes[self._asked] = wish
        for peer, uids in targets.items():
            self._actions.send(peer, m.Look(self._asked, uids, native, brief))
        for host in sorted(set(unwatched.values())):
            self._start_anew(host)
        self._settle(wish)

    def _seen(self, peer: Peer, seen: m.Seen, _frames: Sequence[Frame]) -> None:
        wish = self._wishes.get(seen.request)
        if wish is None or peer not in wish.waiting:
            return
        for sight in seen.sights:
            if row := wish.rows.get(sight.uid):
                row.update(text=sight.text, state=sight.state, native=sight.native, note=sight.note)
                if sight.memory:
                    row["memory"] = sight.memory
        asked = wish.waiting[peer]
        wish.waiting[peer] = [uid for uid in asked if "state" not in wish.rows[uid]]
        if not wish.waiting[peer] or len(seen.sights) < len(asked):
            self._miss(wish, peer, "not seen: it has just ended")

    def _miss(self, wish: Wish, peer: Peer, why: str) -> None:
        """An agent has said all that it will say."""
        for uid in wish.waiting.pop(peer, ()):
            wish.rows[uid].setdefault("state", why)
        self._settle(wish)

    def _settle(self, wish: Wish) -> None:
        if wish.waiting or wish.unwatched or self._wishes.pop(wish.number, None) is None:
            return
        wish.answer({str(row.pop("id")): row for row in wish.rows.values()})

    # ------------------------------------------------------------ signals

    def kill(self, peer: Peer, kill: m.Kill, _frames: Sequence[Frame]) -> None:
        """Do what a client asks: a signal to exactly these engines."""
        problem = self._signal(kill.targets, kill.number)
        self._actions.send(peer, m.Answer(kill.request, "" if problem else "true", problem))

    def _signal(self, targets: Sequence[int], number: int) -> str:
        """Have a signal sent to exactly these engines; return why that cannot be, or ""."""
        chosen: dict[Peer, list[str]] = {}
        for target in dict.fromkeys(targets):
            engine = self._roster.engines.get(target)
            if engine is None:
                return f"there is no engine {target}"
            peer = self._by_uid.get(engine.info.uid)
            if peer is None:
                return f"no node agent watches engine {target} on {engine.info.host}"
            chosen.setdefault(peer, []).append(engine.info.uid)
        for peer, uids in chosen.items():
            self._actions.send(peer, m.Signal(uids, number))
        return ""

    def finish_off(self, targets: Sequence[int]) -> None:
        """Have engines killed that nobody else ends; one whose node has no agent is told to end."""
        for target in targets:
            engine = self._roster.engines.get(target)
            if engine is not None and self._signal([target], signal.SIGKILL):
                self._actions.send(engine.peer, m.Stop("its job has ended"))

    # ------------------------------------------------------------ how ranks are, and end

    def _noticed(self, peer: Peer, noticed: m.Noticed, _frames: Sequence[Frame]) -> None:
        if noticed.uid not in self._agents[peer].uids:
            return
        self.noticed.pop(noticed.uid, None)
        if noticed.state in STATES:
            self.noticed[noticed.uid] = STATES[noticed.state]
        for info in self._roster.infos():
            if info.uid == noticed.uid:
                self._actions.log(f"engine {info.id} {_LOGGED.get(noticed.state, 'goes on')}")

    def _exited(self, peer: Peer, exited: m.Exited, _frames: Sequence[Frame]) -> None:
        agent = self._agents[peer]
        if exited.uid not in agent.uids:
            return
        agent.uids.discard(exited.uid)
        self._by_uid.pop(exited.uid, None)
        self.noticed.pop(exited.uid, None)
        held = self._held.pop(exited.uid, None)
        if held is not None:
            self._released.append(Lost(held.lost.peer, exited.cause, exited.output))
        elif self._roster.has(exited.uid) and len(self._early) < _EARLY:
            self._early[exited.uid] = exited
        elif exited.cause:
            self._actions.log(f"{agent.host} says of a process that has ended: {exited.cause}")

    def amended(self, lost: Lost, uid: str) -> Lost | None:
        """Return the end of an engine with what its agent knows of it, or None: that comes in a moment."""
        early = self._early.pop(uid, None)
        if early is not None:
            better = early.cause if lost.cause in ("", SILENT) else ""
            return Lost(lost.peer, better or lost.cause, lost.output or early.output)
        if lost.cause or uid not in self._by_uid:
            return lost
        self._hold(uid, Held(self._actions.now + HOLD, lost))
        return None

    def _hold(self, uid: str, held: Held) -> None:
        self._held[uid] = held
        self._soonest = min(self._soonest, held.until)

    def cut_off(self, peer: Peer, uid: str) -> None:
        """There is no way to an engine: wait for it, or for an agent that says how it ended."""
        early = self._early.pop(uid, None)
        if early is None:
            self._hold(uid, Held(self._actions.now + RETURN, Lost(peer), severed=True))
        else:
            self._released.append(Lost(peer, early.cause, early.output))

    def rejoined(self, uid: str) -> None:
        """It is back."""
        self._held.pop(uid, None)

    # ------------------------------------------------------------ time

    def due(self) -> float | None:
        """Return when somebody has waited long enough, or None."""
        if not self._wishes and not self._held:  # asked at every turn
            return None
        times = [wish.until for wish in self._wishes.values()]
        if self._held:
            times.append(self._soonest)
        return min(times, default=None)

    def give_up(self) -> None:
        """Answer for agents that do not."""
        now = self._actions.now
        for wish in [wish for wish in self._wishes.values() if now >= wish.until]:
            for peer in list(wish.waiting):
                agent = self._agents[peer]
                why = f"the node agent of {agent.host} (pid {agent.pid}) did not answer in time"
                self._miss(wish, peer, why)
            for uid, host in wish.unwatched.items():
                wish.rows[uid]["state"] = f"not seen: no node agent watches it on {host}"
            wish.unwatched.clear()
            self._settle(wish)
        if now >= self._soonest:  # not looked at for each of many that are cut off together
            self._end_holds(now)

    def _end_holds(self, now: float) -> None:
        for uid, held in list(self._held.items()):
            if now < held.until:
                continue
            if held.severed and uid in self._by_uid:  # it is alive, and C code keeps it from connecting
                held.until = now + RETURN
            else:
                del self._held[uid]
                self._released.append(held.lost)
        self._soonest = min((held.until for held in self._held.values()), default=inf)

    def released(self) -> list[Lost]:
        """Return the ends that have waited, to be taken in as they are."""
        released, self._released = self._released, []
        return released
