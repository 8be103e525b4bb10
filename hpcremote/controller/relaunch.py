"""Restarts of engine sets are done in threads, so that the controller's loop goes on meanwhile.

::

    Relaunch ──start()──▶ relaunch(order, there) gets ready ──▶ Prepared ──wake──▶ the loop, news()
                              └──▶ thread ── what it returned ──▶ Relaunched ──wake──▶ the loop, news()
    Back ─────back()────────▶ there.set()

What really starts processes is handed in: the controller does not know how.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from hpcremote.controller.events import Back, Prepared, Relaunch, Relaunched
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
        self._news: deque[Prepared | Relaunched] = deque()

    def start(self, order: Relaunch) -> None:
        """Begin one."""
        there = self._there[order.set_id] = threading.Event()
        relauncher = self._relauncher or _by_hand
        try:
            work = relauncher(order, there)
        except Exception as error:  # noqa: BLE001 - told to who asked, and the controller lives on
            self._tell(Relaunched(order.set_id, _said(error)))
            return
        self._tell(Prepared(order.set_id))
        threading.Thread(target=self._work, args=(order, work), name="relaunch", daemon=True).start()

    def back(self, news: Back) -> None:
        """The set is there again."""
        if there := self._there.get(news.set_id):
            there.set()

    def news(self) -> list[Prepared | Relaunched]:
        """Return what has happened since the last time."""
        news: list[Prepared | Relaunched] = []
        while self._news:
            one = self._news.popleft()
            if isinstance(one, Relaunched):
                self._there.pop(one.set_id, None)
            news.append(one)
        return news

    def _work(self, order: Relaunch, work: Callable[[], None]) -> None:
        error = ""
        try:
            work()
        except Exception as reason:  # noqa: BLE001 - told to who asked
            error = _said(reason)
        self._tell(Relaunched(order.set_id, error))

    def _tell(self, news: Prepared | Relaunched) -> None:
        self._news.append(news)
        self._wake()


def _said(error: Exception) -> str:
    """Return an error's sentence; one that nobody foresaw is logged, too."""
    if isinstance(error, (HPCRemoteError, OSError)):
        return str(error)
    _log.error("an engine set could not be restarted", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _by_hand(_order: Relaunch, _there: threading.Event) -> NoReturn:
    raise LaunchError("this controller was started by hand, and so cannot restart engines")
