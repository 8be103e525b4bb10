"""An engine set on its way: from a launcher and a profile to processes.

::

    Launcher + Profile + n ──plan──▶ Plan (words, environment, how often) ──start──▶ Job (processes)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from hpcremote import files
from hpcremote.errors import LaunchError
from hpcremote.launch import hosts, inside, mpi, process, remote, text
from hpcremote.launch.culprit import Culprit
from hpcremote.launch.process import MARK, Child, Process, how_it_ended
from hpcremote.launch.spec import Launcher, Program
from hpcremote.profile import Profile
from hpcremote.wire.walltime import job_of

_TAIL = 30
#: Names to an engine the set in whose place its own is started.
REPLACES = "HPCREMOTE_REPLACES"
#: Names to an engine which of its cluster's jobs it belongs to: the same when that is queued again.
JOB = "HPCREMOTE_JOB"


def check_room(profile: Profile, n: int) -> None:
    """Refuse more engines than this machine can carry, where it is the one that would have to.

    Not every mpiexec counts slots: MPICH's starts 5,000 ranks on two cores, and nothing works any more.

    Raises:
        LaunchError: *n* is too many; the message says which key allows them.
    """
    if profile.hosts:
        hosts.deal(profile.hosts, n)
        return
    if profile.mpiexec_args or job_of(os.environ):  # a batch system counts the slots
        return
    cores = len(os.sched_getaffinity(0))
    most = profile.max_ranks_per_core * cores
    if n > most:
        raise LaunchError(
            f"{n} engines are too many for this machine: it has {cores} cores, and profile {profile.name!r} "
            f"allows {profile.max_ranks_per_core} for each, {most} in all. Start fewer, name other hosts in "
            "mpiexec_args, or raise max_ranks_per_core"
        )


@dataclass(frozen=True)
class Plan:
    """What will be run: *words*, *times* times, with *env* in *cwd*.

    ``runs`` has words and standard input of each where they differ, as from host to host.
    """

    launcher: Launcher
    words: list[str]
    times: int
    env: dict[str, str]
    cwd: str
    values: text.Values = field(repr=False)
    starter: mpi.Starter | None = None
    dealt: tuple[hosts.Host, ...] = ()
    runs: tuple[tuple[list[str], str], ...] = ()


def base_environment(profile: Profile, mark: str) -> dict[str, str]:
    """Return the environment of a cluster's processes: ours, with the mark."""
    # They have another working directory: a relative folder would be another one there.
    env = {**os.environ, MARK: mark, "HPCREMOTE_DIR": str(files.user_dir())}
    if where := checkout(profile):
        env["PYTHONPATH"] = os.pathsep.join(filter(None, [where, env.get("PYTHONPATH", "")]))
    return env


def checkout(profile: Profile) -> str:
    """Return the folder of this very hpcremote if it is not installed, for engines to find it; or nothing."""
    folder = Path(__file__).parents[2]
    return "" if profile.python or folder.name in ("site-packages", "dist-packages") else str(folder)


def python_of(profile: Profile) -> str:
    """Return the interpreter for the cluster's processes."""
    return profile.python or sys.executable


def working_dir(profile: Profile) -> str:
    """Return the folder that engines start in."""
    return os.path.abspath(profile.working_dir or os.getcwd())


def engine_words(profile: Profile, folder: Path) -> list[str]:
    """Return the words for Python that run one engine of the cluster in *folder*."""
    file, wait = folder / "engine.json", f"{profile.start_timeout:g}"
    return ["-m", "hpcremote", "engine", "--file", str(file), "--wait", wait]


