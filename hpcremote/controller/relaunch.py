"""Restarts of engine sets are done in threads, so that the controller's loop goes on meanwhile.

::

    Relaunch ──start()──▶ thread ── relaunch(order, there) ──▶ Relaunched ──wake──▶ the loop, ended()
    Back ─────back()────────▶ there.set()

What really starts processes is handed in: the controller does not know how.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from hpcremote.controller.events import Back, Relaunch, Relaunched
from hpcremote.errors import HPCRemoteError, LaunchError

_log = logging.getLogger("hpcremote.controller")

#: Gets ready, before the engines are told to end, and returns what does it: ends what is left of a set,
#: starts it again, and returns when ``there`` is set; raises if it cannot.
Relauncher = Callable[[Relaunch, threading.Event], Callable[[], None]]


class Relaunches:
    """The restarts under way.

    Args:
        relauncher: does one, in a thread of ours; None where nobody can.
        wake: makes the loop turn; called by that thread.
    """

    def __init__(self, relauncher: Relauncher | None, wake: Callable[[], object]) -> None:
        self._relauncher = relauncher
        self._wake = wake
        self._there: dict[str, threading.Event] = {}
        self._ended: deque[Relaunched] = deque()

    def start(self, order: Relaunch) -> None:
        """Begin one."""
        there = self._there[order.set_id] = threading.Event()
        work: Callable[[], None] = _by_hand
        if self._relauncher is not None:
            try:
                work = self._relauncher(order, there)
            except (HPCRemoteError, OSError) as error:
                self._ended.append(Relaunched(order.set_id, str(error)))
                self._wake()
                return
        threading.Thread(target=self._work, args=(order, work), name="relaunch", daemon=True).start()

    def back(self, news: Back) -> None:
        """The set is there again."""
        if there := self._there.get(news.set_id):
            there.set()

    def ended(self) -> list[Relaunched]:
        """Return those that have ended since the last time."""
        ended = []
        while self._ended:
            ended.append(self._ended.popleft())
            self._there.pop(ended[-1].set_id, None)
        return ended

    def _work(self, order: Relaunch, work: Callable[[], None]) -> None:
        error = ""
        try:
            work()
        except (HPCRemoteError, OSError) as reason:
            error = str(reason)
        except Exception as reason:  # noqa: BLE001 - told to who asked, and logged
            _log.exception("an engine set could not be restarted")
            error = f"{type(reason).__name__}: {reason}"
        self._ended.append(Relaunched(order.set_id, error))
        self._wake()


def _by_hand() -> None:
    raise LaunchError("this controller was started by hand, and so cannot restart engines")
