"""Engine sets: which ids they have, and which ids one gets that comes in the place of another. Pure.

A set's ids are ``base + rank``. ``base`` is

* for one that hpcremote starts in the place of another, or that a job brings which ran before: that one's;
* for one that resembles a set that has ended (as many ranks on the same hosts), whose ids are free: that
  one's, so that a set which is started by hand once more comes back under its ids;
* else the lowest number above all living engines.

The first set, and one that follows one that died, has ids equal to ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from hpcremote.wire import messages as m

Peer = Hashable

#: Ranks of a set that die this many seconds after another one were most likely ended by their launcher.
AFTERMATH = 10.0
_KILLED = "killed by SIGKILL"


@dataclass(slots=True)
class Set:
    """An engine set: one MPI job, or one engine without MPI.

    Attributes:
        first_death: when the first of its engines ended, or said that it ends them all, and how.
        in_its_wake: it is known that the others ended because that one had.
        mark: what its processes carry in their environment if hpcremote started them.
        replaces: the set in whose place it was started.
        job: which of the cluster's jobs it belongs to, if a batch system runs it.
        restarting: its ids are kept for the set that will replace it.
        bereft: its engines know that one of them has ended unasked.
        lingers: some connection was lost of which nobody knows whether its process has ended.
        doomed: why it will never be complete.
    """

    size: int = 0
    members: dict[int, m.Member] = field(default_factory=dict)
    joined: dict[int, Peer] = field(default_factory=dict)
    base: int | None = None
    first_death: tuple[float, m.Gone] | None = None
    in_its_wake: bool = False
    mark: str = ""
    replaces: str = ""
    job: str = ""
    restarting: bool = False
    bereft: bool = False
    lingers: bool = False
    doomed: str = ""

    @property
    def ids(self) -> range:
        """The ids of its engines, whether they live or not."""
        return range(0) if self.base is None else range(self.base, self.base + self.size)

    @property
    def hosts(self) -> dict[str, int]:
        """How many ranks were on each host."""
        return dict(Counter(member.host for member in self.members.values()))

    def __str__(self) -> str:
        if self.size == 1:
            return f"the set of engine {self.base}"
        return f"the set of engines {self.ids[0]} to {self.ids[-1]}"


def in_context(group: Set, words: str, now: float) -> str:
    """Return how an engine ended, with the first one of its set to end if that may be why."""
    first = group.first_death
    if first is None or now - first[0] >= AFTERMATH:
        return words
    if not group.in_its_wake and _may_be_alike(group, first, words, now):
        return words
    own, _, common = words.partition("; ")
    if common and first[1].cause.endswith(f"; {common}"):  # how their job ended
        words = own
    return f"{words}, after engine {first[1].id} of the same MPI job: {first[1].cause}"


def _may_be_alike(group: Set, first: tuple[float, m.Gone], words: str, now: float) -> bool:
    """Say whether both may have been ended by the same hand: a scheduler kills all, one after the other."""
    if group.job and first[1].cause.startswith(_KILLED) and words.startswith(_KILLED):
        return True
    return first[1].cause == words and (first[0] == now or bool(group.job))


def jobs(sets: Mapping[str, Set]) -> dict[str, str]:
    """Return the job that has brought each set. Ids would not tell: sets that have ended had the same."""
    return {name: one.job for name, one in sets.items() if one.job}


def marks(sets: Mapping[str, Set]) -> dict[str, str]:
    """Return what the processes of each set carry."""
    return {name: one.mark for name, one in sets.items() if one.mark}


def former(sets: Mapping[str, Set], job: str) -> str:
    """Return the set that the same job brought when it ran before (it was queued again), or ""."""
    same = [name for name, one in sets.items() if job and one.job == job and one.base is not None]
    return same[-1] if same else ""


def choose_base(sets: Mapping[str, Set], living: Mapping[int, object], group: Set) -> int:
    """Return the id for rank 0 of a set that is complete."""
    former = sets.get(group.replaces) if group.replaces else _likeness(sets, living, group)
    fits = former is not None and former.size == group.size
    if fits and former and former.base is not None and not any(one in living for one in former.ids):
        return former.base
    kept = (one.ids[-1] for one in sets.values() if one.restarting and one.ids)
    return max(max(living, default=-1), max(kept, default=-1)) + 1


def _likeness(sets: Mapping[str, Set], living: Mapping[int, object], group: Set) -> Set | None:
    """Return the set that has ended and that this one resembles, the one with the lowest ids."""
    hosts = group.hosts
    found = [
        one
        for one in sets.values()
        if one.base is not None
        and one.size == group.size
        and not (one.joined or one.restarting or one.lingers)
    ]
    for one in sorted(found, key=lambda one: one.ids[0]):
        if one.hosts == hosts and not any(number in living for number in one.ids):
            return one
    return None


def ended(sets: Mapping[str, Set], living: Mapping[int, object]) -> list[dict[str, object]]:
    """Return the sets that have ended and whose ids are free, by base; of several with one id the last."""
    taken = set(living)
    rows: list[dict[str, object]] = []
    for set_id, group in reversed(list(sets.items())):
        if group.base is None or taken.intersection(group.ids):
            continue
        taken.update(group.ids)
        death = group.first_death
        rows.append(
            {
                "set": set_id,
                "base": group.base,
                "size": group.size,
                "hosts": list(group.hosts),
                "mpi": next((member.mpi for member in group.members.values()), ""),
                "cause": f"engine {death[1].id}: {death[1].cause}" if death else "its connections were lost",
                "by_hand": not group.mark,
                "restarting": group.restarting,
            }
        )
    return sorted(rows, key=lambda row: int(str(row["base"])))