def plan(
    launcher: Launcher,
    profile: Profile,
    n: int,
    engine: Sequence[str],
    mark: str,
    *,
    cwd: str = "",
    more: Mapping[str, str] | None = None,
) -> Plan:
    """Return how *n* engines (the words *engine* run one) are started here.

    Args:
        launcher: what starts them.
        profile: the cluster's.
        n: how many.
        engine: the words that run one.
        mark: what they carry in their environment.
        cwd: the folder that they start in; unset: as the profile says, or this one.
        more: what else is in their environment.

    Raises:
        LaunchError: what the launcher needs is not here.
    """
    extra = {"HPCREMOTE_EXPECT": str(n)} if launcher.mpi else {"HPCREMOTE_MPI": "0"}
    if not profile.hosts:
        extra |= inside.ends({**os.environ, **profile.environment})
    extra |= more or {}
    env = {
        **base_environment(profile, mark),
        **profile.environment,
        **extra,
        "HPCREMOTE_LOG_LEVEL": profile.log_level,
    }
    values = _values(profile, n, engine, env, [MARK, JOB, *extra])
    dealt = _dealt(launcher, profile, n)
    values |= hosts.values(dealt, remote.command(profile))
    lines, table, starter = launcher.command, dict(launcher.environment), None
    if launcher.program is not None:
        starter = _starter(launcher, launcher.program, profile, env, values)
        values |= {"program": starter.path, "flavour": starter.flavour.name, "version": starter.version}
        values = {**starter.flavour.values, **values}
        lines = starter.flavour.command or lines
        table |= starter.flavour.environment
    if profile.srun_mpi:
        values["srun_mpi"] = profile.srun_mpi
    for name, value in text.environment(table, values).items():
        env.setdefault(name, value)  # the user's own setting wins
    cwd = cwd or working_dir(profile)
    return Plan(
        launcher=launcher,
        words=text.command(lines, values),
        times={"each": n, "host": len(dealt)}.get(launcher.ranks, 1),
        env=env,
        cwd=cwd,
        values=values,
        starter=starter,
        dealt=tuple(dealt),
        runs=_runs(dealt, lines, values, engine, env, cwd) if launcher.ranks == "host" else (),
    )


def prepare(plan: Plan, profile: Profile, folder: Path, mark: str) -> None:
    """See whether engines can start on the plan's hosts, if it has any, and write these down.

    Raises:
        LaunchError: on some they cannot.
    """
    if plan.dealt:
        ssh, python = remote.command(profile), str(plan.values["python"])
        path = {name: value for name, value in plan.env.items() if name == "PYTHONPATH"}
        remote.check(plan.dealt, ssh, hosts.looking(python, str(folder), plan.cwd, path))
        remote.note(folder, mark, plan.dealt, ssh)


def _dealt(launcher: Launcher, profile: Profile, n: int) -> list[hosts.Host]:
    """Return which hosts get how many engines; none where engines start here."""
    if launcher.ranks == "host" and not profile.hosts:
        raise LaunchError(
            f"launcher {launcher.name} needs hosts: in profile {profile.name}, as in [node1, node2:4]"
        )
    return hosts.deal(profile.hosts, n) if profile.hosts else []


def _runs(
    dealt: Sequence[hosts.Host],
    lines: Sequence[str],
    values: text.Values,
    engine: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
) -> tuple[tuple[list[str], str], ...]:
    """Return the words and the shell's script for each host."""
    names = [*cast("list[str]", values["export"]), "HPCREMOTE_DIR"]
    there = {name: env[name] for name in names}
    return tuple(
        (text.command(lines, {**values, "host": host.name}), hosts.starting(host, engine, there, cwd))
        for host in dealt
    )


def _values(
    profile: Profile, n: int, engine: Sequence[str], env: Mapping[str, str], ours: Sequence[str]
) -> dict[str, text.Value]:
    """Return what a launcher's lines may name."""
    return {
        "n": n,
        "python": python_of(profile),
        "profile": profile.name,
        "engine": list(engine),
        "args": list(profile.mpiexec_args),
        "export": sorted({*ours, "PYTHONPATH", "HPCREMOTE_LOG_LEVEL", *profile.environment} & env.keys()),
        "threads_per_rank": profile.threads_per_rank,
        "if_root": "" if os.geteuid() == 0 else None,
        "if_spare": None if profile.hosts or job_of(env) else "",
    }


