"""An engine set in the queue: submitted, watched, and asked what went wrong. The counterpart of ``job.Job``.

::

    Draft ──▶ script in the cluster's folder ──sbatch──▶ the job's id, written down ──▶ poller
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from hpcremote import files
from hpcremote.errors import LaunchError
from hpcremote.launch import job, text
from hpcremote.launch.batch import commands, poller, reading, spread, triage, whose
from hpcremote.launch.batch.draft import Draft
from hpcremote.launch.batch.polling import SUBMITTED
from hpcremote.launch.culprit import Culprit
from hpcremote.launch.process import Child, Process
from hpcremote.launch.record import Submitted

#: How long the output of a job that has ended may take to be seen here, in seconds: file systems cache.
_LAST_WORDS = 3.0


class Standing(NamedTuple):
    """Where the job stands: a phase (submitted, queued, started) and more about it."""

    phase: str
    detail: str


def submit(draft: Draft, note: Callable[[Submitted], None]) -> Submitted:
    """Submit a job; *note* writes it down, also if this thread is interrupted meanwhile.

    Raises:
        LaunchError: the scheduler refuses (in its own words), or is not here.
    """
    files.write_private(draft.path, draft.script.encode())

    def work() -> Submitted:
        submitted = _submit(draft)
        note(submitted)
        return submitted

    # In a thread that is waited for in any case: a job that nobody has written down would be nobody's.
    with ThreadPoolExecutor(1, "submit") as pool:
        return pool.submit(work).result()


def _submit(draft: Draft) -> Submitted:
    scheduler = draft.scheduler
    whose.check(scheduler)
    said = commands.run(draft.words, draft.script if scheduler.submit.stdin else "")
    found = reading.job_id(scheduler, said.out) if said.code == 0 else None
    if found is None:
        meaning = text.explain(scheduler.hints, said.all, draft.values)
        reason = f"{text.tail(said.all, 5) or 'it says nothing'}" + (f"\n{meaning}" if meaning else "")
        if said.code == 0:
            raise LaunchError(
                f"{draft.command} ends well and names no job as {scheduler.name} does ({scheduler.source}: "
                f"job_id); look into the queue, there may be one:\n{reason}"
            )
        raise LaunchError(
            f"{scheduler.name} did not take the job ({draft.command}, exit code {said.code}):\n{reason}"
        )
    return Submitted(
        found,
        scheduler.name,
        draft.set,
        draft.n,
        time.time(),
        str(draft.path),
        str(draft.log),
        draft.launcher.name,
    )


class Submission:
    """A set of engines in the queue, or running.

    Attributes:
        job: the job, as it is written down.
        log: its output.
    """

    def __init__(self, draft: Draft, note: Callable[[Submitted], None]) -> None:
        """Submit it."""
        self.draft = draft
        self.log = draft.log
        self.children: list[Child] = []
        self.job = submit(draft, note)
        self._poller = poller.of(draft.scheduler)
        self._poller.watch(self.job.id)
        self._wrote = False
        self._culprit = Culprit(lambda: job.read_tail(self.log), draft.launcher.culprit)
        self._hurried = False

    @property
    def processes(self) -> list[Process]:
        """Processes of this machine: none."""
        return []

    @property
    def described(self) -> str:
        """What starts the ranks, for people."""
        return f"{self.draft.scheduler.name}, {self.draft.launcher.name}"

    def standing(self) -> Standing | None:
        """Return where the job stands until its engines can come; None: where any process starts.

        Time in the queue is no time of the start.
        """
        if not self._wrote and self.log.exists():
            self._wrote = True
            self._poller.hurry()  # it began: the scheduler can tell where
        seen = self._poller.seen(self.job.id)
        about = str(self.job)
        if trouble := self._poller.trouble:
            about += f"; {trouble.splitlines()[0]}"
        if seen.state in ("running", "ending", "cancelling", "ended"):
            return Standing("started", f"{self.job} {seen}")
        if seen is SUBMITTED:
            who = spread.note(self.draft)
            return Standing("submitted", f"{about}; {who}" if who else about)
        return Standing("queued", f"{about} {seen}")

    @property
    def waiting(self) -> bool:
        """Whether the job has not begun, as far as is known."""
        return not self._wrote and self._poller.seen(self.job.id).state in ("submitted", "queued", "stuck")

    def ended(self) -> str:
        """Return how the job ended, or that it never will begin; nothing while there is hope."""
        end = self._poller.end(self.job.id)
        if end is not None:
            if not self._began():
                return f"{self.job} never started: {end}"
            return end.after(f"{self.job} ended before all engines were there")
        seen = self._poller.seen(self.job.id)
        lost = self._culprit.look()
        if lost and seen.state == "running":
            return f"{lost} ({self.job})"
        if self._culprit.found and not self._hurried:
            self._poller.hurry()  # the job most likely ends, or is queued once more
        self._hurried = self._culprit.found
        if seen.state != "stuck" or self.draft.values.get("after"):  # PBS holds what waits for another job
            return ""
        return f"{self.job} will not start by itself: {seen.reason or seen.word}"

    def _began(self) -> bool:
        deadline = time.monotonic() + _LAST_WORDS
        while not self._wrote and time.monotonic() < deadline:
            os.listdir(self.log.parent)  # has network file systems look again
            self._wrote = self.log.exists()
            if not self._wrote:
                self._poller.wait(lambda: False, 0.1)
        return self._wrote

    def meaning(self, *, lonely: bool = False) -> str:
        """Return what is known of why it went wrong, with the remedy, or nothing.

        Args:
            lonely: the ranks did not find each other. What they and their starter said of that is in the log.
        """
        hints = [*self.draft.launcher.hints, *self.draft.scheduler.hints]
        return triage.meaning(job.read_tail(self.log), hints, self.draft.values)

    def quoted(self) -> str:
        """Return the lines of its output that matter."""
        output = job.read_tail(self.log)
        said = triage.excerpt(output, self.draft.launcher)
        rank = triage.culprit(output, self.draft.launcher)
        which = f" (rank {rank})" if rank is not None else ""
        return f"--- {self.log}{which}\n{said}" if said else ""

    def wait(self, seconds: float = math.inf) -> None:
        """Wait until the job has ended, at most so long."""
        deadline = time.monotonic() + seconds
        self._poller.hurry()
        while not self._poller.wait(
            lambda: self._poller.end(self.job.id) is not None, min(3600.0, deadline - time.monotonic())
        ):
            if time.monotonic() >= deadline:
                return  # else: that long, and no news: it runs on

    def forget(self) -> None:
        """Watch it no longer."""
        self._poller.forget(self.job.id)
