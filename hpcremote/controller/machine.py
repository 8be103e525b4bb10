"""The controller's rules: who is here, who owes what to whom. No I/O, no clock, no threads.

Everything that changes the controller's state is in this file and in ``roster.py``. The shell
(``server.py``) turns sockets into events, calls :meth:`Controller.handle`, and carries out the
actions that come back, in their order.

::

    events                                          actions
    Opened   a peer's first message, and what       Send     a message to a peer
             the transport knows of it              Unlink   a shared-memory blob nobody will read
    Arrived  a message                              Log      a line for the log
    Lost     a peer's connection ended              End      everything is done, the process may end
    Tick     the deadline passed

The ordering guarantee is kept here and nowhere else: a Call gets one number and enters the queue of
every target in the same ``handle``; each engine's link keeps the order, and each engine runs in
order. So any two calls meet every engine that both have in the same order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Union

from hpcremote.controller.roster import Engine, Roster
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame

Peer = Hashable

#: More targets in one call, or more open calls of one client, are refused: ours never come near, and
#: what a client's one message can make the controller send and keep has to be bounded.
MOST_TARGETS = 65_536
MOST_OPEN = 200_000


class Opened(NamedTuple):
    """A peer that was not here before. ``role``: what its keys allow ("client", "engine" or "any")."""

    peer: Peer
    role: str
    local: bool


class Arrived(NamedTuple):
    """A message from a peer."""

    peer: Peer
    message: m.AnyMessage
    frames: Sequence[Frame]


class Lost(NamedTuple):
    """A peer's connection ended; for an engine on this machine, how it died and its last output."""

    peer: Peer
    cause: str = ""
    output: str = ""


class Tick(NamedTuple):
    """Time passed."""


class Send(NamedTuple):
    """Send this message, with these frames, to that peer."""

    peer: Peer
    message: m.AnyMessage
    frames: Sequence[Frame] = ()


class Unlink(NamedTuple):
    """Remove a blob that nobody will read any more."""

    blob: str


class Log(NamedTuple):
    """Say this in the log. ``complaint``: a peer did what it may not, and may do so often."""

    text: str
    complaint: bool = False


class End(NamedTuple):
    """All that had to end has ended."""

    reason: str


Event = Union[Opened, Arrived, Lost, Tick]
Action = Union[Send, Unlink, Log, End]


@dataclass(slots=True)
class Work:
    """One call, from its arrival until its last target has answered."""

    client: Peer
    call: int
    seq: int
    waiting: set[int]
    blobs: list[str]


@dataclass(slots=True)
class Client:
    """A connected client and its open calls."""

    peer: Peer
    local: bool
    hello: m.Hello
    works: dict[int, Work] = field(default_factory=dict)


@dataclass(slots=True)
class Stranger:
    """A peer that has not said what it is."""

    role: str
    local: bool


