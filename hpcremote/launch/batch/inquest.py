"""What became of a job whose engines have just gone: asked by the cluster's controller.

Where no scheduler has ended it, what started its ranks has most likely written which of them ended first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path

from hpcremote import files
from hpcremote.errors import AlreadyRunning, LauncherError
from hpcremote.launch import catalog, record
from hpcremote.launch.batch import commands, poller, triage
from hpcremote.launch.batch.reading import End, Seen, written
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.launch.culprit import ended_first
from hpcremote.launch.job import read_tail
from hpcremote.launch.record import Submitted
from hpcremote.profile import Profile

#: How long a job that is ending may take until it is known how, in seconds.
_PATIENCE = 8.0
#: How long what starts the ranks may take to write which of them ended first, in seconds.
_WRITTEN, _LOOK_AGAIN = 1.0, 0.05
#: How a job ended that may have ended because one of its ranks had.
_BY_ITSELF = ("", "finished", "memory")


class Inquirer:
    """Asks about jobs of one cluster.

    Args:
        profile: the cluster's.
        cluster_id: its name.
    """

    def __init__(self, profile: Profile, cluster_id: str) -> None:
        self._folder = files.cluster_dir(profile.name, cluster_id)

    def __call__(self, job_key: str, over: bool) -> tuple[str, str]:
        """Return how the job ended, or that it is queued again, or nothing; and which rank ended first.

        Args:
            job_key: what its engines carry (``HPCREMOTE_JOB``).
            over: its time is, so that it ends, and the scheduler may only not know it yet.

        Returns:
            Words, which are empty if the job goes on; and ``RANK`` or ``PID@HOST`` of the rank in whose wake
            the others have ended, or nothing.

        Raises:
            HPCRemoteError: the scheduler does not answer.
        """
        found = record.read(self._folder)
        job = next((one for one in found.jobs if one.set == job_key), None) if found else None
        if job is None:
            return "", ""
        scheduler = catalog.scheduler(job.scheduler)
        seen = commands.status(scheduler, [job.id]).get(job.id)
        goes_on = seen is not None and seen.state == "running"
        if seen is None or (goes_on and over) or seen.state in ("ending", "cancelling", "ended"):
            end = self._how_ended(scheduler, job, seen or Seen("running"))
            if end is None:
                return ("" if goes_on else f"{job} is ending{_why(scheduler, job)}"), ""
            return end.after(f"{job} has ended"), _first(job) if end.outcome in _BY_ITSELF else ""
        if seen.state in ("queued", "stuck"):
            return f"{job} was put back into the queue ({seen}){_why(scheduler, job)}", ""
        return "", _first(job)

    def _how_ended(self, scheduler: Scheduler, job: Submitted, seen: Seen) -> End | None:
        watch = poller.of(scheduler)
        watch.watch(job.id, seen)
        watch.hurry()
        watch.wait(lambda: watch.end(job.id) is not None, _PATIENCE)
        end = watch.end(job.id)
        watch.forget(job.id)
        if end is not None:
            self._note(job, str(end))
        return end

    def _note(self, job: Submitted, ended: str) -> None:
        """Write down how a job ended: schedulers forget. Who asked is told in any case."""
        with contextlib.suppress(AlreadyRunning), record.locked(self._folder, _PATIENCE):
            found = record.read(self._folder)
            if found is not None:
                jobs = (dataclasses.replace(one, ended=ended) if one == job else one for one in found.jobs)
                found.changed(jobs=tuple(jobs))


def _first(job: Submitted) -> str:
    """Return which of the job's ranks ended first, once what started them has written that, or nothing."""
    try:
        launcher = catalog.load(job.launcher)
    except LauncherError:  # its file has been changed since
        return ""
    deadline = time.monotonic() + (_WRITTEN if launcher.culprit else 0.0)
    while not (found := ended_first(read_tail(Path(job.log)), launcher.culprit)):
        if time.monotonic() >= deadline:
            break
        time.sleep(_LOOK_AGAIN)
    return found


def _why(scheduler: Scheduler, job: Submitted) -> str:
    """Return what the job's own output tells of why it ended."""
    words = written(scheduler, triage.last_run(read_tail(Path(job.log))))
    return f": {words}" if words else ""
