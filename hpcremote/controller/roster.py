"""Which engines there are: sets that come as a whole, ids, and how engines went. Pure.

A set is announced when rank 0 has registered it and every rank has joined over its own connection.
Its ids are ``base + rank``; ``base`` is the lowest number above all living engines, so the first set,
and a set that follows one that died, has ids equal to ranks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpcremote.wire import messages as m
from hpcremote.wire.messages import PROTOCOL

if TYPE_CHECKING:
    from hpcremote.controller.machine import Work

Peer = Hashable

#: Ranks of a set that die this many seconds after another one were most likely ended by their launcher.
AFTERMATH = 10.0
#: How many departed engines are remembered.
REMEMBERED = 10_000


@dataclass(slots=True)
class Engine:
    """A registered engine."""

    info: m.EngineInfo
    peer: Peer
    runs: dict[int, Work] = field(default_factory=dict)
    completed: int = 0
    leaving: str = ""


@dataclass(slots=True)
class Newcomer:
    """A connection that says it is an engine."""

    local: bool
    phase: m.Phase | None = None
    join: m.Join | None = None


@dataclass(slots=True)
class Set:
    """An engine set: one MPI job, or one engine without MPI."""

    size: int = 0
    members: dict[int, m.Member] = field(default_factory=dict)
    joined: dict[int, Peer] = field(default_factory=dict)
    base: int | None = None
    first_death: tuple[float, m.Gone] | None = None


class Roster:
    """All engines, and those that are on their way in or out."""

    def __init__(self, cluster_id: str, shm: str) -> None:
        self.cluster_id = cluster_id
        self.shm = shm
        self.engines: dict[int, Engine] = {}
        self._newcomers: dict[Peer, Newcomer] = {}
        self._by_peer: dict[Peer, Engine] = {}
        self._sets: dict[str, Set] = {}
        self._gone: dict[int, m.Gone] = {}
        self._failed: deque[dict[str, object]] = deque(maxlen=100)

    # ------------------------------------------------------------ questions

    def knows(self, peer: Peer) -> bool:
        """Say whether *peer* is an engine, registered or not yet."""
        return peer in self._by_peer or peer in self._newcomers

    def by_peer(self, peer: Peer) -> Engine | None:
        """Return the registered engine behind *peer*."""
        return self._by_peer.get(peer)

    def uid_of(self, peer: Peer) -> str:
        """Return the uid of the engine behind *peer*, registered or not, or ""."""
        if engine := self._by_peer.get(peer):
            return engine.info.uid
        newcomer = self._newcomers.get(peer)
        return newcomer.phase.uid if newcomer and newcomer.phase else ""

    def peers(self) -> list[Peer]:
        """Return every engine's connection."""
        return [*self._by_peer, *self._newcomers]

    def infos(self) -> list[m.EngineInfo]:
        """Return the registered engines by id."""
        return [self.engines[key].info for key in sorted(self.engines)]

    def gone(self, engine: int) -> m.Gone:
        """Return how an engine went."""
        return self._gone.get(engine) or m.Gone(engine, "", f"there is no engine {engine} in this cluster")

    def queue_status(self) -> dict[str, object]:
        """Count what each engine has to do, and has done."""
        rows = {
            str(key): {"queue": len(engine.runs), "completed": engine.completed, "tasks": 0}
            for key, engine in sorted(self.engines.items())
        }
        return {"engines": rows, "unassigned": 0}

    def progress(self) -> dict[str, object]:
        """Say how far starting engines are, which failed, and how many are ready."""
        phases = {"started": 0, "MPI_Init": 0, "joined": 0}
        for newcomer in self._newcomers.values():
            name = "joined" if newcomer.join else newcomer.phase.phase if newcomer.phase else "started"
            phases[name] = phases.get(name, 0) + 1
        return {"engines": len(self.engines), "starting": phases, "failed": list(self._failed)}

    def cannot_stop(self, targets: list[int]) -> str:
        """Return why these engines cannot be ended without the others, or ""."""
        chosen = set(targets)
        for target in targets:
            engine = self.engines.get(target)
            if engine is None:
                return f"there is no engine {target}"
            if engine.info.size <= 1:
                continue
            mates = {e.info.id for e in self.engines.values() if e.info.set_id == engine.info.set_id}
            if left := mates - chosen:
                return (
                    f"engine {target} is one of the {engine.info.size} ranks of an MPI job, which cannot lose a rank: "
                    f"shut down engines {_span(mates)} together (these were left out: {_span(left)})"
                )
        return ""

    # ------------------------------------------------------------ coming

    def admit(self, peer: Peer, *, local: bool) -> None:
        """Take note of a connection that is an engine's."""
        self._newcomers[peer] = Newcomer(local)

    def phase(self, peer: Peer, phase: m.Phase) -> None:
        """Take note of how far a starting engine is."""
        if newcomer := self._newcomers.get(peer):
            newcomer.phase = phase

    def join(self, peer: Peer, join: m.Join) -> list[Engine]:
        """Connect a rank with its set; return the engines of the set if that made it whole."""
        newcomer = self._newcomers.get(peer)
        if newcomer is None or join.protocol != PROTOCOL:
            return []
        newcomer.join = join
        group = self._sets.setdefault(join.set_id, Set())
        group.joined[join.rank] = peer
        if group.base is not None:
            return self._revive(group, join, peer)
        return self.complete(join.set_id)

    def register(self, peer: Peer, register: m.Register) -> str:
        """Take in what rank 0 says of its set; return what is wrong with it, or ""."""
        newcomer = self._newcomers.get(peer)
        if newcomer is None or newcomer.join is None or newcomer.join.set_id != register.set_id:
            return "a set is registered by its rank 0, after it joined"
        if sorted(member.rank for member in register.members) != list(range(register.size)):
            return f"a set of {register.size} has to name the ranks 0 to {register.size - 1}, each once"
        group = self._sets.setdefault(register.set_id, Set())
        group.size = register.size
        group.members = {member.rank: member for member in register.members}
        return ""

    def complete(self, set_id: str) -> list[Engine]:
        """Make engines of a set whose ranks are all here; return them, or nothing."""
        group = self._sets[set_id]
        if group.base is not None or not group.size or len(group.joined) < group.size:
            return []
        group.base = max(self.engines, default=-1) + 1
        return [self._enlist(set_id, group, rank) for rank in range(group.size)]

    def _revive(self, group: Set, join: m.Join, peer: Peer) -> list[Engine]:
        """A rank whose connection broke is back under its id."""
        member = group.members.get(join.rank)
        if member is None or group.base is None or group.base + join.rank in self.engines:
            return []
        return [self._enlist(join.set_id, group, join.rank)]

    def _enlist(self, set_id: str, group: Set, rank: int) -> Engine:
        peer = group.joined[rank]
        member = group.members[rank]
        newcomer = self._newcomers.pop(peer)
        assert group.base is not None  # noqa: S101 - complete() and _revive() see to it
        info = m.EngineInfo(
            id=group.base + rank,
            uid=member.uid,
            set_id=set_id,
            rank=rank if group.size > 1 or member.mpi else -1,
            size=group.size,
            host=member.host,
            pid=member.pid,
            local=newcomer.local,
            python=member.python,
            version=member.version,
            mpi=member.mpi,
            cores=member.cores,
        )
        engine = Engine(info, peer)
        self.engines[info.id] = engine
        self._by_peer[peer] = engine
        self._gone.pop(info.id, None)
        return engine

    # ------------------------------------------------------------ going

    def leaving(self, peer: Peer, cause: str) -> None:
        """An engine said that it ends, and why."""
        if engine := self._by_peer.get(peer):
            engine.leaving = cause
        elif newcomer := self._newcomers.pop(peer, None):
            self._fail(newcomer, cause)

    def lose(self, peer: Peer, cause: str, output: str, now: float) -> tuple[Engine | None, m.Gone | None]:
        """Forget the engine behind *peer*; return it and what is known of its end."""
        if newcomer := self._newcomers.pop(peer, None):
            self._fail(newcomer, cause or "connection lost")
        engine = self._by_peer.pop(peer, None)
        if engine is None:
            return None, None
        self.engines.pop(engine.info.id, None)
        gone = m.Gone(engine.info.id, engine.info.uid, self._cause(engine, cause, now), output)
        group = self._sets[engine.info.set_id]
        if group.first_death is None:
            group.first_death = (now, gone)
        self._gone[gone.id] = gone
        if len(self._gone) > REMEMBERED:
            self._gone.pop(next(iter(self._gone)))
        self._forget_set(engine.info.set_id)
        return engine, gone

    def _cause(self, engine: Engine, cause: str, now: float) -> str:
        words = engine.leaving or cause or "its connection was lost (killed, or its host or network failed)"
        first = self._sets[engine.info.set_id].first_death
        if first and not engine.leaving and now - first[0] < AFTERMATH:
            return f"{words}, after engine {first[1].id} of the same MPI job: {first[1].cause}"
        return words

    def _fail(self, newcomer: Newcomer, cause: str) -> None:
        phase = newcomer.phase
        row: dict[str, object] = {"cause": cause, "phase": "joined" if newcomer.join else "started"}
        if phase:
            row.update(host=phase.host, pid=phase.pid)
            row["phase"] = "joined" if newcomer.join else phase.phase
        self._failed.append(row)
        if newcomer.join:
            self._sets[newcomer.join.set_id].joined.pop(newcomer.join.rank, None)

    def _forget_set(self, set_id: str) -> None:
        """A set none of whose ranks is here any more cannot come back whole."""
        if not any(engine.info.set_id == set_id for engine in self.engines.values()):
            self._sets[set_id].joined.clear()


def _span(ids: set[int]) -> str:
    ordered = sorted(ids)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered[:20])) + (" ..." if len(ordered) > 20 else "")
