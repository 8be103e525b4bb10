"""The jobs that are written down for a cluster: how they are, and how they are ended for sure.

Anybody of this user may do that, on any machine where the scheduler's commands are.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hpcremote.errors import HPCRemoteError, LaunchError
from hpcremote.launch import catalog, process, text
from hpcremote.launch.batch import commands, poller, triage
from hpcremote.launch.batch.polling import LAG, SUBMITTED
from hpcremote.launch.batch.reading import End, Seen
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.launch.job import read_tail
from hpcremote.launch.record import Record, Submitted

#: How long a job that was cancelled may take to be gone, in seconds. (Slurm's KillWait is 30 s, as a rule.)
GONE = 90.0
#: How old an answer about a job may be for those who only want to know how it is, in seconds.
RECENT = 3.0


class State(NamedTuple):
    """How a job is: as it was seen, how it ended if it has, or why the scheduler does not tell."""

    job: Submitted
    seen: Seen
    end: End | None = None
    trouble: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is in the queue, as far as is known."""
        return self.seen.state in ("submitted", "queued", "stuck")

    @property
    def over(self) -> bool:
        """Whether it is known to have ended."""
        return self.end is not None or bool(self.job.ended)

    def __str__(self) -> str:
        if self.trouble:
            return f"unknown: {self.trouble}"
        if self.job.ended:
            return f"ended: {self.job.ended}"
        return f"ended: {self.end}" if self.end is not None else str(self.seen)


def look(jobs: Iterable[Submitted], age: float = 0.0) -> list[State]:
    """Ask the schedulers how jobs are: one question for all jobs of one, and one for each that has ended.

    What this process saw at most *age* seconds ago is not asked again; who acts on it asks anew.
    """
    jobs = list(jobs)
    began = time.monotonic()
    known = {job: State(job, Seen("ended")) for job in jobs if job.ended} | _recent.since(began - age)
    asked = {state.job: state for state in _ask(job for job in jobs if job not in known)}
    _recent.learn(asked, began)
    return [asked.get(job) or known[job] for job in jobs]


class _Recent:
    """What this process has seen of jobs lately, and when it asked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: dict[Submitted, tuple[float, State]] = {}
        self._ended = 0.0  # when a job was ended last: what was asked before is no answer any more

    def since(self, when: float) -> dict[Submitted, State]:
        with self._lock:
            return {job: state for job, (asked, state) in self._seen.items() if asked > when}

    def learn(self, states: Mapping[Submitted, State], asked: float) -> None:
        with self._lock:
            kept = {job: one for job, one in self._seen.items() if one[0] > asked - RECENT}
            if asked > self._ended:
                self._seen = kept | {job: (asked, state) for job, state in states.items()}

    def forget(self) -> None:
        with self._lock:
            self._seen, self._ended = {}, time.monotonic()


_recent = _Recent()


def _ask(jobs: Iterable[Submitted]) -> list[State]:
    found: list[State] = []
    for name, mine in _by_scheduler(jobs).items():
        try:
            scheduler = catalog.scheduler(name)
            rows = commands.status(scheduler, [job.id for job in mine])
        except HPCRemoteError as error:  # it does not answer, or its file is gone
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


def conditions(found: Sequence[Record]) -> list[str]:
    """Return how clusters are, as ``Record.condition`` does, schedulers being asked where that matters."""
    told = [one.condition() for one in found]
    open_ = [_needs_asking(one, condition) for one, condition in zip(found, told, strict=True)]
    asked = [job for one, needed in zip(found, open_, strict=True) if needed for job in one.jobs]
    states = {(state.job.scheduler, state.job.id): state for state in look(asked)}
    return [
        judged(one, condition, [states[job.scheduler, job.id] for job in one.jobs]) if needed else condition
        for one, condition, needed in zip(found, told, open_, strict=True)
    ]


def condition(found: Record) -> str:
    """Return how a cluster is, its scheduler being asked if that matters."""
    return conditions([found])[0]


def _needs_asking(found: Record, told: str) -> bool:
    return bool(found.jobs) and (found.controller_at != "here" or told == "broken")


def judged(found: Record, told: str, states: Sequence[State]) -> str:
    """Return how a cluster is for which its record alone does not tell, with the states of its jobs."""
    if states and all(state.over for state in states):
        return "broken" if any(one.alive() for one in found.processes) else "stale"
    home = next((state for state in states if state.job == found.home), None)
    if home is not None and home.over:
        return "broken"
    if home is not None and told == "starting":
        return "queued" if home.waits or all(state.waits for state in states) else "starting"
    if home is not None and home.seen.state in ("queued", "stuck"):
        return "queued"  # put back into the queue, the controller with it
    return told


def explain(state: State) -> str:
    """Return what a job that has ended wrote about why, and the remedy if one is known."""
    if not state.over:
        return ""
    try:
        hints = [*catalog.load(state.job.launcher).hints, *catalog.scheduler(state.job.scheduler).hints]
    except HPCRemoteError:  # its file is gone
        return ""
    output = read_tail(Path(state.job.log))
    values: text.Values = {
        "n": state.job.n,
        "profile": Path(state.job.script).parents[1].name,
        "python": "python",
    }
    return triage.meaning(output, hints, values)


def clear(found: Record, children: Sequence[process.Child] = ()) -> None:
    """End what a cluster has left, of processes here (*children*: of ours) and of jobs."""
    process.end(found.processes, found.mark, children, polite=0.0)
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
    for name, mine in _by_scheduler(job for job in jobs if not job.ended).items():
        scheduler = catalog.scheduler(name)
        ids = [job.id for job in mine]
        watch = poller.of(scheduler)
        for job in mine:
            fresh = time.time() - job.submitted < LAG  # that one may not be shown yet
            watch.watch(job.id, SUBMITTED if fresh else Seen("unknown"))
        try:
            _cancel(scheduler, watch, ids, patience, seconds)
        finally:
            for job_id in ids:
                watch.forget(job_id)
            _recent.forget()


def _cancel(
    scheduler: Scheduler, watch: poller.Poller, ids: list[str], patience: float, seconds: float
) -> None:
    def left(*states: str) -> list[str]:
        living = [one for one in ids if not watch.gone(one)]
        return [one for one in living if not states or watch.seen(one).state in states]

    watch.hurry()
    # One that was submitted just now is first seen there: else that it is gone would be no news.
    known = watch.wait(lambda: not left("submitted", *(["unknown"] if patience else [])), patience or LAG)
    if patience > 0 and known and not left("queued", "stuck"):
        watch.wait(lambda: not left(), patience)
    if not left():
        return
    refused = ""
    try:
        commands.cancel(scheduler, left())
    except LaunchError as error:
        refused = str(error)  # perhaps only because it is ending by itself just now
    watch.hurry()
    if not watch.wait(lambda: not left(), 2 * LAG if refused else seconds):
        if refused:
            raise LaunchError(refused)
        shown = ", ".join(f"{one} ({watch.seen(one)})" for one in left())
        why = watch.trouble or "a process that cannot be killed, or a node that is down?"
        raise LaunchError(f"job {shown} was cancelled and is not gone after {seconds:g} s: {why}")


def _by_scheduler(jobs: Iterable[Submitted]) -> dict[str, list[Submitted]]:
    found: dict[str, list[Submitted]] = {}
    for job in jobs:
        found.setdefault(job.scheduler, []).append(job)
    return found
