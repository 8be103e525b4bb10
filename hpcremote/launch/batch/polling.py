"""When the scheduler is asked about which jobs, and what is known of them. Pure: time comes as ``now``.

::

    watch(id) ──▶ due() ──▶ ask() ──▶ (the shell runs one command for all) ──▶ answered(rows) or failed(why)
                    ▲                                                               │ jobs that are gone
                    │ pause: 1 s, longer each time, 30 s at most                    ▼
                    └──────────────── ended(id, how) ◀── (the shell asks how they ended)

News of any job makes the pause short again: what has just moved moves on soon, as a rule. A scheduler that
does not answer is asked more and more rarely.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from hpcremote.launch.batch.reading import End, Seen

#: The first pause, what each is longer by, and the longest, in seconds.
FIRST, GROWTH, LONGEST = 1.0, 1.6, 30.0
#: The pause before the very first question about a job, in seconds.
SOON = 0.3
#: How long a job may be missing that has just been submitted, or how it ended be unknown, in seconds.
LAG = 6.0
SUBMITTED = Seen("submitted")


@dataclass
class Job:
    """What is known of one job. ``end`` is there once it has ended; ``missing``: since when it is."""

    since: float
    seen: Seen = SUBMITTED
    end: End | None = None
    missing: float | None = None


class Polling:
    """The jobs of one scheduler that somebody wants to hear of.

    Attributes:
        trouble: why the scheduler did not answer the last time, or nothing.
    """

    def __init__(self) -> None:
        self.trouble = ""
        self._jobs: dict[str, Job] = {}
        self._pause = FIRST
        self._next = 0.0

    def watch(self, job_id: str, now: float, seen: Seen = SUBMITTED) -> None:
        """Watch a job, which has been *seen* like that."""
        if job_id not in self._jobs:
            self._jobs[job_id] = Job(now, seen)
            self.hurry(now + SOON)

    def forget(self, job_id: str) -> None:
        """Watch it no longer."""
        self._jobs.pop(job_id, None)

    def hurry(self, now: float) -> None:
        """Something has happened: ask at *now* and often from then on."""
        self._pause = FIRST
        self._next = min(self._next, now) if self.ask() and self._next else now

    def due(self) -> float | None:
        """Return when to ask next, or None."""
        return self._next if self.ask() else None

    def ask(self) -> list[str]:
        """Return the jobs to ask about."""
        return [job_id for job_id, job in self._jobs.items() if job.end is None]

    def seen(self, job_id: str) -> Seen:
        """Return how a job was seen last."""
        job = self._jobs.get(job_id)
        return job.seen if job else SUBMITTED

    def end(self, job_id: str) -> End | None:
        """Return how a job ended, or None if it has not."""
        job = self._jobs.get(job_id)
        return job.end if job else None

    def gone(self, job_id: str) -> bool:
        """Say whether a job is in the queue no more; how it ended may not be known yet."""
        job = self._jobs.get(job_id)
        return job is None or job.end is not None or (job.missing is not None and job.seen is not SUBMITTED)

    # ------------------------------------------------------------ what the scheduler says

    def answered(self, rows: Mapping[str, Seen], now: float) -> list[str]:
        """Take in an answer; return the jobs of which it is to be asked how they ended."""
        self.trouble = ""
        moved, gone = False, []
        for job_id in self.ask():
            job = self._jobs[job_id]
            row = rows.get(job_id)
            if row is not None and row.state != "ended":
                moved = moved or row != job.seen
                job.seen, job.missing = row, None
                continue
            job.missing = now if job.missing is None else job.missing
            gone.append(job_id)
        self._rest(now, short=moved or bool(gone))
        return gone

    def failed(self, trouble: str, now: float) -> None:
        """The scheduler did not answer: nothing is known that was not known before."""
        self.trouble = trouble
        self._rest(now, short=False)

    def ended(self, job_id: str, end: End | None, now: float) -> None:
        """Take in how a job ended, None if the scheduler does not know (yet)."""
        job = self._jobs.get(job_id)
        if job is None or job.end is not None:
            return
        waited = now - (job.since if job.seen is SUBMITTED else job.missing or now)
        if end is None and waited < LAG:
            return  # accounting is slower than the queue
        last = job.seen
        if end is None:
            end = End(reason="the scheduler does not know it (any more)" if last is SUBMITTED else "")
        if not end.outcome and last.state == "cancelling":
            end = dataclasses.replace(end, outcome="cancelled")
        job.end = end
        job.seen = Seen("ended", last.word, hosts=last.hosts)

    def _rest(self, now: float, *, short: bool) -> None:
        self._pause = FIRST if short else min(LONGEST, self._pause * GROWTH)
        self._next = now + self._pause
