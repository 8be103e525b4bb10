"""One thread a scheduler asks it about all jobs of this process (when and which: see ``polling.py``)."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from hpcremote.errors import LaunchError
from hpcremote.launch.batch import commands
from hpcremote.launch.batch.polling import SUBMITTED, Polling
from hpcremote.launch.batch.reading import End, Seen
from hpcremote.launch.batch.scheduler import Scheduler

#: How long the thread lives on when nobody watches a job, in seconds.
_IDLE = 5.0


class Poller:
    """Watches jobs of one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._polling = Polling()
        #: Guards the machine; news is told by it.
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, job_id: str, seen: Seen = SUBMITTED) -> None:
        """Watch a job."""
        with self._news:
            self._polling.watch(job_id, time.monotonic(), seen)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jobs", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def forget(self, job_id: str) -> None:
        """Watch it no longer."""
        with self._news:
            self._polling.forget(job_id)

    def hurry(self) -> None:
        """Ask at once: something has happened."""
        with self._news:
            self._polling.hurry(time.monotonic())
            self._news.notify_all()

    def seen(self, job_id: str) -> Seen:
        """Return how a job was seen last."""
        with self._news:
            return self._polling.seen(job_id)

    def end(self, job_id: str) -> End | None:
        """Return how a job ended, or None if it has not."""
        with self._news:
            return self._polling.end(job_id)

    def gone(self, job_id: str) -> bool:
        """Say whether a job is in the queue no more; how it ended may not be known yet."""
        with self._news:
            return self._polling.gone(job_id)

    @property
    def trouble(self) -> str:
        """Why the scheduler did not answer the last time, or nothing."""
        with self._news:
            return self._polling.trouble

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until ``done()``, asked at all news, for at most *seconds*; return what it says."""
        deadline = time.monotonic() + seconds
        with self._news:
            while not done():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._news.wait(left)
            return True

    # ------------------------------------------------------------ the thread

    def _work(self) -> None:
        while ids := self._next():
            try:
                rows = commands.status(self._scheduler, ids)
            except LaunchError as error:
                with self._news:
                    self._polling.failed(str(error), time.monotonic())
                    self._news.notify_all()
                continue
            with self._news:
                gone = self._polling.answered(rows, time.monotonic())
                self._news.notify_all()
            for job_id in gone:
                end = commands.how_ended(self._scheduler, job_id)
                with self._news:
                    self._polling.ended(job_id, end, time.monotonic())
                    self._news.notify_all()

    def _next(self) -> list[str]:
        """Wait until it is time; return the jobs to ask about, none if nobody watches any."""
        idle_until = time.monotonic() + _IDLE
        with self._news:
            while True:
                now, due = time.monotonic(), self._polling.due()
                if due is None and now >= idle_until:
                    self._thread = None
                    return []
                if due is not None and now >= due:
                    return self._polling.ask()
                self._news.wait((idle_until if due is None else due) - now)


_pollers: dict[tuple[int, str], Poller] = {}
_lock = threading.Lock()


def of(scheduler: Scheduler) -> Poller:
    """Return this process' poller of a scheduler (a forked child has one of its own)."""
    with _lock:
        return _pollers.setdefault((os.getpid(), scheduler.source), Poller(scheduler))
