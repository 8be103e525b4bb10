"""Engine sets that are started again under their ids. Pure.

::

    client ──Restart──▶ restart() ──Relaunch──▶ (the shell gets ready, and has it done, in a thread)
    it is ready ──Prepared──▶ prepared() ──Stop──▶ what is left of the set
    the new set registers ──▶ announced() ──Back──▶ (that thread has what it waited for)
    the thread ends ──Relaunched──▶ relaunched() ──Answer──▶ everybody who asked

The ids stay reserved meanwhile. Who starts processes is none of our business: see ``relaunch.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from hpcremote.controller.events import Actions, Back, Peer, Prepared, Relaunch, Relaunched
from hpcremote.controller.roster import Roster
from hpcremote.controller.sets import Set
from hpcremote.wire import messages as m
from hpcremote.wire.frames import Frame

#: How an engine ends whose set is restarted: what its pending calls say.
RESTARTED = "its set was restarted"


class Restarting:
    """The restarts that are under way.

    Args:
        roster: the engines.
        actions: takes what has to be done.

    Attributes:
        ending: why the cluster ends, if it does.
    """

    def __init__(self, roster: Roster, actions: Actions) -> None:
        self._roster = roster
        self._actions = actions
        self.ending = ""
        self._open: dict[str, list[tuple[Peer, int]]] = {}

    def restart(self, peer: Peer, restart: m.Restart, _frames: Sequence[Frame]) -> None:
        """Have a set restarted; who asks while that is under way gets the same answer."""
        waiting = self._open.get(restart.set_id)
        if waiting is not None:
            waiting.append((peer, restart.request))
            return
        group = self._roster.group(restart.set_id)
        if problem := self._problem(restart, group):
            self._actions.send(peer, m.Answer(restart.request, "", problem))
            return
        assert group is not None  # noqa: S101 - that would have been the problem
        self._open[restart.set_id] = [(peer, restart.request)]
        group.restarting = True
        members = tuple((member.host, member.pid) for member in group.members.values())
        self._actions.log(f"{group} is to be restarted")
        self._actions.relaunch(
            Relaunch(restart.set_id, group.mark, group.size, members, restart.timeout, group.job)
        )

    def prepared(self, news: Prepared) -> None:
        """A set can be started again: what is left of it ends."""
        for engine in self._roster.mates(news.set_id):
            engine.leaving = RESTARTED
            self._actions.send(engine.peer, m.Stop(RESTARTED))

    def _problem(self, restart: m.Restart, group: Set | None) -> str:
        if self.ending:
            return f"the cluster is ending: {self.ending}"
        if group is None or group.base is None:
            return "there is no such engine set (any more): see Client.engine_sets"
        if not group.mark:
            return (
                f"{group} was started by hand, so that nobody here knows how: start it again by the same "
                "command. As many ranks on the same hosts get the same ids"
            )
        if others := self._roster.squatters(group):
            ids = ", ".join(map(str, others[:8]))
            return f"{group} ended, and its ids went to another set meanwhile ({ids})"
        return ""

    def announced(self, set_id: str) -> None:
        """A set has registered."""
        group = self._roster.group(set_id)
        if group is not None and group.replaces in self._open:
            self._actions.back(Back(group.replaces))

    def relaunched(self, outcome: Relaunched) -> None:
        """A restart has come to its end."""
        group = self._roster.group(outcome.set_id)
        if group is not None:
            group.restarting = False
        if outcome.error:
            self._actions.log(f"the restart of an engine set failed: {outcome.error}")
        for peer, request in self._open.pop(outcome.set_id, ()):
            self._actions.send(peer, m.Answer(request, "" if outcome.error else "true", outcome.error))
