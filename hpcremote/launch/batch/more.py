"""One more engine set for a cluster whose engines are jobs: another job of the same kind.

::

    Cluster.start_engines(n) ──▶ More.launch() ──▶ job-2.sh, engines-2.log, the record ──▶ Watch
    the controller, restarting a set ──▶ More(replaces=...) ──▶ the same ids
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from hpcremote.errors import LaunchError
from hpcremote.launch import record
from hpcremote.launch.adding import Adding
from hpcremote.launch.batch import jobs, spread
from hpcremote.launch.batch.draft import draft
from hpcremote.launch.batch.submission import Submission
from hpcremote.launch.job import REPLACES
from hpcremote.launch.process import of_set
from hpcremote.profile import Profile


class More(Adding):
    """One more engine set that is a job."""

    job: Submission | None
    _key = ""

    def launch(self, replaces: str = "") -> None:
        """Submit the job; *replaces* is the set that it comes instead of.

        Raises:
            LaunchError: the cluster does not run, or the scheduler refuses.
        """
        with record.locked(self.folder, record.PATIENCE):
            found = self._found()
            if not self.profile.scheduler:
                raise LaunchError(
                    f"profile {self.profile.name!r} names no scheduler: its engines are no jobs that a next "
                    "one could take the place of"
                )
            number = _next(found)
            self.mark = of_set(found.mark, number)
            made = draft(
                laid_out(self.profile, self.n),
                self.n,
                self.folder,
                found.mark,
                number=number,
                cwd=found.cwd,
                more={REPLACES: replaces} if replaces else None,
            )
            spread.check(made)
            self.job = Submission(made, lambda submitted: self._note(found, submitted))

    def _note(self, found: record.Record, submitted: record.Submitted) -> None:
        self._key = submitted.set  # also if who waits for it is interrupted: it is there
        found.changed(jobs=(*found.jobs, submitted))

    def ready(self) -> None:
        """Its engines have just registered: from here on the controller asks, when they go."""
        if self.job is not None:
            self.job.forget()

    def abandon(self) -> None:
        """End the job: its engines are not wanted any more."""
        if self.job is not None:
            self.job.forget()
        if self._key:
            end(self.folder, self._key)


def laid_out(profile: Profile, n: int) -> Profile:
    """Return the profile for a job of *n* engines, where its own ``nodes`` are those of the first set."""
    if n == profile.engines:
        return profile
    each = profile.ranks_per_node
    nodes = math.ceil(n / each) if each else profile.nodes and min(profile.nodes, n)
    return dataclasses.replace(profile, n=n, nodes=nodes, ranks_per_node=each and min(each, n))


def _next(found: record.Record) -> int:
    """Return a number that no job of the cluster has had: jobs that were ended are no longer listed."""
    number = 2
    while (found.folder / f"job-{number}.sh").exists():
        number += 1
    return number


def check_apart(folder: Path, job_key: str) -> None:
    """Refuse to end a job of engines that the controller is in as well.

    Raises:
        LaunchError: it is.
    """
    found = record.read(folder)
    if found is not None and found.home is not None and found.home.set == job_key:
        raise LaunchError(
            f"the controller is in {found.home}, too, and would end with it: stop the cluster. With "
            "`controller: here` or `own-job` in the profile, jobs of engines come and go"
        )


def end(folder: Path, job_key: str) -> None:
    """End one of a cluster's jobs, if it is there still, and make sure of it.

    Raises:
        LaunchError: it cannot be ended.
    """
    found = record.read(folder)
    job = next((one for one in found.jobs if one.set == job_key), None) if found else None
    if job is None:
        return  # somebody else has ended it, with the cluster perhaps
    jobs.cancel([job])
    with record.locked(folder, record.PATIENCE):
        found = record.read(folder)
        if found is not None:
            found.changed(jobs=tuple(one for one in found.jobs if one.id != job.id))
