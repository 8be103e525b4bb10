"""A job before it is submitted: its script, and the command that hands it in.

::

    Profile + n + Scheduler + template ──draft, of_controller──▶ Draft (script, words)
                                                                    └─▶ shown, or run by submission.py
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpcremote import files
from hpcremote.launch import catalog, job, record, text
from hpcremote.launch.batch import script
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.launch.process import MARK, of_set
from hpcremote.launch.spec import Launcher
from hpcremote.profile import Profile

#: The file that the controller's output goes to.
CONTROLLER_LOG = "controller.log"
#: Seconds: who waits for the start, or stops the cluster, ends the job before.
_AS_LONG_AS_IT_TAKES = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Draft:
    """A job that could be submitted.

    Attributes:
        scheduler: where.
        launcher: how its ranks start.
        n: how many engines; none in a job of the controller's own.
        set: what they carry to say which job they belong to, or ``record.CONTROLLER``.
        path: where the script goes.
        log: where the job's output goes.
        script: the script.
        words: the command that submits it.
        values: what was filled in, for messages.
    """

    scheduler: Scheduler
    launcher: Launcher
    n: int
    set: str
    path: Path
    log: Path
    script: str
    words: list[str]
    values: text.Values = field(repr=False)

    @property
    def command(self) -> str:
        """The command as one would type it."""
        shown = text.shown(self.words)
        return f"{shown} < {text.shown([str(self.path)])}" if self.scheduler.submit.stdin else shown


def draft(  # noqa: PLR0913 - facts about one job
    profile: Profile,
    n: int,
    folder: Path,
    mark: str,
    *,
    number: int = 1,
    cwd: str = "",
    controller: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
    after: str = "",
) -> Draft:
    """Return the job that brings *n* engines to the cluster in *folder*.

    Args:
        profile: the cluster's.
        n: how many engines.
        folder: the cluster's folder.
        mark: what its processes carry in their environment.
        number: which of the cluster's jobs it is.
        cwd: the folder that the engines start in; unset: as the profile says, or this one.
        controller: the words for Python that run the controller, if that is in the job.
        more: what else is in the engines' environment.
        after: the job that is to begin before this one, where the scheduler can see to that.

    Raises:
        LaunchError: what the profile asks for contradicts itself.
        LauncherError: a file is missing or wrong.
    """
    suffix = "" if number == 1 else f"-{number}"
    python = job.python_of(profile)
    values: dict[str, script.Value] = {
        "controller": (python, *controller) if controller else None,
        "controller_log": str(record.log_folder(folder) / CONTROLLER_LOG),
        "if_controller": "" if controller else None,
        "if_no_controller": None if controller else "",
        "again": str(folder / record.AGAIN) if controller else None,
        "probe": None if controller else (python, *_probe(profile, folder)),
        "if_probe": None if controller else "",
        "ranks": (python, *_ranks(profile, n, folder)),
        "if_ranks": "",
        "cwd": cwd or job.working_dir(profile),
        "after": after or None,
    }
    marks = {MARK: of_set(mark, number), job.JOB: f"job{suffix}"}
    environment = {**marks, **(more or {}), **profile.environment}
    path, log = folder / f"job{suffix}.sh", record.log_folder(folder) / f"engines{suffix}.log"
    return _drafted(profile, (n, f"job{suffix}"), (path, log), environment, values)


def of_controller(profile: Profile, folder: Path, mark: str, controller: Sequence[str]) -> Draft:
    """Return the job that the controller (the words for Python that run it) has for itself.

    Raises:
        LaunchError, LauncherError: as :func:`draft`.
    """
    own = profile.of_controller()
    values: dict[str, script.Value] = {
        "alone": (job.python_of(own), *controller),
        "if_alone": "",
        "cwd": str(folder),
    }
    path, log = folder / "controller.sh", record.log_folder(folder) / CONTROLLER_LOG
    return _drafted(own, (0, record.CONTROLLER), (path, log), {MARK: mark}, values)


def _drafted(
    profile: Profile,
    what: tuple[int, str],
    paths: tuple[Path, Path],
    environment: Mapping[str, str],
    more: Mapping[str, script.Value],
) -> Draft:
    """Return a job: *what* is how many engines and the job's key, *paths* its script and log."""
    scheduler = catalog.scheduler(profile.scheduler)
    launcher = catalog.load(profile.launcher)
    (n, key), (path, log) = what, paths
    here = job.checkout(profile)
    environment = {MARK: environment[MARK], "HPCREMOTE_DIR": str(files.user_dir()), **environment}
    defaults = dict(scheduler.defaults)
    if n == 0:  # one process is not spread over anything
        defaults.pop("parallel_environment", None)
    values: dict[str, script.Value] = {
        **script.resources(profile, n or 1, defaults),
        "log": str(log),
        "environment": script.environment(environment, [here] if here else []),
        "job_variable": scheduler.inside,
        **more,
    }
    template = catalog.template(f"{profile.scheduler}.sh.in")
    script.check_use(profile, template, scheduler.submit.command)
    written = script.render(template, values, catalog.template)
    about: dict[str, text.Value] = {
        **{name: value for name, value in values.items() if value is not None},
        "script": str(path),
        "log": str(log),
        "profile": profile.name,
        "python": job.python_of(profile),
    }
    words = text.command(scheduler.submit.command, about)
    return Draft(scheduler, launcher, n, key, path, log, written, words, about)


def _probe(profile: Profile, folder: Path) -> list[str]:
    patience = profile.start_timeout
    if profile.controller == "own-job":  # its job may wait while this one runs
        patience = profile.walltime or _AS_LONG_AS_IT_TAKES
    file, wait = folder / "engine.json", f"{patience:g}"
    return ["-m", "hpcremote", "probe", "--file", str(file), "--wait", wait]


def _ranks(profile: Profile, n: int, folder: Path) -> list[str]:
    words = ["-m", "hpcremote", "ranks", "-n", str(n), "--launcher", profile.launcher]
    words += ["--profile", profile.name]
    if profile.mpi != "auto":
        words += ["--mpi", profile.mpi]
    for option in ("mpiexec", "srun_mpi", "threads_per_rank", "log_level"):
        value = getattr(profile, option)
        if value not in ("", None):
            words += [f"--{option.replace('_', '-')}", str(value)]
    words += ["--file", str(folder / "engine.json"), "--wait", f"{profile.start_timeout:g}"]
    return [*words, *(["--", *profile.mpiexec_args] if profile.mpiexec_args else [])]
