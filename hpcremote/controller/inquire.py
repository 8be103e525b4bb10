"""What became of a job is asked in a thread, so that the controller's loop goes on meanwhile.

Who knows how to ask a batch system is handed in: the controller does not.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from hpcremote.controller.events import Inquire, Inquired
from hpcremote.errors import HPCRemoteError

_log = logging.getLogger("hpcremote.controller")

#: Returns in words how a job ended, or nothing if it has not, and which of its ranks ended first (``RANK`` or
#: ``PID@HOST``, or nothing); is told whether its time is over.
Inquirer = Callable[[str, bool], tuple[str, str]]


class Inquiries:
    """The questions under way.

    Args:
        inquirer: answers one, in a thread of ours; None where nobody can.
        wake: makes the loop turn; called by that thread.
    """

    def __init__(self, inquirer: Inquirer | None, wake: Callable[[], object]) -> None:
        self._inquirer = inquirer
        self._wake = wake
        self._ended: deque[Inquired] = deque()

    def start(self, order: Inquire) -> None:
        """Begin one."""
        threading.Thread(target=self._work, args=(order,), name="inquire", daemon=True).start()

    def ended(self) -> list[Inquired]:
        """Return the answers since the last time."""
        return [self._ended.popleft() for _ in range(len(self._ended))]

    def _work(self, order: Inquire) -> None:
        words = first = ""
        try:
            if self._inquirer is not None:
                words, first = self._inquirer(order.job, order.over)
        except HPCRemoteError as error:
            _log.warning("what became of the engines' job is not known: %s", error)
        except Exception:  # noqa: BLE001 - it is logged, and nothing waits for more
            _log.exception("what became of the engines' job could not be asked")
        self._ended.append(Inquired(order.job, words, first))
        self._wake()
