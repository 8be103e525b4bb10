"""The jobs that are written down for a cluster: how they are, and how they are ended for sure.

Anybody of this user may do that, on any machine where the scheduler's commands are.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from hpcremote.errors import LaunchError
from hpcremote.launch import catalog, process
from hpcremote.launch.batch import commands, poller
from hpcremote.launch.batch.polling import LAG, SUBMITTED
from hpcremote.launch.batch.reading import End, Seen
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.launch.record import Record, Submitted

#: How long a job that was cancelled may take to be gone, in seconds. (Slurm's KillWait is 30 s, as a rule.)
GONE = 90.0


class State(NamedTuple):
    """How a job is: as it was seen, how it ended if it has, or why the scheduler does not tell."""

    job: Submitted
    seen: Seen
    end: End | None = None
    trouble: str = ""

    @property
    def over(self) -> bool:
        """Whether it is known to have ended."""
        return self.end is not None

    def __str__(self) -> str:
        if self.trouble:
            return f"unknown: {self.trouble}"
        return f"ended: {self.end}" if self.end is not None else str(self.seen)


def look(jobs: Iterable[Submitted]) -> list[State]:
    """Ask the schedulers how jobs are: one question for all jobs of one, and one for each that has ended."""
    found: list[State] = []
    for name, mine in _by_scheduler(jobs).items():
        try:
            scheduler = catalog.scheduler(name)
            rows = commands.status(scheduler, [job.id for job in mine])
        except LaunchError as error:
            found += [State(job, SUBMITTED, trouble=str(error)) for job in mine]
            continue
        for job in mine:
            seen = rows.get(job.id)
            if seen is not None and seen.state != "ended":
                found.append(State(job, seen))
                continue
            end = commands.how_ended(scheduler, job.id)
            if end is None and time.time() - job.submitted < LAG:
                found.append(State(job, SUBMITTED))
            else:
                found.append(State(job, seen or Seen("ended"), end or End()))
    return found


def condition(found: Record) -> str:
    """Return how a cluster is, as ``Record.condition`` does, its scheduler being asked where that matters."""
    told = found.condition()
    if not found.jobs or (found.controller_at == "here" and told != "broken"):
        return told
    if not all(state.over for state in look(found.jobs)):
        return told
    return "broken" if any(one.alive() for one in found.processes) else "stale"


def clear(found: Record) -> None:
    """End what a cluster has left, of processes here and of jobs."""
    process.end(found.processes, found.mark, (), polite=0.0)
    cancel(found.jobs)


def cancel(jobs: Iterable[Submitted], *, patience: float = 0.0, seconds: float = GONE) -> None:
    """End jobs, and return when their scheduler says that they are gone.

    Args:
        jobs: the jobs; those that have ended are left alone.
        patience: seconds that running ones have to end by themselves, having been asked.
        seconds: how long one that was cancelled may take to be gone.

    Raises:
        LaunchError: the scheduler refuses, does not answer, or still has one after that time.
    """
    for name, mine in _by_scheduler(jobs).items():
        scheduler = catalog.scheduler(name)
        ids = [job.id for job in mine]
        watch = poller.of(scheduler)
        for job_id in ids:
            watch.watch(job_id)
        try:
            _cancel(scheduler, watch, ids, patience, seconds)
        finally:
            for job_id in ids:
                watch.forget(job_id)


def _cancel(
    scheduler: Scheduler, watch: poller.Poller, ids: list[str], patience: float, seconds: float
) -> None:
    def left(*states: str) -> list[str]:
        living = [one for one in ids if watch.end(one) is None]
        return [one for one in living if not states or watch.seen(one).state in states]

    watch.hurry()
    if patience > 0 and watch.wait(lambda: not left("submitted"), patience) and not left("queued", "stuck"):
        watch.wait(lambda: not left(), patience)
    if not left():
        return
    commands.cancel(scheduler, left())
    watch.hurry()
    if not watch.wait(lambda: not left(), seconds):
        shown = ", ".join(f"{one} ({watch.seen(one)})" for one in left())
        why = watch.trouble or "a process that cannot be killed, or a node that is down?"
        raise LaunchError(f"job {shown} was cancelled and is not gone after {seconds:g} s: {why}")


def _by_scheduler(jobs: Iterable[Submitted]) -> dict[str, list[Submitted]]:
    found: dict[str, list[Submitted]] = {}
    for job in jobs:
        found.setdefault(job.scheduler, []).append(job)
    return found