class Controller:
    """The state of a cluster, and its rules."""

    def __init__(self, cluster_id: str, version: str, host: str, pid: int, *, shm: str = "", grace: float = 10.0):
        self.cluster_id = cluster_id
        self.version = version
        self.host = host
        self.pid = pid
        self.shm = shm
        self.grace = grace
        self.roster = Roster(cluster_id, shm)
        self.clients: dict[Peer, Client] = {}
        self.strangers: dict[Peer, Stranger] = {}
        self.ending: float | None = None
        self._why_ending = ""
        self._seq = 0
        self._now = 0.0
        self._actions: list[Action] = []
        self._on_client: dict[type[Any], Callable[..., None]] = {
            m.Define: self._define,
            m.Call: self._call,
            m.Abort: self._abort,
            m.Shutdown: self._shutdown,
            m.Query: self._query,
        }
        self._on_engine: dict[type[Any], Callable[..., None]] = {
            m.Phase: self._phase,
            m.Join: self._join,
            m.Register: self._register,
            m.Done: self._done,
            m.Print: self._print,
            m.Lacking: self._lacking,
            m.Leaving: self._leaving,
        }

    # ------------------------------------------------------------ the machine's face

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take in one event at time *now* and return what has to be done, in order."""
        if type(event) is Arrived:
            return self.receive(event.peer, event.message, event.frames, now)
        self._now = now
        self._actions = []
        if type(event) is Opened:
            self.strangers[event.peer] = Stranger(event.role, event.local)
        elif type(event) is Lost:
            self._lost(event)
        self._check_end()
        return self._actions

    def receive(
        self, peer: Peer, message: m.AnyMessage, frames: Sequence[Frame], now: float
    ) -> list[Action]:
        """Take in a message; the same as to handle :class:`Arrived`."""
        self._now = now
        self._actions = []
        self._arrived(peer, message, frames)
        if self.ending is not None:
            self._check_end()
        return self._actions

    def deadline(self) -> float | None:
        """Return when a Tick is due, or None."""
        return self.ending

    def end(self, reason: str, now: float) -> list[Action]:
        """Begin to end everything: engines first, for at most ``grace`` seconds."""
        self._now = now
        self._actions = []
        self._begin_end(reason)
        self._check_end()
        return self._actions

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
        if stranger is None or kind in (m.Hello, m.Phase, m.Join):
            word = "a client's work" if role == "engine" else "an engine's work"
            reason = f"the key of this connection is not for {word}" if stranger else "introduce yourself first"
            self._send(peer, m.Refused(reason))
        return None

    def _hello(self, peer: Peer, hello: m.Hello, _frames: Sequence[Frame]) -> None:
        if self.ending is not None:
            self._send(peer, m.Refused(f"cluster {self.cluster_id} is ending: {self._why_ending}"))
            return
        if hello.protocol != m.PROTOCOL:
            theirs = f"protocol {hello.protocol} of hpcremote {hello.version:.20}"
            ours = f"protocol {m.PROTOCOL} of hpcremote {self.version}"
            self._send(peer, m.Refused(f"this controller speaks {ours}, the client {theirs}: install one version"))
            return
        stranger = self.strangers.pop(peer, None)
        local = stranger.local if stranger else False
        self.clients[peer] = Client(peer, local, hello)
        self._log(f"client {hello.uid[:8]} (pid {hello.pid} on {hello.host}) connected")
        shm = self.shm if local else ""
        engines = self.roster.infos()
        self._send(peer, m.Welcome(self.cluster_id, self.version, self.host, self.pid, engines, shm))

    # ------------------------------------------------------------ what clients ask

    def _define(self, _peer: Peer, define: m.Define, _frames: Sequence[Frame]) -> None:
        given = m.Given(define.digest, define.data)
        for target in dict.fromkeys(define.targets):
            if engine := self.roster.engines.get(target):
                self._send(engine.peer, given)

    def _call(self, peer: Peer, call: m.Call, frames: Sequence[Frame]) -> None:
        client = self.clients[peer]
        targets = list(dict.fromkeys(call.targets))
        parts = call.parts
        if call.call in client.works:
            self._complain(peer, f"sent another call {call.call} while that one is open: ignored")
            return
        if not targets or len(targets) != len(call.targets) or len(parts) not in (1, len(targets)):
            self._complain(peer, "sent a call whose targets and parts do not fit: ignored")
            self._fail(peer, call, targets[:MOST_TARGETS], "the call's targets and parts do not fit")
            return
        if len(targets) > MOST_TARGETS or len(client.works) >= MOST_OPEN:
            self._complain(peer, "asks for more than a controller can take: ignored")
            self._fail(peer, call, targets[:MOST_TARGETS], "too many targets, or too many open calls")
            return
        self._seq += 1
        work = Work(peer, call.call, self._seq, set(targets), [part.blob for part in parts if part.blob])
        client.works[call.call] = work
        at = 0
        for index, target in enumerate(targets):
            part = parts[index] if len(parts) > 1 else parts[0]
            share = frames[at : at + part.nframes] if part.nframes else ()
            if len(parts) > 1:
                at += part.nframes
            self._dispatch(client, work, target, call, part, share)
        self._settle(work)

    def _dispatch(
        self, client: Client, work: Work, target: int, call: m.Call, part: m.Part, frames: Sequence[Frame]
    ) -> None:
        engine = self.roster.engines.get(target)
        if engine is None:
            work.waiting.discard(target)
            gone = self.roster.gone(target)
            self._send(work.client, _lost_result(call.call, target, gone))
            return
        engine.runs[work.seq] = work
        local = client.local and engine.info.local
        run = m.Run(work.seq, call.op, call.digest, part, local, call.targets)
        self._actions.append(Send(engine.peer, run, frames))

    def _fail(self, peer: Peer, call: m.Call, targets: Iterable[int], why: str) -> None:
        for target in targets:
            self._send(peer, m.Result(call.call, target, "lost", m.Part(), err=why))

    def _abort(self, peer: Peer, abort: m.Abort, _frames: Sequence[Frame]) -> None:
        works = self.clients[peer].works
        chosen = [works[c] for c in dict.fromkeys(abort.calls) if c in works] if abort.calls else [*works.values()]
        drops: dict[int, list[int]] = {}
        only = set(abort.targets)
        for work in chosen:
            for target in work.waiting if not only else work.waiting & only:
                drops.setdefault(target, []).append(work.seq)
        for target, seqs in drops.items():
            if engine := self.roster.engines.get(target):
                self._send(engine.peer, m.Drop(seqs))

    def _shutdown(self, peer: Peer, shutdown: m.Shutdown, _frames: Sequence[Frame]) -> None:
        if shutdown.controller:
            self._send(peer, m.Answer(shutdown.request, "true"))
            self._begin_end("a client asked for it")
            return
        if problem := self.roster.cannot_stop(shutdown.targets):
            self._send(peer, m.Answer(shutdown.request, "", problem))
            return
        for target in dict.fromkeys(shutdown.targets):
            if engine := self.roster.engines.get(target):
                self._send(engine.peer, m.Stop("a client asked for it"))
        self._send(peer, m.Answer(shutdown.request, "true"))

    def _query(self, peer: Peer, query: m.Query, _frames: Sequence[Frame]) -> None:
        answers: dict[str, Callable[[], object]] = {
            "queue_status": self.roster.queue_status,
            "info": self._info,
        }
        ask = answers.get(query.what)
        if ask is None:
            self._send(peer, m.Answer(query.request, "", f"this controller cannot tell {query.what!r}"))
        else:
            self._send(peer, m.Answer(query.request, json.dumps(ask())))

    def _info(self) -> dict[str, object]:
        return {
            "cluster_id": self.cluster_id,
            "version": self.version,
            "host": self.host,
            "pid": self.pid,
            "clients": len(self.clients),
            "calls": sum(len(client.works) for client in self.clients.values()),
            **self.roster.progress(),
        }

    # ------------------------------------------------------------ what engines say

    def _phase(self, peer: Peer, phase: m.Phase, _frames: Sequence[Frame]) -> None:
        self.roster.phase(peer, phase)

    def _join(self, peer: Peer, join: m.Join, _frames: Sequence[Frame]) -> None:
        if self.ending is not None:
            self._send(peer, m.Refused(f"cluster {self.cluster_id} is ending: {self._why_ending}"))
            return
        if problem := self.roster.join(peer, join):
            self._send(peer, m.Refused(problem))
            self._complain(peer, f"was refused as an engine: {problem}")
            return
        self._announce(self.roster.complete(join.set_id))

    def _register(self, peer: Peer, register: m.Register, _frames: Sequence[Frame]) -> None:
        if problem := self.roster.register(peer, register):
            self._send(peer, m.Refused(problem))
            self._complain(peer, f"was refused as a set of engines: {problem}")
            return
        self._announce(self.roster.complete(register.set_id))

    def _announce(self, engines: list[Engine]) -> None:
        if not engines:
            return
        for engine in engines:
            shm = self.shm if engine.info.local else ""
            self._send(engine.peer, m.Joined(engine.info.id, self.cluster_id, shm))
        came = m.Engines([engine.info for engine in engines], [])
        for peer in self.clients:
            self._send(peer, came)
        first, last = engines[0].info, engines[-1].info
        ids = f"engine {first.id}" if first is last else f"engines {first.id} to {last.id}"
        self._log(f"{ids} registered from {', '.join(sorted({e.info.host for e in engines}))}")

    def _done(self, peer: Peer, done: m.Done, frames: Sequence[Frame]) -> None:
        engine = self.roster.by_peer(peer)
        work = engine.runs.pop(done.seq, None) if engine else None
        if engine is None or work is None:
            self._unlink(done.part.blob)
            return
        engine.completed += 1
        work.waiting.discard(engine.info.id)
        if work.client in self.clients:
            result = m.Result(
                work.call, engine.info.id, done.status, done.part, done.started, done.completed, done.out, done.err
            )
            self._actions.append(Send(work.client, result, frames))
        else:
            self._unlink(done.part.blob)
        self._settle(work)

    def _print(self, peer: Peer, text: m.Print, _frames: Sequence[Frame]) -> None:
        engine = self.roster.by_peer(peer)
        work = engine.runs.get(text.seq) if engine else None
        if engine is not None and work is not None and work.client in self.clients:
            self._send(work.client, m.Output(work.call, engine.info.id, text.stream, text.text))

    def _lacking(self, peer: Peer, lacking: m.Lacking, _frames: Sequence[Frame]) -> None:
        engine = self.roster.by_peer(peer)
        work = engine.runs.get(lacking.seq) if engine else None
        if engine is not None and work is not None and work.client in self.clients:
            self._send(work.client, m.Missing(engine.info.id, lacking.digest))
        else:
            self._send(peer, m.Given(lacking.digest, b""))

    def _leaving(self, peer: Peer, leaving: m.Leaving, _frames: Sequence[Frame]) -> None:
        self.roster.leaving(peer, leaving.cause)

    # ------------------------------------------------------------ departures

    def _lost(self, lost: Lost) -> None:
        self.strangers.pop(lost.peer, None)
        if client := self.clients.pop(lost.peer, None):
            self._log(f"client {client.hello.uid[:8]} left with {len(client.works)} open calls")
            self._drop_all(client)
            return
        engine, gone = self.roster.lose(lost.peer, lost.cause, lost.output, self._now)
        if engine is None or gone is None:
            return
        self._log(f"engine {gone.id} ended: {gone.cause}")
        for work in list(engine.runs.values()):
            work.waiting.discard(gone.id)
            if work.client in self.clients:
                self._send(work.client, _lost_result(work.call, gone.id, gone))
            self._settle(work)
        engine.runs.clear()
        for peer in self.clients:
            self._send(peer, m.Engines([], [gone]))
        # It may be back already, over a connection that came before we knew that this one ended.
        self._announce(self.roster.complete(engine.info.set_id))

    def _drop_all(self, client: Client) -> None:
        """What a client that is gone has queued does not start; what runs, runs to its end."""
        drops: dict[int, list[int]] = {}
        for work in client.works.values():
            for target in work.waiting:
                drops.setdefault(target, []).append(work.seq)
        for target, seqs in drops.items():
            if engine := self.roster.engines.get(target):
                self._send(engine.peer, m.Drop(seqs))

    def _settle(self, work: Work) -> None:
        if work.waiting:
            return
        if client := self.clients.get(work.client):
            client.works.pop(work.call, None)
        for blob in work.blobs:
            self._unlink(blob)

    def _begin_end(self, reason: str) -> None:
        if self.ending is not None:
            return
        self.ending = self._now + self.grace
        self._why_ending = reason
        self._log(f"ending: {reason}")
        for peer in self.roster.peers():
            self._send(peer, m.Stop(reason))

    def _check_end(self) -> None:
        if self.ending is None:
            return
        if not self.roster.peers():
            self._actions.append(End(self._why_ending))
        elif self._now >= self.ending:
            left = len(self.roster.peers())
            self._log(f"{left} engines did not end within {self.grace:g} s")
            self._actions.append(End(self._why_ending))

    # ------------------------------------------------------------ small things

    def _send(self, peer: Peer, message: m.AnyMessage) -> None:
        self._actions.append(Send(peer, message))

    def _log(self, text: str) -> None:
        self._actions.append(Log(text))

    def _complain(self, peer: Peer, text: str) -> None:
        self._actions.append(Log(f"{self._name(peer)} {text}", complaint=True))

    def _unlink(self, blob: str) -> None:
        if blob:
            self._actions.append(Unlink(blob))

    def _name(self, peer: Peer) -> str:
        if client := self.clients.get(peer):
            return f"client {client.hello.uid[:8]}"
        engine = self.roster.by_peer(peer)
        return f"engine {engine.info.id}" if engine else "a peer that has not introduced itself"


def _lost_result(call: int, target: int, gone: m.Gone) -> m.Result:
    return m.Result(call, target, "lost", m.Part(), out=gone.output, err=gone.cause)
