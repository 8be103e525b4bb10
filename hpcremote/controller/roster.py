"""Which engines there are: sets that come as a whole, ids, and how engines went. Pure.

A set is announced when rank 0 has registered it and every rank has joined over its own connection.
Its ids are ``base + rank``; see ``sets.py`` for the base. One that loses a rank before it is complete is
refused as a whole: the other ranks end as well, and say why.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hpcremote.controller import sets
from hpcremote.controller.events import Actions
from hpcremote.controller.misfits import Misfits
from hpcremote.controller.sets import Set
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame
from hpcremote.wire.messages import PROTOCOL

if TYPE_CHECKING:
    from hpcremote.controller.calls import Work

Peer = Hashable

#: What is said of a connection that ended when nobody knows why.
LOST = "connection lost"
#: Why engines leave who were told to end because their scheduler ends the job.
BY_SCHEDULER = "its job was ended by its scheduler"
CONTROLLER_BY_SCHEDULER = "the controller's job was ended by its scheduler"
CONTROLLER_ALONE = "the ranks of the controller's job have ended"
#: How one ends that its MPI launcher was told to end, or has ended because another one had.
BY_LAUNCHER = "its MPI launcher has ended it"
#: How many departed engines are remembered.
REMEMBERED = 10_000
#: Of how many of them a status tells.
TOLD = 20
#: How many sets are remembered none of whose ranks is connected; they may come back.
REMEMBERED_SETS = 1_000


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


class Roster:
    """All engines, and those that are on their way in or out."""

    def __init__(self, cluster_id: str, shm: str, actions: Actions) -> None:
        self.cluster_id = cluster_id
        self.shm = shm
        self.engines: dict[int, Engine] = {}
        self._newcomers: dict[Peer, Newcomer] = {}
        self._by_peer: dict[Peer, Engine] = {}
        self._sets: dict[str, Set] = {}
        self._gone: dict[int, m.Gone] = {}
        self._misfits = Misfits(self._sets, actions)

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

    def mates(self, set_id: str) -> list[Engine]:
        """Return the engines of a set that are here, by rank."""
        group = self._sets.get(set_id)
        if group is None or group.base is None:
            return []
        ids = range(group.base, group.base + group.size)
        return [engine for engine in map(self.engines.get, ids) if engine and engine.info.set_id == set_id]

    def group(self, set_id: str) -> Set | None:
        """Return a set that is remembered."""
        return self._sets.get(set_id)

    def _successor(self, set_id: str) -> str:
        """Return the set that registered in the place of this one and has no ids yet, or ""."""
        waits = (name for name, one in self._sets.items() if one.replaces == set_id and one.base is None)
        return next(waits, "")

    def squatters(self, group: Set) -> list[int]:
        """Return the living engines that have ids of *group* and are not of it."""
        ours = {member.uid for member in group.members.values()}
        here = (self.engines.get(number) for number in group.ids)
        return [engine.info.id for engine in here if engine is not None and engine.info.uid not in ours]

    @property
    def sets(self) -> Mapping[str, Set]:
        """The engine sets that are known, by name."""
        return self._sets

    def on_host(self, host: str) -> dict[Peer, str]:
        """Return the engines on a host, registered or not, and their uids."""
        found = {peer: engine.info.uid for peer, engine in self._by_peer.items() if engine.info.host == host}
        for peer, newcomer in self._newcomers.items():
            if newcomer.phase and newcomer.phase.host == host:
                found[peer] = newcomer.phase.uid
        return found

    def has(self, uid: str) -> bool:
        """Say whether an engine of this uid is here, registered or not."""
        registered = any(engine.info.uid == uid for engine in self._by_peer.values())
        return registered or any(new.phase and new.phase.uid == uid for new in self._newcomers.values())

    @property
    def empty(self) -> bool:
        """Whether no engine is connected."""
        return not (self._by_peer or self._newcomers)

    def peers(self) -> list[Peer]:
        """Return every engine's connection."""
        return [*self._by_peer, *self._newcomers]

    def infos(self) -> list[m.EngineInfo]:
        """Return the registered engines by id."""
        return [self.engines[key].info for key in sorted(self.engines)]

    def gone(self, engine: int) -> m.Gone:
        """Return how an engine went."""
        return self._gone.get(engine) or m.Gone(engine, "", f"there is no engine {engine} in this cluster")

    def progress(self) -> dict[str, object]:
        """Say how far starting engines are, which failed, how many are ready, and how others went."""
        phases = {"started": 0, "MPI_Init": 0, "joined": 0}
        for newcomer in self._newcomers.values():
            name = "joined" if newcomer.join else newcomer.phase.phase if newcomer.phase else "started"
            phases[name] = phases.get(name, 0) + 1
        ended = {str(gone.id): gone.cause for gone in list(self._gone.values())[-TOLD:]}
        return {
            "engines": len(self.engines),
            "starting": phases,
            "failed": list(self._misfits.rows),
            "ended": ended,
        }

    def cannot_stop(self, targets: list[int]) -> str:
        """Return why these engines cannot be ended without the others, or ""."""
        chosen = set(targets)
        looked_at: set[str] = set()
        for target in dict.fromkeys(targets):
            engine = self.engines.get(target)
            if engine is None:
                return f"there is no engine {target}"
            if engine.info.size <= 1 or engine.info.set_id in looked_at:
                continue
            looked_at.add(engine.info.set_id)
            mates = {e.info.id for e in self.engines.values() if e.info.set_id == engine.info.set_id}
            if left := mates - chosen:
                return (
                    f"engine {target} is one of the {engine.info.size} ranks of an MPI job, which cannot "
                    f"lose a rank: shut down engines {_span(mates)} together "
                    f"(these were left out: {_span(left)})"
                )
        return ""

    # ------------------------------------------------------------ coming

    def admit(self, peer: Peer, *, local: bool) -> None:
        """Take note of a connection that is an engine's."""
        self._newcomers[peer] = Newcomer(local)

    def phase(self, peer: Peer, phase: m.Phase, _frames: Sequence[Frame]) -> None:
        """Take note of how far a starting engine is."""
        if newcomer := self._newcomers.get(peer):
            newcomer.phase = phase

    def join(self, peer: Peer, join: m.Join) -> str:
        """Connect a rank with its set; return what is wrong with that, or ""."""
        newcomer = self._newcomers.get(peer)
        if newcomer is None or newcomer.join == join:
            return ""  # said again, because its connection was made anew just then
        if join.protocol != PROTOCOL:
            return (
                f"this controller speaks protocol {PROTOCOL}, the engine {join.protocol}: install one version"
            )
        if newcomer.join is not None or join.rank < 0:
            return "a connection is for one rank of one set"
        group = self._sets.get(join.set_id)
        if group is not None and group.doomed:
            return group.doomed
        if group is not None and group.base is not None and (problem := self._cannot_return(group, join)):
            return problem
        newcomer.join = join
        self._sets.setdefault(join.set_id, Set()).joined[join.rank] = peer
        return ""

    def _cannot_return(self, group: Set, join: m.Join) -> str:
        """Return why this rank cannot come back to a set that is complete, or ""."""
        member = group.members.get(join.rank)
        if member is None or member.uid != join.uid or group.base is None:
            return f"the set has no such rank {join.rank}"
        holder = self.engines.get(group.base + join.rank)
        if holder is not None and holder.info.set_id != join.set_id:
            return f"its connection broke, and engine id {holder.info.id} was given to another meanwhile"
        return ""

    def register(self, peer: Peer, register: m.Register) -> str:
        """Take in what rank 0 says of its set; return what is wrong with it, or ""."""
        engine = self._by_peer.get(peer)
        if engine is not None and engine.info.set_id == register.set_id:
            return ""  # said again, because its connection was made anew
        newcomer = self._newcomers.get(peer)
        join = newcomer.join if newcomer else None
        if join is None or join.set_id != register.set_id or join.rank != 0:
            return "a set is registered by its rank 0, after it joined"
        size, members = register.size, {member.rank: member for member in register.members}
        if not 0 < size == len(register.members) == len(members) or not all(
            0 <= rank < size for rank in members
        ):
            return f"a set of {size} has to name the ranks 0 to {size - 1}, each once"
        group = self._sets[register.set_id]
        if group.base is None:
            group.size, group.members = size, members
            group.mark, group.job = register.mark, register.job_key
            group.replaces = register.replaces or sets.former(self._sets, register.job_key)
            self._misfits.examine(group)
        return group.doomed

    def complete(self, set_id: str, rank: int = 0) -> list[Engine]:
        """Make engines of a set whose ranks are all here, or of a *rank* that is back; return them."""
        group = self._sets.get(set_id)
        if group is None:
            return []
        if not group.joined and (successor := self._successor(set_id)):
            return self.complete(successor)
        if group.base is not None:
            back = group.base + rank not in self.engines and self._is_here(group, rank)
            return [self._enlist(set_id, group, rank)] if back else []
        # Asked at every rank that joins: all are looked at only when there are enough.
        if not group.size or len(group.joined) < group.size:
            return []
        here = [rank for rank in group.members if self._is_here(group, rank)]
        if len(here) < group.size or (group.replaces and self.mates(group.replaces)):
            return []  # those in whose place it comes are about to be seen to end
        group.base = sets.choose_base(self._sets, self.engines, group)
        self._sets.pop(group.replaces, None)
        return [self._enlist(set_id, group, rank) for rank in sorted(here)]

    def _is_here(self, group: Set, rank: int) -> bool:
        """Say whether that very rank is connected, and not an engine yet."""
        member = group.members.get(rank)
        newcomer = self._newcomers.get(group.joined.get(rank))
        join = newcomer.join if newcomer else None
        return bool(member and join and join.uid == member.uid)

    def _enlist(self, set_id: str, group: Set, rank: int) -> Engine:
        peer = group.joined[rank]
        member = group.members[rank]
        newcomer = self._newcomers.pop(peer)
        assert group.base is not None  # noqa: S101 - complete() sees to it
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

    def leaving(self, peer: Peer, cause: str, all_at: float | None = None) -> None:
        """An engine said that it ends, and why; *all_at*: when, if it ends its set (others may be first)."""
        if engine := self._by_peer.get(peer):
            engine.leaving = engine.leaving or cause
            if all_at is not None and (group := self._sets.get(engine.info.set_id)):
                group.first_death = all_at, m.Gone(engine.info.id, engine.info.uid, engine.leaving)
        elif newcomer := self._newcomers.pop(peer, None):
            self._fail(peer, newcomer, cause)

    def lose(self, peer: Peer, cause: str, output: str, now: float) -> tuple[Engine | None, m.Gone | None]:
        """Forget the engine behind *peer*; return it and what is known of its end."""
        if newcomer := self._newcomers.pop(peer, None):
            self._fail(peer, newcomer, cause or LOST)
        engine = self._by_peer.pop(peer, None)
        if engine is None:
            return None, None
        self.engines.pop(engine.info.id, None)
        gone = m.Gone(engine.info.id, engine.info.uid, self._cause(engine, cause, now), output)
        group = self._sets.get(engine.info.set_id)
        if group is not None:
            group.first_death = group.first_death or (now, gone)
            group.lingers = group.lingers or not (engine.info.local or engine.leaving or cause)
        self._gone[gone.id] = gone
        if len(self._gone) > REMEMBERED:
            self._gone.pop(next(iter(self._gone)))
        self._disconnect(engine.info.set_id, engine.info.rank if engine.info.rank >= 0 else 0, peer)
        return engine, gone

    def _cause(self, engine: Engine, cause: str, now: float) -> str:
        words = engine.leaving or cause or "its connection was lost (killed, or its host or network failed)"
        group = self._sets.get(engine.info.set_id)
        knows = engine.leaving and not engine.leaving.startswith(BY_LAUNCHER)
        return words if group is None or knows else sets.in_context(group, words, now)

    def _fail(self, peer: Peer, newcomer: Newcomer, cause: str) -> None:
        join = newcomer.join
        if join:
            self._disconnect(join.set_id, join.rank, peer)
        surely = newcomer.local or cause != LOST
        self._misfits.ended(newcomer.phase, cause, joined=join is not None, surely=surely)

    def _disconnect(self, set_id: str, rank: int, peer: Peer) -> None:
        """Take a rank's connection out of its set, unless the rank is back over another one."""
        group = self._sets.get(set_id)
        if group is None or group.joined.get(rank) != peer:
            return
        del group.joined[rank]
        if group.joined:
            return
        if group.base is None:
            del self._sets[set_id]
        elif len(self._sets) > REMEMBERED_SETS:
            oldest = next(name for name, old in self._sets.items() if not old.joined)
            del self._sets[oldest]


def _span(ids: set[int]) -> str:
    ordered = sorted(ids)
    if len(ordered) > 2 and ordered[-1] - ordered[0] == len(ordered) - 1:
        return f"{ordered[0]} to {ordered[-1]}"
    return ", ".join(map(str, ordered[:20])) + (" ..." if len(ordered) > 20 else "")


def bereft(roster: Roster, engine: Engine, cause: str) -> list[Engine]:
    """Return the mates that have to know of an engine's end: of the first that surely ended, unasked.

    One whose connection was lost may be back.
    """
    group = roster.group(engine.info.set_id)
    surely = engine.info.local or cause
    if group is None or group.bereft or engine.leaving or not surely:
        return []
    group.bereft = True
    return roster.mates(engine.info.set_id)
