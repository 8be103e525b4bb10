"""The node agent's rules: whom it watches, what it says about them. No I/O, no clock.

::

    ranks announced ─▶ found() ─┐
    a process ended ─▶ ended() ─┼─▶ messages to the controller
    signal sent ─▶ signalled() ─┤
    /proc looked at ─▶ states() ┘
    connection made anew ─▶ introduction()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hpcremote.wire import messages as m

#: States of a process that are worth saying: it is stopped, or traced, or hangs in the kernel.
ODD = {"T": "T", "t": "T", "D": "D"}


class Agent:
    """The state of one node agent."""

    def __init__(self, host: str, pid: int) -> None:
        self._host = host
        self._pid = pid
        self._watched: dict[str, str] = {}  # uid → the odd state that was said of it
        self._last: dict[str, str] = {}  # uid → the odd state that was seen last
        self._had_any = False

    @property
    def done(self) -> bool:
        """Whether all ranks have come and gone."""
        return self._had_any and not self._watched

    def found(self, uids: Iterable[str]) -> list[m.AnyMessage]:
        """Ranks are watched from now on."""
        new = [uid for uid in uids if uid not in self._watched]
        if not new:
            return []
        self._had_any = True
        self._watched.update(dict.fromkeys(new, ""))
        return [m.Attend(self._host, self._pid, m.PROTOCOL, new)]

    def introduction(self) -> list[m.AnyMessage]:
        """Return what a controller has to know that is new to us."""
        said: list[m.AnyMessage] = [m.Attend(self._host, self._pid, m.PROTOCOL, list(self._watched))]
        return said + [m.Noticed(uid, state) for uid, state in self._watched.items() if state]

    def ended(self, uid: str, cause: str, output: str) -> list[m.AnyMessage]:
        """A rank's process ended."""
        self._last.pop(uid, None)
        if self._watched.pop(uid, None) is None:
            return []
        return [m.Exited(uid, cause, output)]

    def signalled(self, number: int, job: str, jobs: Mapping[str, str]) -> list[m.AnyMessage]:
        """The agent was sent a signal, in a batch *job*: so were the ranks in it, not those in others."""
        return [m.Warned([uid for uid in self._watched if jobs.get(uid) == job], number)]

    def states(self, seen: Mapping[str, str]) -> list[m.AnyMessage]:
        """Take in the kernel's letters for the ranks' states; what is odd twice running is said, once."""
        said: list[m.AnyMessage] = []
        for uid, letter in seen.items():
            state = ODD.get(letter, "")
            if uid in self._watched and self._last.get(uid, "") == state != self._watched[uid]:
                self._watched[uid] = state
                said.append(m.Noticed(uid, state))
            self._last[uid] = state
        return said
