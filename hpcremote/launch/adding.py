"""One more engine set for a cluster that runs, started as the first one was, and watched as a start is.

::

    Cluster.start_engines(n) ──┬─▶ More (batch/more.py)   another job
                               └─▶ Here                   processes here, or on the hosts of the profile
                                      mark.2, engines-2.log, the record ──▶ Watch
    Cluster.stop_engines(set) ──▶ end()                   exactly what carries the set's mark
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcremote import files
from hpcremote.errors import AlreadyRunning, LaunchError
from hpcremote.launch import catalog, job, memory, process, record, remote
from hpcremote.launch.batch.submission import Standing, Submission
from hpcremote.launch.process import Process
from hpcremote.profile import Profile


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
        mark: what its processes carry, and no others do, once some of it may run.
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
        self.mark = ""

    def launch(self, replaces: str = "") -> None:
        """Start it; *replaces* is the set that it comes instead of.

        Raises:
            LaunchError: it cannot be started.
        """
        raise NotImplementedError

    def ready(self) -> None:
        """Its engines have just registered: write down what is known only now."""
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
        found = record.read(self.folder)
        if found is None or found.state == "stopping":
            return LaunchError(f"the cluster in {self.folder} was stopped while engines were added")
        meaning = self.job.meaning(lonely=lonely) if self.job else ""
        return job.failure(what, meaning, self.job.quoted() if self.job else "")


class Here(Adding):
    """One more engine set of processes that are started from this machine."""

    job: job.Job | None

    def launch(self, replaces: str = "", mark: str = "") -> None:
        """Start it; *replaces* is the set that it comes instead of, *mark* what that one carried.

        Raises:
            LaunchError: the cluster does not run here, or something that is needed is missing.
        """
        launcher = catalog.load(self.profile.launcher)
        if not mark:
            job.check_room(self.profile, self.n if self.profile.hosts else self.n + self.before)
        with record.locked(self.folder, record.PATIENCE):
            found = self._found()
            if not found.is_here:
                raise LaunchError(f"{found.name} was started on {found.host}: its engines are added there")
            again = bool(mark)
            mark = mark or process.of_set(found.mark, _next(found.folder))
            plan = job.plan(
                launcher,
                self.profile,
                self.n,
                [job.python_of(self.profile), *job.engine_words(self.profile, self.folder)],
                mark,
                cwd=found.cwd,
                more={job.REPLACES: replaces} if replaces else None,
            )
            if not again:
                job.prepare(plan, self.profile, self.folder, found.mark)
            # Some of it may run, even if not all of it can be started. Engines that are started again one by
            # one carry the mark of others.
            self.mark = "" if again and launcher.ranks != "together" else mark
            self.job = job.Job(plan, log_of(self.folder, mark))
            found.changed(engines=(*found.engines, *self.job.processes))
        for child in self.job.children:  # it stays when we go; as long as we are there, we reap it
            threading.Thread(target=child.wait, name="reaper", daemon=True).start()

    def abandon(self) -> None:
        """End it: its engines are not wanted any more."""
        if self.mark or self.job:
            shared = memory.mapped(process.marked(self.mark))
            end(self.folder, self.mark, self.job.processes if self.job else ())
            memory.remove(shared)
        if self.job and self.job.plan.dealt and not self.mark:  # what an ssh started outlives it
            carries = f"{job.REPLACES}={self.job.plan.env[job.REPLACES]}"
            remote.end(self.folder, self.job.plan.env[process.MARK], carries=carries, forget=False)

    def ready(self) -> None:
        """Its engines have just registered: write down what shared memory their MPI library has made.

        If somebody is at the cluster for too long, it is not: then that is left if they are killed.
        """
        shared = memory.mapped(process.marked(self.mark))
        with contextlib.suppress(AlreadyRunning), record.locked(self.folder, record.PATIENCE):
            found = record.read(self.folder)
            if shared and found is not None and found.state == "running":
                found.with_memory(self.mark, shared)


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


def end(folder: Path, mark: str, known: Iterable[Process], *, polite: float = 0.0, firm: float = 3.0) -> None:
    """End one of a cluster's engine sets, or some engines of it.

    Args:
        folder: the cluster's.
        mark: what all of its processes carry; empty: only the *known* ones are to end.
        known: processes of it.
        polite: seconds that they have to end by themselves, having been asked.
        firm: seconds between SIGTERM and SIGKILL.

    Raises:
        LaunchError: some of it cannot be ended.
    """
    process.end(known, mark, (), polite=polite, firm=firm)
    if mark:
        remote.end(folder, mark, forget=False)
    with record.locked(folder, record.PATIENCE):
        found = record.read(folder)
        if found is not None and found.state == "running":
            memory.remove(found.memory.get(mark, ()))
            left = {other: paths for other, paths in found.memory.items() if other != mark}
            found.changed(engines=tuple(one for one in found.engines if one.alive()), memory=left)
