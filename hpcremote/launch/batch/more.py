"""One more engine set for a cluster that runs: another job of the same kind, watched as a start is.

::

    Cluster.start_engines(n) ──▶ More.launch() ──▶ job-2.sh, engines-2.log, the record ──▶ Watch
    the controller, restarting a set ──▶ More(replaces=...) ──▶ the same ids
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcremote import files
from hpcremote.errors import LaunchError
from hpcremote.launch import record
from hpcremote.launch.batch import jobs
from hpcremote.launch.batch.draft import draft
from hpcremote.launch.batch.submission import Standing, Submission
from hpcremote.launch.job import REPLACES
from hpcremote.profile import Profile

#: Seconds to wait for somebody else who starts or stops the cluster.
_PATIENCE = 5.0


class More:
    """One more engine set.

    Args:
        profile: the cluster's.
        cluster_id: its name.
        n: how many engines.
        before: how many there are already.
        known: engines that failed to start before, as the controller tells of them.

    Attributes:
        job: the job, once it is submitted.
    """

    def __init__(
        self,
        profile: Profile,
        cluster_id: str,
        n: int,
        *,
        before: int = 0,
        known: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.profile, self.n, self.before, self.known = profile, n, before, known
        self.folder = files.cluster_dir(profile.name, cluster_id)
        self.job: Submission | None = None

    def launch(self, replaces: str = "") -> None:
        """Submit the job; *replaces* is the set that it comes instead of.

        Raises:
            LaunchError: the cluster does not run, or the scheduler refuses.
        """
        with record.locked(self.folder, _PATIENCE):
            found = self._found()
            self.job = Submission(
                draft(
                    self.profile,
                    self.n,
                    self.folder,
                    found.mark,
                    number=_next(found),
                    cwd=found.cwd,
                    more={REPLACES: replaces} if replaces else None,
                ),
                lambda submitted: self._note(found, submitted),
            )

    def _found(self) -> record.Record:
        found = record.read(self.folder)
        if found is None or found.state != "running":
            how = "does not run" if found is None else f"is {found.state}"
            raise LaunchError(f"the cluster in {self.folder} {how}: engines can be added to one that runs")
        if not self.profile.scheduler:
            raise LaunchError(
                f"profile {self.profile.name!r} names no scheduler: engine sets are added to clusters whose "
                "engines are jobs. Start another cluster (cluster_id=...)"
            )
        return found

    @staticmethod
    def _note(found: record.Record, submitted: record.Submitted) -> None:
        found.changed(jobs=(*found.jobs, submitted))

    # ------------------------------------------------------------ what a watch asks

    def listens(self) -> bool:
        """Whether the controller listens: it does."""
        return True

    def standing(self) -> Standing | None:
        """Return where the job stands."""
        return self.job.standing() if self.job else None

    @property
    def waiting(self) -> bool:
        """Whether it waits in the queue."""
        return self.job is not None and self.job.waiting

    def trouble(self) -> LaunchError | None:
        """Return the error if the job has ended by now."""
        what = self.job.ended() if self.job else ""
        return self.failure(what) if what else None

    def failure(self, what: str, *, lonely: bool = False) -> LaunchError:
        """Return the error for *what* went wrong: with its reason if known, and what the job wrote."""
        meaning = self.job.meaning(lonely=lonely) if self.job else ""
        said = self.job.quoted() if self.job else ""
        return LaunchError(f"{what}: {meaning}\n{said}".rstrip() if meaning else f"{what}\n{said}".rstrip())

    def abandon(self) -> None:
        """End the job: its engines are not wanted any more."""
        if self.job is not None:
            end(self.folder, self.job.job.set)


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
    """End one of a cluster's jobs, and make sure of it.

    Raises:
        LaunchError: there is no such job, or it cannot be ended.
    """
    found = record.read(folder)
    job = next((one for one in found.jobs if one.set == job_key), None) if found else None
    if job is None:
        raise LaunchError(f"the cluster in {folder} has no job {job_key!r}")
    jobs.cancel([job])
    with record.locked(folder, _PATIENCE):
        found = record.read(folder)
        if found is not None:
            found.changed(jobs=tuple(one for one in found.jobs if one.id != job.id))
