"""Engines that end before they are any, and sets that can never be complete because of that. Pure.

A rank that is lost while its set comes together would leave the others waiting. They are refused with the
reason as soon as it is known: when the connection of a process on this machine ends, when a rank says why it
leaves, or when an agent tells how one elsewhere has ended. A connection from elsewhere that merely breaks may
come back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from hpcremote.controller.events import Actions
from hpcremote.controller.sets import Set
from hpcremote.wire import messages as m

#: Of how many starting ranks that have ended a status tells, and of how many it is remembered how they did.
_TOLD, _REMEMBERED = 100, 10_000


class Misfits:
    """What went wrong with engines that were starting.

    Args:
        sets: all engine sets.
        actions: takes what has to be done.

    Attributes:
        rows: the last of them, for a status.
    """

    def __init__(self, sets: Mapping[str, Set], actions: Actions) -> None:
        self.rows: deque[dict[str, object]] = deque(maxlen=_TOLD)
        self._sets = sets
        self._actions = actions
        self._causes: dict[str, str] = {}  # by uid

    def ended(self, phase: m.Phase | None, cause: str, *, joined: bool, surely: bool) -> None:
        """A starting engine has ended, *surely* or as far as its connection tells."""
        row: dict[str, object] = {"cause": cause, "phase": "joined" if joined else "started"}
        if phase:
            row.update(host=phase.host, pid=phase.pid)
            row["phase"] = "joined" if joined else phase.phase
        self.rows.append(row)
        who = f" on {phase.host} (pid {phase.pid})" if phase else ""
        self._actions.log(f"an engine{who} failed in phase {row['phase']}: {cause}", complaint=True)
        if phase and surely:
            self._causes[phase.uid] = cause
            if len(self._causes) > _REMEMBERED:
                self._causes.pop(next(iter(self._causes)))
            for group in self._sets.values():
                self.examine(group)

    def examine(self, group: Set) -> None:
        """Refuse a set if one of its ranks has ended before it was complete."""
        if group.base is not None or group.doomed:
            return
        lost = next((one for one in group.members.values() if one.uid in self._causes), None)
        if lost is None:
            return
        group.doomed = (
            f"rank {lost.rank} of its MPI job (pid {lost.pid} on {lost.host}) ended before all {group.size} "
            f"ranks had registered: {self._causes[lost.uid]}. Without it the others are of no use: start the "
            "job again"
        )
        for peer in group.joined.values():
            self._actions.send(peer, m.Refused(group.doomed))
