"""Calls on their way: from a client to its targets, and what became of them back. Pure.

The ordering guarantee is kept in :meth:`Calls.call` and nowhere else: a Call gets one number and
enters the queue of every target in the same step; each engine's link keeps the order, and each
engine runs in order. So any two calls meet every engine that both have in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcremote.controller.events import Actions, Peer
from hpcremote.controller.failing import Failing, Trouble
from hpcremote.controller.roster import (
    BY_SCHEDULER,
    CONTROLLER_ALONE,
    CONTROLLER_BY_SCHEDULER,
    Engine,
    Roster,
)
from hpcremote.controller.spares import Joint
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame
from hpcremote.wire.targets import compact, expand

#: More targets in one call, or more open calls of one client, are refused: ours never come near, and
#: what a client's one message can make the controller send and keep has to be bounded.
MOST_TARGETS = 65_536
MOST_OPEN = 200_000
#: An engine waits at most this many seconds for a client to send a definition again: others wait behind it.
DEFINITION_PATIENCE = 10.0


@dataclass(slots=True)
class Work:
    """One call, from its arrival until its last target has answered.

    A renewal has no client, and neither has what the controller itself orders: that has somebody who hears of
    each answer (None: the engine has ended).
    """

    client: Peer | None
    call: int
    seq: int
    waiting: set[int]
    blobs: list[str]
    targets: list[int] = field(default_factory=list)
    grace: float = -1.0
    mpi: int = 0
    trouble: Trouble | None = None
    hear: Callable[[Engine, m.Done | None], None] | None = None


@dataclass(slots=True)
class Client:
    """A connected client and its open calls."""

    peer: Peer
    local: bool
    hello: m.Hello
    works: dict[int, Work] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What the log calls it."""
        return f"client {self.hello.uid[:8]}"


