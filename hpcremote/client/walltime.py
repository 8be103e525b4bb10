"""When the engines' jobs end, as a client sees it: how long is left, and who is called before.

::

    TimeLeft ──▶ Walltime ──▶ Client.time_left, EngineSet.time_left
                    └─ thread ─▶ callbacks of Client.on_walltime, so many minutes before; the log, at 10 and 2

The thread is there only while there is a limit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hpcremote.errors import spans
from hpcremote.wire.walltime import words

if TYPE_CHECKING:
    from hpcremote.client.link import Link
    from hpcremote.wire.messages import EngineInfo, TimeLeft

_log = logging.getLogger("hpcremote.client")

#: Minutes before the end at which the log has a line.
TOLD = (10.0, 2.0)


class JobEnding(NamedTuple):
    """The job of these engines ends in so many seconds; ``why`` is there if its scheduler has said so."""

    engines: list[int]
    seconds: float
    why: str = ""


Callback = Callable[[JobEnding], Any]


class _Wish:
    """A callback, and for which ends of which sets it has been made."""

    def __init__(self, before: float, callback: Callback) -> None:
        self.before = before
        self.callback = callback
        self.done: dict[str, float] = {}


class _End(NamedTuple):
    """When a set's job ends (on our monotonic clock; None: no limit is known), and why."""

    at: float | None
    why: str


class Walltime:
    """The ends of jobs.

    Args:
        engines: returns the engines that live.
    """

    def __init__(self, engines: Callable[[], Mapping[int, EngineInfo]]) -> None:
        self._engines = engines
        self._ends: dict[str, _End] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._wishes: list[_Wish] = []

    def tell(self) -> None:
        """Have the log tell before each end."""
        with self._changed:
            self._wishes += [_Wish(60.0 * minutes, _say) for minutes in TOLD]
            self._begin()

    def learn(self, news: TimeLeft) -> None:
        """A job ends then (called by whichever thread reads)."""
        at = time.monotonic() + news.seconds if news.seconds >= 0 else None
        with self._changed:
            known = self._ends.get(news.set_id)
            self._ends[news.set_id] = _End(at, news.why)
            if news.why and (known is None or known.why != news.why):
                for wish in self._wishes:  # whatever was told before
                    wish.done.pop(news.set_id, None)
            self._begin()

    def left(self, sets: Collection[str] | None = None) -> float | None:
        """Return the seconds that the first of these sets (None: of all that live) has; None: no limit."""
        wanted = {info.set_id for info in self._engines().values()} if sets is None else sets
        with self._changed:
            ends = [end.at for name, end in self._ends.items() if name in wanted and end.at is not None]
        return max(0.0, min(ends) - time.monotonic()) if ends else None

    def call(self, before: float, callback: Callback) -> Callable[[], None]:
        """Have *callback* called *before* seconds before each end; return what undoes that."""
        wish = _Wish(before, callback)

        def undo() -> None:
            with self._changed:
                if wish in self._wishes:
                    self._wishes.remove(wish)

        with self._changed:
            self._wishes.append(wish)
            self._begin()
        return undo

    def close(self) -> None:
        """Call nobody any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # ------------------------------------------------------------ the thread

    def _begin(self) -> None:
        if self._thread is None and self._ends and not self._closed:
            self._thread = threading.Thread(target=self._work, name="hpcremote-walltime", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._closed:
                    return
                ready, pause = self._due()
                if not ready:
                    self._changed.wait(pause)
                    continue
            for wish, ending in ready:
                try:
                    wish.callback(ending)
                except Exception:  # noqa: BLE001 - it is the user's, and nobody waits for it
                    _log.exception("a callback of on_walltime failed")

    def _due(self) -> tuple[list[tuple[_Wish, JobEnding]], float | None]:
        """Return the callbacks to make now, and the seconds until the next one."""
        now = time.monotonic()
        ready: list[tuple[_Wish, JobEnding]] = []
        pause: float | None = None
        ids: dict[str, list[int]] = {}
        for info in self._engines().values():
            ids.setdefault(info.set_id, []).append(info.id)
        for name in [name for name in self._ends if name in ids]:
            at, why = self._ends[name]
            for wish in self._wishes:
                if name in wish.done and (at is None or at - wish.done[name] < 2 * wish.before):
                    continue
                left = 0.0 if at is None else at - now
                if why or (at is not None and left <= wish.before):
                    wish.done[name] = now if at is None else at
                    ending = JobEnding(sorted(ids[name]), max(0.0, left), why)
                    if not any(
                        one.callback is wish.callback and told.engines == ending.engines
                        for one, told in ready
                    ):  # that it is less than ten minutes goes without saying when it is less than two
                        ready.append((wish, ending))
                elif at is not None:
                    pause = min(left - wish.before, pause if pause is not None else left)
        return ready, pause


def _say(ending: JobEnding) -> None:
    because = f": {ending.why}" if ending.why else ""
    who = f"engine{'s' if len(ending.engines) > 1 else ''} {spans(ending.engines)}"
    _log.warning("the job of %s ends in %s%s", who, words(ending.seconds), because)


class Ends:
    """The part of :class:`hpcremote.Client` that is about the ends of jobs."""

    link: Link

    @property
    def time_left(self) -> float | None:
        """The seconds until the job of the first engine set ends; None where no limit is known."""
        return self.link.walltime.left()

    def on_walltime(self, minutes_before: float, callback: Callback) -> Callable[[], None]:
        """Have *callback* called so many minutes before the job of an engine set ends, once for each set.

        It is called in a thread of its own, with a ``JobEnding`` (engines, seconds, why); at once if there is
        less time left, or if the batch system says that it is about to end the job. Without that, the log of
        this client has a line at 10 and at 2 minutes (on stderr, unless ``logging`` is set up).

        Returns:
            A function that undoes it.
        """
        if not callable(callback):
            raise TypeError(f"on_walltime() takes a function of one argument, not {callback!r}")
        return self.link.walltime.call(60.0 * minutes_before, callback)
