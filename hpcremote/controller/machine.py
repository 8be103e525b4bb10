"""The controller's rules: who is here, who owes what to whom. No I/O, no clock, no threads.

Everything that changes the controller's state is in this file, in ``calls.py`` (calls and their order)
and in ``roster.py`` (engines). The shell (``server.py``) turns sockets into events, calls
:meth:`Controller.handle`, and carries out the actions that come back, in their order; both are
listed in ``events.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hpcremote.controller.absent import Absent
from hpcremote.controller.agents import Agents
from hpcremote.controller.asking import Asking
from hpcremote.controller.calls import Calls, Client
from hpcremote.controller.closing import Closing
from hpcremote.controller.ending import Ending
from hpcremote.controller.events import (
    Action,
    Actions,
    Arrived,
    Event,
    Inquired,
    Lost,
    Opened,
    Peer,
    Prepared,
    Rejoined,
    Relaunched,
    Severed,
)
from hpcremote.controller.inquests import Inquests
from hpcremote.controller.restarting import Restarting
from hpcremote.controller.roster import Engine, Roster, bereft
from hpcremote.controller.walltime import Walltime
from hpcremote.controller.watchdog import Watchdog
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame

Handlers = dict[type[Any], Callable[..., None]]


@dataclass(slots=True)
class Stranger:
    """A peer that has not said what it is."""

    role: str
    local: bool


class Controller:
    """The state of a cluster, and its rules."""

    def __init__(  # noqa: PLR0913 - what a profile says of a controller
        self,
        cluster_id: str,
        version: str,
        host: str,
        pid: int,
        *,
        shm: str = "",
        grace: float = 10.0,
        collective_grace: float = 2.0,
        watchdog: float = 0.0,
        walltime_warning: float = 120.0,
        save_on_walltime: str = "",
        limit: float = math.inf,
    ) -> None:
        self.cluster_id, self.version, self.host, self.pid = cluster_id, version, host, pid
        self.shm = shm
        self._actions = Actions()
        self.roster = Roster(cluster_id, shm, self._actions)
        self.agents = Agents(self.roster, self._actions)
        self._absent = Absent(self._actions)
        self.clients: dict[Peer, Client] = {}
        self.walltime = Walltime(self.roster, self.clients, self.agents.of, self._actions, limit)
        self._calls = Calls(self.roster, self.clients, self._actions, collective_grace, self.walltime.refusal)
        self._ending = Ending(
            self.roster, self.walltime, self._calls.order, self._actions, walltime_warning, save_on_walltime
        )
        self.agents.handlers.update(self._ending.of_agents)
        self._watchdog = Watchdog(watchdog, self.roster, self.clients, self.agents.look, self._actions)
        self._inquests = Inquests(self.roster, self._actions, self.walltime.left)
        self._restarting = Restarting(self.roster, self._actions)
        identity = {"cluster_id": cluster_id, "version": version, "host": host, "pid": pid}
        self._asking = Asking(identity, self.roster, self.agents, self.clients, self._actions)
        self.strangers: dict[Peer, Stranger] = {}
        self._closing = Closing(
            self.roster, self._ending, (self._restarting, self._inquests),
            lambda: self.agents.holds or self._inquests.open, self._actions, grace,
        )  # fmt: skip
        self._timed = (
            self._calls, self.agents, self._watchdog, self._absent,
            self._ending, self._inquests, self._closing,
        )  # fmt: skip
        self._on_client, self._on_engine = self._handlers()

    def _handlers(self) -> tuple[Handlers, Handlers]:
        """Return what is done with each message of clients, and of engines."""
        of_clients: Handlers = {
            **self._calls.of_clients,
            m.Shutdown: self._shutdown,
            m.Query: self._asking.query,
            m.Where: self.agents.ask,
            m.Kill: self.agents.kill,
            m.Restart: self._restarting.restart,
        }
        of_engines: Handlers = {
            m.Phase: self.roster.phase,
            m.Join: self._join,
            m.Register: self._register,
            **self._calls.of_engines,
            m.Hook: self._ending.hooked,
            m.Leaving: self._leaving,
        }
        return of_clients, of_engines

    # ------------------------------------------------------------ the machine's face

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event at time *now* and return what has to be done, in order."""
        self.take_in(event, now)
        if self._calls.awaited:
            self._calls.give_up_definitions(now)
        self._do_what_is_due()
        self._closing.check()
        return self._actions.take()

    def take_in(self, event: Event, now: float) -> None:
        """Take in one event of several; :meth:`handle` has to follow, with the last one or a Tick."""
        self._actions.now = now
        if type(event) is Arrived:
            self._arrived(event.peer, event.message, event.frames)
        elif type(event) is Opened:
            self.strangers[event.peer] = Stranger(event.role, event.local)
        elif type(event) is Lost:
            self._lost(event)
        elif type(event) is Prepared:
            self._restarting.prepared(event)
        elif type(event) is Relaunched:
            self._restarting.relaunched(event)
        elif type(event) is Inquired:
            self._bury(self._inquests.told(event))
            self.agents.finish_off(self._inquests.leftovers(event))
        elif type(event) is Severed:
            self._cut_off(event.peer)
        elif type(event) is Rejoined:
            if client := self.clients.get(event.peer):
                self._absent.back(event.peer, client.name)
            else:
                self.agents.rejoined(self.roster.uid_of(event.peer))

    def receive(self, peer: Peer, message: m.AnyMessage, frames: Sequence[Frame], now: float) -> None:
        """Take in a message; the same as to take in :class:`Arrived`."""
        self._actions.now = now
        self._arrived(peer, message, frames)

    def deadline(self) -> float | None:
        """Return when a Tick is due, or None."""
        times = [due for part in self._timed if (due := part.due()) is not None]
        return min(times, default=None)

    def end(self, reason: str, now: float) -> list[Action]:
        """Begin to end everything: engines first, for at most ``grace`` seconds."""
        self._actions.now = now
        self._closing.begin(reason)
        self._closing.check()
        return self._actions.take()

    def told_to_end(self, why: str, now: float, *, ranks_ended: bool = False) -> list[Action]:
        """The controller's job is about to end: hooks run, or how ranks have ended is told; then all ends."""
        self._actions.now = now
        (self._closing.ranks_ended if ranks_ended else self._closing.told)(why)
        return self._actions.take()

    def engine_uid(self, peer: Peer) -> str:
        """Return the uid of the engine behind *peer*, or "" if there is none."""
        return self.roster.uid_of(peer)

    # ------------------------------------------------------------ arrivals

    def _arrived(self, peer: Peer, message: m.AnyMessage, frames: Sequence[Frame]) -> None:
        kind = type(message)
        if peer in self.clients:
            handler = self._on_client.get(kind)
        elif self.roster.knows(peer):
            handler = self._on_engine.get(kind)
        elif peer in self.agents:
            handler = self.agents.handlers.get(kind)
        else:
            handler = self._introduction(peer, kind)
        if handler is None:
            self._complain(peer, f"may not send {kind.__name__}: ignored")
            return
        handler(peer, message, frames)

    def _introduction(self, peer: Peer, kind: type[Any]) -> Callable[..., None] | None:
        stranger = self.strangers.get(peer)
        role = stranger.role if stranger else ""
        if kind is m.Hello and role in ("client", "any"):
            return self._hello
        if kind in (m.Phase, m.Join) and role in ("engine", "any"):
            self.roster.admit(peer, local=stranger.local if stranger else False)
            self.strangers.pop(peer, None)
            return self._on_engine[kind]
        if kind is m.Attend and role in ("engine", "any"):
            self.strangers.pop(peer, None)
            return self.agents.attend
        if stranger is None or kind in (m.Hello, m.Phase, m.Join):
            word = "a client's work" if role == "engine" else "an engine's work"
            reason = (
                f"the key of this connection is not for {word}" if stranger else "introduce yourself first"
            )
            self._actions.send(peer, m.Refused(reason))
        return None

    def _hello(self, peer: Peer, hello: m.Hello, _frames: Sequence[Frame]) -> None:
        if self._closing.why:
            self._actions.send(peer, m.Refused(f"cluster {self.cluster_id} is ending: {self._closing.why}"))
            return
        if hello.protocol != m.PROTOCOL:
            theirs = f"protocol {hello.protocol} of hpcremote {hello.version:.20}"
            ours = f"protocol {m.PROTOCOL} of hpcremote {self.version}"
            self._actions.send(
                peer, m.Refused(f"this controller speaks {ours}, the client {theirs}: install one version")
            )
            return
        stranger = self.strangers.pop(peer, None)
        local = stranger.local if stranger else False
        self.clients[peer] = Client(peer, local, hello)
        self._actions.log(f"{self.clients[peer].name} (pid {hello.pid} on {hello.host}) connected")
        shm = self.shm if local else ""
        engines = self.roster.infos()
        self._actions.send(peer, m.Welcome(self.cluster_id, self.version, self.host, self.pid, engines, shm))
        self.walltime.greet(peer)

    # ------------------------------------------------------------ what clients ask

    def _shutdown(self, peer: Peer, shutdown: m.Shutdown, _frames: Sequence[Frame]) -> None:
        if shutdown.controller:
            self._actions.send(peer, m.Answer(shutdown.request, "true"))
            self._closing.begin("a client asked for it")
            return
        if problem := self.roster.cannot_stop(shutdown.targets):
            self._actions.send(peer, m.Answer(shutdown.request, "", problem))
            return
        for target in dict.fromkeys(shutdown.targets):
            if engine := self.roster.engines.get(target):
                self._actions.send(engine.peer, m.Stop("a client asked for it"))
        self._actions.send(peer, m.Answer(shutdown.request, "true"))

    # ------------------------------------------------------------ what engines say

    def _join(self, peer: Peer, join: m.Join, _frames: Sequence[Frame]) -> None:
        if self._closing.why:
            self._actions.send(peer, m.Refused(f"cluster {self.cluster_id} is ending: {self._closing.why}"))
            return
        if problem := self.roster.join(peer, join):
            self._actions.send(peer, m.Refused(problem))
            self._complain(peer, f"was refused as an engine: {problem}")
            return
        self._announce(self.roster.complete(join.set_id, join.rank))

    def _register(self, peer: Peer, register: m.Register, _frames: Sequence[Frame]) -> None:
        if problem := self.roster.register(peer, register):
            self._actions.send(peer, m.Refused(problem))
            self._complain(peer, f"was refused as a set of engines: {problem}")
            return
        self._ending.registered(register)
        self._announce(self.roster.complete(register.set_id))

    def _announce(self, engines: list[Engine]) -> None:
        if not engines:
            return
        for engine in engines:
            shm = self.shm if engine.info.local else ""
            self._actions.send(engine.peer, m.Joined(engine.info.id, self.cluster_id, shm))
        came = m.Engines([engine.info for engine in engines], [])
        for peer in self.clients:
            self._actions.send(peer, came)
        first, last = engines[0].info, engines[-1].info
        ids = f"engine {first.id}" if first is last else f"engines {first.id} to {last.id}"
        self._actions.log(f"{ids} registered from {', '.join(sorted({e.info.host for e in engines}))}")
        self._restarting.announced(first.set_id)
        self.walltime.announced(first.set_id)

    def _leaving(self, peer: Peer, leaving: m.Leaving, _frames: Sequence[Frame]) -> None:
        self.roster.leaving(peer, leaving.cause, self._actions.now if leaving.all else None)

    # ------------------------------------------------------------ departures

    def _do_what_is_due(self) -> None:
        self._calls.failing.release_due()
        if self._watchdog.limit:
            self._watchdog.turn()
        for peer in self._absent.overdue() if self._absent else ():
            self._actions.forget(peer)
            self._lost(Lost(peer))
        self._ending.turn()
        self._bury(self._inquests.given_up())
        if not self.agents.busy:
            return
        self.agents.give_up()
        for lost in self.agents.released():
            self._bury(self._inquests.amended(lost))

    def _lost(self, lost: Lost) -> None:
        self.strangers.pop(lost.peer, None)
        self._absent.forget(lost.peer)
        if self.agents.left(lost.peer, heal=not self._closing.why):
            return
        if client := self._calls.client_left(lost.peer):
            self._actions.log(f"{client.name} left with {len(client.works)} open calls")
            return
        if (amended := self.agents.amended(lost, self.roster.uid_of(lost.peer))) is not None:
            self._bury(self._inquests.amended(amended))

    def _cut_off(self, peer: Peer) -> None:
        if uid := self.roster.uid_of(peer):
            self.agents.cut_off(peer, uid)
        elif client := self.clients.get(peer):
            self._absent.left(peer, client.name)
        else:
            self._actions.forget(peer)
            self._lost(Lost(peer))

    def _bury(self, ends: Sequence[Lost]) -> None:
        for lost in ends:
            self._actions.forget(lost.peer)
            engine, gone = self.roster.lose(lost.peer, lost.cause, lost.output, self._actions.now)
            if engine is None or gone is None:
                continue
            self._actions.log(f"engine {gone.id} ended: {gone.cause}")
            self._calls.engine_left(engine, gone)
            for mate in bereft(self.roster, engine, lost.cause):
                self._actions.send(mate.peer, m.Bereft())
            for peer in self.clients:
                self._actions.send(peer, m.Engines([], [gone]))
            # It may be back already, over a connection that came before we knew that this one ended.
            self._announce(self.roster.complete(engine.info.set_id, max(0, engine.info.rank)))

    # ------------------------------------------------------------ small things

    def _complain(self, peer: Peer, text: str) -> None:
        self._actions.log(f"{self._name(peer)} {text}", complaint=True)

    def _name(self, peer: Peer) -> str:
        if client := self.clients.get(peer):
            return client.name
        engine = self.roster.by_peer(peer)
        return f"engine {engine.info.id}" if engine else "a peer that has not introduced itself"