def _starter(
    launcher: Launcher, program: Program, profile: Profile, env: Mapping[str, str], values: text.Values
) -> mpi.Starter:
    """Return the program that starts the ranks, and of which flavour they are."""
    python = python_of(profile)
    if launcher.chosen_by == "library":
        path = mpi.find(program, "", python, env, values)
        return mpi.identify_by_library(launcher, path, profile.mpi, python, env)
    path = mpi.find(program, profile.mpiexec, python, env, values)
    return mpi.identify(launcher, path, profile.mpi, env)


class Job:
    """The processes that make an engine set: n engines, or the one mpiexec that starts them."""

    def __init__(self, plan: Plan, log: Path) -> None:
        """Start them; when one cannot be started, those before it are the caller's to end (by the mark)."""
        self.plan = plan
        self.log = log
        with process.open_log(log) as file:
            file.write(f"$ {text.shown(plan.words)}\n".encode())
        self._culprit = Culprit(lambda: read_tail(log), plan.launcher.culprit)
        self.children: list[Child] = []
        try:
            for words, given in plan.runs or [(plan.words, "")] * plan.times:
                child = Child(words, env=plan.env, cwd=plan.cwd, log=log, leash=False, given=given)
                self.children.append(child)
        except LaunchError:
            for child in self.children:
                child.forget()
            raise

    @property
    def processes(self) -> list[Process]:
        """The processes that we started ourselves."""
        return [child.process for child in self.children]

    @property
    def described(self) -> str:
        """What starts the ranks, for people."""
        name = self.plan.launcher.name
        return f"{name}, {self.plan.starter}" if self.plan.starter else name

    #: Processes of this machine wait in no queue (see ``batch.submission``).
    waiting = False

    def standing(self) -> None:
        """Return where it stands before its engines can come: they come at once."""

    def forget(self) -> None:
        """Nobody has to be told that it is not watched any longer."""

    def quoted(self) -> str:
        """Return the last lines of its log."""
        return quote(self.log)

    def ended(self) -> str:
        """Return which process ended and how, or nothing while all run."""
        for number, child in enumerate(self.children):
            code = child.exit_code()
            if code is not None:
                who = f"engine {number}" if self.plan.launcher.ranks == "each" else Path(child.words[0]).name
                if self.plan.runs:
                    who = f"{who} to {self.plan.dealt[number].name}"
                return f"{who} ended before all engines were there ({how_it_ended(code)})"
        return self._culprit.look()

    def meaning(self, *, lonely: bool = False) -> str:
        """Return what is known of why it went wrong, with the remedy, or nothing.

        Args:
            lonely: the ranks did not find each other. Without it the MPI library is looked at all the same.
        """
        plan = self.plan
        if not lonely and (known := text.explain(plan.launcher.hints, read_tail(self.log), plan.values)):
            return known
        if plan.starter is None:
            return ""
        said = mpi.look(str(plan.values["python"]), plan.env)
        return mpi.why_lonely(plan.launcher, plan.starter, said) or (
            mpi.no_reason(plan.starter, said) if lonely else ""
        )


def failure(what: str, meaning: str, *said: str) -> LaunchError:
    """Return the error for *what* went wrong: with what is known of why, and what was *said* in logs."""
    first = f"{what}: {meaning}" if meaning else what
    return LaunchError("\n".join(filter(None, [first, *said])))


def read_tail(log: Path, size: int = 65536) -> str:
    """Return the end of a log, or nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def own_words(log: Path) -> str:
    """Return the last that one of our own commands said in a log before it gave up, or nothing."""
    return text.complaint(read_tail(log))


def quote(*logs: Path) -> str:
    """Return the last lines of *logs*, each under its name; those that say nothing are left out."""
    parts = [(log, text.tail(read_tail(log), _TAIL)) for log in logs]
    return "\n".join(f"--- {log}\n{said}" for log, said in parts if said)
