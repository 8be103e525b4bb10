"""Starting a cluster's processes, and ending them.

::

    claim the cluster's folder ──▶ controller ──▶ (while that starts) find mpiexec ──▶ engines
                                       │                                                 │
                                       └──writes engine.json──▶ they wait for it ◀───────┘

With a ``scheduler`` in the profile the engines are submitted as a job. With ``controller: job`` the
controller is part of that job; with ``controller: own-job`` it is a job of its own, submitted first.

The controller holds the *leash*: it reads its standard input and ends, with its engines, when that
closes, which the system does for us however we come to our end. ``detach`` makes it live on without us.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpcremote import files
from hpcremote.errors import AlreadyRunning, LaunchError
from hpcremote.ids import new_uid
from hpcremote.launch import catalog, ending, job, memory, process, record, remote, text
from hpcremote.launch.batch import draft, jobs, spread
from hpcremote.launch.batch.draft import Draft
from hpcremote.launch.batch.submission import Standing, Submission
from hpcremote.launch.process import Child, of_pid
from hpcremote.launch.spec import Launcher
from hpcremote.profile import Profile

#: How long a controller's job may take to end after that of its engines.
_LAST_WORDS = 30.0
#: How often it is looked whether somebody stops the cluster that starts, in seconds.
_GLANCE = 1.0
#: What stands in a script that is only shown.
_ITS_ID = "ID-OF-THE-CONTROLLERS-JOB"


class Startup:
    """The processes of one cluster that we started.

    Attributes:
        record: what is written down about them.
        job: the engines', once they are started.
        known: engines that failed before: none.
    """

    known: Sequence[Mapping[str, Any]] = ()

    def __init__(self, profile: Profile, cluster_id: str, n: int, *, temporary: bool = False) -> None:
        self.profile = profile
        self.n = n
        self.job: job.Job | Submission | None = None
        self.record = record.Record(
            profile=profile.name,
            cluster_id=cluster_id,
            mark=new_uid(),
            machine=files.machine_id(),
            host=socket.gethostname(),
            started=time.time(),
            n=n,
            launcher=profile.launcher,
            state="starting",
            temporary=temporary,
            owner=of_pid(os.getpid()),
            controller_at=profile.controller,
        )
        self._claimed = False
        self._look_again = 0.0
        self._controller: Child | None = None
        self._own: Submission | None = None  # the controller's job

    @property
    def mark(self) -> str:
        """What the engines' processes carry."""
        return process.of_set(self.record.mark, 1)

    @property
    def logs(self) -> Path:
        """The folder of the logs."""
        return record.log_folder(self.record.folder)

    def launch(self, controller: Sequence[str], engine: Sequence[str]) -> None:
        """Start everything; the words run one controller and one engine.

        Raises:
            AlreadyRunning: a cluster of that profile and id lives.
            LaunchError: something that is needed is not here. What was started is the caller's to end.
        """
        launcher = catalog.load(self.profile.launcher)
        self._check(controller)
        # Held until all that is begun is written down: whoever stops the cluster meanwhile waits for that.
        with record.locked(files.private_dir(self.record.folder)):
            self._claimed = True  # from here on there may be something to end
            try:
                record.claim(self.record, jobs.condition, jobs.clear)
            except AlreadyRunning:
                self._claimed = False
                raise
            self._begin(launcher, controller, engine)

    def _begin(self, launcher: Launcher, controller: Sequence[str], engine: Sequence[str]) -> None:
        if self.profile.scheduler:  # it may refuse, and then nothing has been started for nothing
            cwd = self._submit(controller)
        if not self._in_job:
            self._start_controller(controller)
        if not self.profile.scheduler:
            cwd = self._start_engines(launcher, engine)
        assert self.job is not None  # noqa: S101 (either way)
        self.record = self.record.changed(
            engines=tuple(self.job.processes), launcher=self.job.described, cwd=cwd
        )

    def _check(self, controller: Sequence[str]) -> None:
        """Say what is wrong before anything is started."""
        named = f"profile {self.profile.name!r}"
        if self.profile.scheduler and self.profile.hosts:
            raise LaunchError(f"{named} has hosts: and scheduler: where one of them says which nodes")
        if self._in_job and not self.profile.scheduler:
            raise LaunchError(
                f"{named} has controller: {self.profile.controller}, and no scheduler: that a job could be "
                "submitted to"
            )
        if self.profile.scheduler:
            spread.check(self.drafts(controller)[-1])
        else:
            job.check_room(self.profile, self.n)

    def _submit(self, controller: Sequence[str]) -> str:
        """Submit the jobs; return the folder that the engines start in."""
        *own, engines = self.drafts(controller)
        if own:
            self._own = Submission(own[0], self._note)
            engines = self.drafts(controller, after=self._own.job.id)[-1]
        self.job = Submission(engines, self._note)
        return str(engines.values["cwd"])

    def _start_engines(self, launcher: Launcher, engine: Sequence[str]) -> str:
        """Start the engines here; return the folder that they start in."""
        words = [job.python_of(self.profile), *engine]
        plan = job.plan(launcher, self.profile, self.n, words, self.mark)
        job.prepare(plan, self.profile, self.record.folder, self.record.mark)
        self.job = job.Job(plan, self.logs / "engines.log")
        return plan.cwd

    @property
    def _in_job(self) -> bool:
        return self.record.controller_at != "here"

    def drafts(self, controller: Sequence[str], after: str = _ITS_ID) -> list[Draft]:
        """Return the jobs that would be submitted, for a profile that names a scheduler."""
        where, folder, mark = self.record.controller_at, self.record.folder, self.record.mark
        alone = where == "own-job"
        engines = draft.draft(
            self.profile,
            self.n,
            folder,
            mark,
            controller=controller if where == "job" else (),
            after=after if alone else "",
        )
        return [*([draft.of_controller(self.profile, folder, mark, controller)] if alone else []), engines]

    def described(self, controller: Sequence[str], engine: Sequence[str]) -> str:
        """Return what :meth:`launch` would do: the script of a job, and the commands."""
        python = job.python_of(self.profile)
        lines = [] if self._in_job else [f"$ {text.shown([python, *controller])}"]
        if self.profile.scheduler:
            drafts = self.drafts(controller)
            spread.check(drafts[-1])
            for job_ in drafts:
                given = f" < {text.shown([str(job_.path)])}" if job_.scheduler.submit.stdin else ""
                lines += [
                    f"$ {text.shown(job_.words)}{given}",
                    "",
                    f"# {job_.path}",
                    job_.script.rstrip(),
                    "",
                ]
            lines.pop()
        else:
            launcher = catalog.load(self.profile.launcher)
            plan = job.plan(launcher, self.profile, self.n, [python, *engine], self.record.mark)
            times = f"    # {plan.times} times" if plan.times > 1 else ""
            if plan.runs:  # one for each host, with a script to its shell
                for words, given in plan.runs:
                    lines += [f"$ {text.shown(words)} <<'END'", given.rstrip(), "END"]
            else:
                lines.append(f"$ {text.shown(plan.words)}{times}")
        return "\n".join(lines)

    def _start_controller(self, words: Sequence[str]) -> None:
        self._controller = Child(
            [job.python_of(self.profile), *words, "--leash"],
            env=job.base_environment(self.profile, self.record.mark),
            cwd=str(self.record.folder),
            log=self.logs / "controller.log",
            leash=True,
        )
        self.record = self.record.changed(controller=self._controller.process)

    def _note(self, submitted: record.Submitted) -> None:
        self.record = self.record.changed(jobs=(*self.record.jobs, submitted))

    def trouble(self) -> LaunchError | None:
        """Return the error if a process ended by now, or somebody else stops the cluster."""
        found = self._trouble()
        if found is None and time.monotonic() < self._look_again:
            return None
        self._look_again = time.monotonic() + _GLANCE
        return self._stopped() or found

    def _stopped(self) -> LaunchError | None:
        """Return the error if somebody else has stopped the cluster, or is at it."""
        return LaunchError(f"{self.record.name} was stopped while it started") if self._lost else None

    @property
    def _lost(self) -> bool:
        return self._claimed and record.is_being_stopped(self.record.folder, self.record.mark)

    def _trouble(self) -> LaunchError | None:
        if self._controller is not None and (code := self._controller.exit_code()) is not None:
            what, log = f"the controller ended ({process.how_it_ended(code)})", self._controller.log
            return job.failure(what, job.own_words(log), job.quote(log))
        ended = self.job.ended() if self.job is not None else ""
        if ended and self._own is not None and not self.listens():
            self._own.wait(_LAST_WORDS)  # a controller that cannot start has the engines' job cancelled first
        if self._own is not None and (what := self._own.ended()):
            why = self._own.meaning() or job.own_words(self._own.log)
            return job.failure(what, why, job.quote(self._own.log))
        return self.failure(ended) if ended else None

    def failure(self, what: str, *, lonely: bool = False) -> LaunchError:
        """Return the error for *what* went wrong: with its reason if known, and the end of the logs."""
        if (stopped := self._stopped()) is not None:
            return stopped
        meaning = self.job.meaning(lonely=lonely) if self.job else ""
        said = self.job.quoted() if self.job else ""
        return job.failure(what, meaning, said, job.quote(self.logs / "controller.log"))

    def listens(self) -> bool:
        """Whether the controller listens: it has written its connection file."""
        if self._in_job:
            os.listdir(self.record.folder)  # has network file systems look again
        return (self.record.folder / "client.json").exists()

    def standing(self) -> Standing | None:
        """Return where the jobs stand: the controller's until that listens, then the engines'."""
        own = self._own.standing() if self._own else None
        if own is not None and not self.listens():
            return own
        return self.job.standing() if self.job else None

    @property
    def waiting(self) -> bool:
        """Whether a job waits in a queue: that is no time of the start."""
        return any(one.waiting for one in (self._own, self.job) if one is not None)

    def ready(self) -> None:
        """Write down that the cluster runs.

        Raises:
            LaunchError: somebody else stops it.
        """
        if self.job is not None and self.job is not self._home:
            self.job.forget()  # from here on the controller asks, when engines go
        shared = {self.mark: memory.mapped(process.marked(self.mark))}
        try:
            with record.locked(self.record.folder, ending.OTHERS):
                if (stopped := self._stopped()) is not None:
                    raise stopped
                self.record = self.record.changed(state="running", memory=shared)
        except AlreadyRunning as error:
            raise self._stopped() or error from None

    def detach(self) -> None:
        """Let the cluster live on when we end."""
        for child in self.children:
            child.forget()

    @property
    def _home(self) -> Submission | None:
        """The job that the controller is in, if it is in one."""
        if self._own is not None or not isinstance(self.job, Submission):
            return self._own
        return self.job if self._in_job else None

    @property
    def running(self) -> bool:
        """Whether the controller runs, or the job does that it is in."""
        if self._controller is None:
            return self._home is not None and not self._home.ended()
        return self._controller.process.alive()

    def wait(self) -> None:
        """Wait until the controller has ended, or the job that it is in."""
        if self._controller is not None:
            self._controller.wait()
        elif self._home is not None:
            self._home.wait()

    @property
    def children(self) -> list[Child]:
        """The processes that we started ourselves."""
        controller = [self._controller] if self._controller else []
        return [*controller, *(self.job.children if self.job else [])]

    def abandon(self) -> None:
        """End a start half way: nothing in it is worth waiting for."""
        if not self._claimed:
            return
        try:
            if self._lost:
                self._clear()
                return
            try:
                ending.end(self.record, self.children, polite=0.0, keep_logs=True)
            except AlreadyRunning:
                if not self._lost:
                    raise
                self._clear()
        finally:  # until here it helped to know how the jobs are
            for one in (self._own, self.job):
                if one is not None:
                    one.forget()

    def _clear(self) -> None:
        """End what whoever stops the cluster may not have seen, after them; or all, if they could not."""
        with contextlib.suppress(AlreadyRunning), record.locked(self.record.folder, ending.OTHERS):
            found = record.read(self.record.folder)
            if found is not None and found.mark == self.record.mark:
                ending.end_locked(self.record, self.children, 0.0, keep_logs=True)
                return
        for child in self.children:
            child.drop_leash()
        jobs.clear(self.record, self.children)
        remote.end(self.record.folder, self.record.mark, forget=False)