class Calls:
    """All calls that have not been answered by all their targets.

    Args:
        roster: the engines.
        clients: the connected clients, each with its open calls; kept here.
        actions: takes what has to be done.
        grace: seconds until engines are released from MPI that wait for one on which a call failed.
        refusal: says of engines, and of the seconds that a call needs, why it is not begun ("": it is).

    Attributes:
        clients: see there.
        awaited: which engines wait for which definitions.
        of_clients: what to do with clients' messages.
        of_engines: what to do with engines' messages.
    """

    def __init__(
        self,
        roster: Roster,
        clients: dict[Peer, Client],
        actions: Actions,
        grace: float,
        refusal: Callable[[Sequence[int], float], str],
    ) -> None:
        self.failing = Failing(roster, actions, grace, self._number)
        self.clients = clients
        self._roster = roster
        self._actions = actions
        self._refusal = refusal
        self._seq = 0
        # Which definition an engine waits for: until when, and from which client.
        self.awaited: dict[tuple[Peer, bytes], tuple[float, Peer]] = {}
        self.of_clients: dict[type[Any], Callable[..., None]] = {
            m.Define: self.define,
            m.Call: self.call,
            m.Abort: self.abort,
        }
        self.of_engines: dict[type[Any], Callable[..., None]] = {
            m.Done: self.done,
            m.Print: self.print,
            m.Lacking: self.lacking,
        }
        self._silent: set[Peer] = set()  # clients that let an engine wait in vain

    def due(self) -> float | None:
        """Return when an engine has waited long enough, for a definition or in MPI, or None."""
        release = self.failing.due()
        if not self.awaited:
            return release
        given_up = min(until for until, _ in self.awaited.values())
        return given_up if release is None else min(given_up, release)

    def give_up_definitions(self, now: float) -> None:
        """Tell engines that waited long enough: a client that is stopped must not stop the others."""
        for (engine, digest), (until, client) in list(self.awaited.items()):
            if now >= until:
                del self.awaited[engine, digest]
                self._actions.send(engine, m.Given(digest, b""))
                if client in self.clients:
                    self._silent.add(client)

    def define(self, peer: Peer, define: m.Define, _frames: Sequence[Frame]) -> None:
        """Hand a definition on to the engines that are to have it."""
        self._silent.discard(peer)
        given = m.Given(define.digest, define.data)
        for target in dict.fromkeys(define.targets):
            if engine := self._roster.engines.get(target):
                self.awaited.pop((engine.peer, define.digest), None)
                self._actions.send(engine.peer, given)

    def call(self, peer: Peer, call: m.Call, frames: Sequence[Frame]) -> None:
        """Number a call and put it into every target's queue."""
        client = self.clients[peer]
        named = _expand(call.targets)
        targets = named if len(named) == 1 else list(dict.fromkeys(named))
        parts = call.parts
        if call.call in client.works:
            self._complain(client, f"sent another call {call.call} while that one is open: ignored")
            return
        if not targets or len(targets) != len(named) or len(parts) not in (1, len(targets)):
            self._complain(client, "sent a call whose targets and parts do not fit: ignored")
            self._fail(peer, call, targets[:MOST_TARGETS], "the call's targets and parts do not fit")
            return
        if len(targets) > MOST_TARGETS or len(client.works) >= MOST_OPEN:
            self._complain(client, "asks for more than a controller can take: ignored")
            self._fail(peer, call, targets[:MOST_TARGETS], "too many targets, or too many open calls")
            return
        if call.needs > 0 and (problem := self._refusal(targets, call.needs)):
            self._fail(peer, call, targets, problem, status="refused")
            return
        blobs = [part.blob for part in parts if part.blob]
        work = Work(peer, call.call, self._number(), set(targets), blobs, targets, call.grace)
        client.works[call.call] = work
        if len(parts) == 1:
            self._dispatch(client, work, targets, call, parts[0], frames)
        else:
            at = 0
            for part, target in zip(parts, targets, strict=True):
                self._dispatch(client, work, (target,), call, part, frames[at : at + part.nframes])
                at += part.nframes
        if not work.waiting:
            self._settle(work)

    def _number(self) -> int:
        self._seq += 1
        return self._seq

    def _dispatch(
        self,
        client: Client,
        work: Work,
        targets: Sequence[int],
        call: m.Call,
        part: m.Part,
        frames: Sequence[Frame],
    ) -> None:
        # The same message object for all: what goes to one node's agent is packed once.
        run = m.Run(work.seq, call.op, call.digest, part, False, call.targets)
        nearby: m.Run | None = None
        engines = self._roster.engines
        for target in targets:
            engine = engines.get(target)
            if engine is None:
                self._absent(client, work, target)
                continue
            engine.runs[work.seq] = work
            if client.local and engine.info.local:
                if nearby is None:
                    nearby = m.Run(work.seq, call.op, call.digest, part, True, call.targets)
                self._actions.send(engine.peer, nearby, frames)
            else:
                self._actions.send(engine.peer, run, frames)

    def _absent(self, client: Client, work: Work, target: int) -> None:
        work.waiting.discard(target)
        self.failing.went_wrong(work, None)
        self._actions.send(client.peer, _lost_result(work.call, target, self._roster.gone(target)))

    def order(
        self,
        engines: Sequence[Engine],
        op: str,
        data: bytes,
        hear: Callable[[Engine, m.Done | None], None],
    ) -> None:
        """Number a run of the controller's own, and put it into the queues of these engines."""
        ids = [engine.info.id for engine in engines]
        work = Work(None, 0, self._number(), set(ids), [], ids, hear=hear)
        run = m.Run(work.seq, op, b"", m.Part(data, [len(data)]), False, compact(ids))
        for engine in engines:
            engine.runs[work.seq] = work
            self._actions.send(engine.peer, run)

    def _fail(
        self, peer: Peer, call: m.Call, targets: Iterable[int], why: str, *, status: str = "lost"
    ) -> None:
        for target in targets:
            self._actions.send(peer, m.Result(call.call, target, status, m.Part(), err=why))
        for part in call.parts:
            self._actions.unlink(part.blob)

    def abort(self, peer: Peer, abort: m.Abort, _frames: Sequence[Frame]) -> None:
        """Have calls dropped where they have not started."""
        works = self.clients[peer].works
        chosen = (
            [works[c] for c in dict.fromkeys(abort.calls) if c in works] if abort.calls else [*works.values()]
        )
        self._drop(chosen, set(abort.targets), interrupt=abort.interrupt)

    def _drop(self, works: Iterable[Work], only: set[int], *, interrupt: bool = False) -> None:
        drops: dict[int, list[int]] = {}
        for work in works:
            for target in work.waiting & only if only else work.waiting:
                drops.setdefault(target, []).append(work.seq)
        for target, seqs in drops.items():
            if engine := self._roster.engines.get(target):
                self._actions.send(engine.peer, m.Drop(seqs, interrupt))

    def done(self, peer: Peer, done: m.Done, frames: Sequence[Frame]) -> None:
        """Hand an outcome on to the client."""
        engine = self._roster.by_peer(peer)
        work = engine.runs.get(done.seq) if engine else None
        if engine is None or work is None or (engine.leaving and self._is_cut_short(engine, work, done)):
            self._actions.unlink(done.part.blob)
            return
        del engine.runs[done.seq]
        engine.completed += 1
        work.waiting.discard(engine.info.id)
        if done.mpi:
            self.failing.communicated(work, engine, done.mpi)
        if done.status != "ok":
            self.failing.went_wrong(work, engine)
            if self.failing.renews(done.seq):
                self._actions.log(
                    f"engine {engine.info.id} could not renew its communicators after a failure"
                )
        if work.client in self.clients:
            result = m.Result(
                work.call,
                engine.info.id,
                done.status,
                done.part,
                done.started,
                done.completed,
                done.out,
                done.err,
            )
            self._actions.send(work.client, result, frames)
        else:
            self._actions.unlink(done.part.blob)
        if work.hear is not None:
            work.hear(engine, done)
        if not work.waiting:
            self._settle(work)
        if not engine.runs:
            for joint in self.failing.spares.free(engine):
                self.failing.watch(self._expect(joint))

    @staticmethod
    def _is_cut_short(engine: Engine, work: Work, done: m.Done) -> bool:
        """Say whether a call was interrupted because a job ends: that is told then."""
        ends = engine.leaving.startswith((BY_SCHEDULER, CONTROLLER_BY_SCHEDULER, CONTROLLER_ALONE))
        return ends and done.status != "ok" and work.hear is None

    def print(self, peer: Peer, text: m.Print, _frames: Sequence[Frame]) -> None:
        """Hand output on to the client whose call wrote it."""
        engine = self._roster.by_peer(peer)
        work = engine.runs.get(text.seq) if engine else None
        if engine is not None and work is not None and work.client in self.clients:
            self._actions.send(work.client, m.Output(work.call, engine.info.id, text.stream, text.text))

    def lacking(self, peer: Peer, lacking: m.Lacking, _frames: Sequence[Frame]) -> None:
        """Ask the client for a definition that the engine does not have any more.

        The engine can do nothing before it has it, or knows that it will not come. A client that let an
        engine wait in vain is not waited for again until it defines something.
        """
        engine = self._roster.by_peer(peer)
        work = engine.runs.get(lacking.seq) if engine else None
        client = work.client if work is not None else None
        if engine is not None and client in self.clients and client not in self._silent:
            self._actions.send(client, m.Missing(engine.info.id, lacking.digest))
            self.awaited.setdefault((peer, lacking.digest), (self._actions.now + DEFINITION_PATIENCE, client))
        else:
            self._actions.send(peer, m.Given(lacking.digest, b""))

    def _settle(self, work: Work) -> None:
        if work.waiting:
            return
        if client := self.clients.get(work.client):
            client.works.pop(work.call, None)
        for blob in work.blobs:
            self._actions.unlink(blob)
        for renewal in self.failing.settled(work) if work.trouble or work.mpi or not work.targets else ():
            self._expect(renewal)

    def _expect(self, joint: Joint) -> Work:
        """Engines were told to do something together: it is work, which has no targets."""
        work = Work(None, 0, joint.seq, {engine.info.id for engine in joint.engines}, [])
        for engine in joint.engines:
            engine.runs[joint.seq] = work
        return work

    # ------------------------------------------------------------ departures

    def client_left(self, peer: Peer) -> Client | None:
        """Forget a client: what it has queued does not start; what runs, runs to its end."""
        client = self.clients.pop(peer, None)
        self._silent.discard(peer)
        if client is not None:
            self._drop(client.works.values(), set())
        return client

    def engine_left(self, engine: Engine, gone: m.Gone) -> None:
        """Fail what an engine owes."""
        for work in list(engine.runs.values()):
            work.waiting.discard(gone.id)
            self.failing.went_wrong(work, engine)
            if work.client in self.clients:
                self._actions.send(work.client, _lost_result(work.call, gone.id, gone))
            if work.hear is not None:
                work.hear(engine, None)
            self._settle(work)
        engine.runs.clear()
        self.failing.spares.left(engine)

    def _complain(self, client: Client, text: str) -> None:
        self._actions.log(f"{client.name} {text}", complaint=True)


def _expand(targets: list[int]) -> list[int]:
    try:
        return expand(targets, MOST_TARGETS)
    except ValueError:
        return []


def _lost_result(call: int, target: int, gone: m.Gone) -> m.Result:
    return m.Result(call, target, "lost", m.Part(), out=gone.output, err=gone.cause)
