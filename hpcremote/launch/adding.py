"""One more engine set for a cluster that runs, started as the first one was, and watched as a start is.

::

    Cluster.start_engines(n) ──┬─▶ More (batch/more.py)   another job
                               └─▶ Here                   processes here, or on the hosts of the profile
                                      mark.2, engines-2.log, the record ──▶ Watch
    Cluster.stop_engines(set) ──▶ end()                   exactly what carries the set's mark
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcremote import files
from hpcremote.errors import LaunchError
from hpcremote.launch import catalog, job, process, record, remote
from hpcremote.launch.batch.submission import Standing, Submission
from hpcremote.launch.process import Process
from hpcremote.profile import Profile

#: Seconds to wait for somebody else who starts or stops the cluster.
_PATIENCE = 5.0
#: A mark that nothing carries.
_NOBODY = "-"


class Adding:
    """One more engine set; how it starts, subclasses know.

    Args:
        profile: the cluster's.
        cluster_id: its name.
        n: how many engines.
        before: how many there are already.
        known: engines that failed to start before, as the controller tells of them.

    Attributes:
        job: what brings the engines, once it is started.
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
        self.job: job.Job | Submission | None = None

    def launch(self, replaces: str = "") -> None:
        """Start it; *replaces* is the set that it comes instead of.

        Raises:
            LaunchError: it cannot be started.
        """
        raise NotImplementedError

    def abandon(self) -> None:
        """End it: its engines are not wanted any more."""
        raise NotImplementedError

    def _found(self) -> record.Record:
        """Return what is written down of the cluster, which has to run."""
        found = record.read(self.folder)
        if found is None or found.state != "running":
            how = "does not run" if found is None else f"is {found.state}"
            raise LaunchError(f"the cluster in {self.folder} {how}: engines can be added to one that runs")
        return found

    # ------------------------------------------------------------ what a watch asks

    def listens(self) -> bool:
        """Whether the controller listens: it does."""
        return True

    def standing(self) -> Standing | None:
        """Return where its job stands, if it is one."""
        return self.job.standing() if self.job else None

    @property
    def waiting(self) -> bool:
        """Whether it waits in a queue."""
        return self.job is not None and self.job.waiting

    def trouble(self) -> LaunchError | None:
        """Return the error if it has ended by now."""
        what = self.job.ended() if self.job else ""
        return self.failure(what) if what else None

    def failure(self, what: str, *, lonely: bool = False) -> LaunchError:
        """Return the error for *what* went wrong: with its reason if known, and what was written."""
        meaning = self.job.meaning(lonely=lonely) if self.job else ""
        said = self.job.quoted() if self.job else ""
        return LaunchError(f"{what}: {meaning}\n{said}".rstrip() if meaning else f"{what}\n{said}".rstrip())


class Here(Adding):
    """One more engine set of processes that are started from this machine."""

    job: job.Job | None

    def launch(self, replaces: str = "") -> None:
        """Start it; *replaces* is the set that it comes instead of.

        Raises:
            LaunchError: the cluster does not run here, or something that is needed is missing.
        """
        launcher = catalog.load(self.profile.launcher)
        job.check_room(self.profile, self.n if self.profile.hosts else self.n + self.before)
        with record.locked(self.folder, _PATIENCE):
            found = self._found()
            if not found.is_here:
                raise LaunchError(f"{found.name} was started on {found.host}: its engines are added there")
            number = _next(found.folder)
            self._mark = process.of_set(found.mark, number)
            plan = job.plan(
                launcher,
                self.profile,
                self.n,
                [job.python_of(self.profile), *job.engine_words(self.profile, self.folder)],
                self._mark,
                cwd=found.cwd,
                more={job.REPLACES: replaces} if replaces else None,
            )
            job.prepare(plan, self.profile, self.folder, found.mark)
            self.job = job.Job(plan, log_of(self.folder, self._mark))
            found.changed(engines=(*found.engines, *self.job.processes))
        for child in self.job.children:  # it stays when we go; as long as we are there, we reap it
            threading.Thread(target=child.wait, name="reaper", daemon=True).start()

    def abandon(self) -> None:
        """End it: its engines are not wanted any more."""
        if self.job is not None:
            end(self.folder, self._mark, self.job.processes)


def log_of(folder: Path, mark: str) -> Path:
    """Return the log of the engine set that carries *mark*."""
    number = mark.partition(".")[2]
    return record.log_folder(folder) / ("engines.log" if number in ("", "1") else f"engines-{number}.log")


def _next(folder: Path) -> int:
    """Return a number that no set of the cluster has had since it was started."""
    number = 2
    while (record.log_folder(folder) / f"engines-{number}.log").exists():
        number += 1
    return number


def end(folder: Path, mark: str, known: Iterable[Process], *, polite: float = 0.0) -> None:
    """End one of a cluster's engine sets, or some engines of it.

    Args:
        folder: the cluster's.
        mark: what all of its processes carry; empty: only the *known* ones are to end.
        known: processes of it.
        polite: seconds that they have to end by themselves, having been asked.

    Raises:
        LaunchError: some of it cannot be ended.
    """
    process.end(known, mark or _NOBODY, (), polite=polite)
    if mark:
        remote.end(folder, mark, forget=False)
    with record.locked(folder, _PATIENCE):
        found = record.read(folder)
        if found is not None and found.state == "running":
            found.changed(engines=tuple(one for one in found.engines if one.alive()))
