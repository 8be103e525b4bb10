"""Inside a job: find what starts ranks here, say how, and become that.

What fits is seen where it matters: after the job's setup lines, on its first node.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from hpcremote.errors import LaunchError
from hpcremote.launch import catalog, job, text
from hpcremote.launch.process import MARK
from hpcremote.profile import Profile


def start(profile: Profile, n: int, engine: Sequence[str], say: Callable[[str], object]) -> NoReturn:
    """Become the program that starts *n* ranks (the words *engine* run one), having *said* the command.

    Raises:
        LaunchError: what the launcher needs is not here.
    """
    launcher = catalog.load(profile.launcher)
    if launcher.ranks == "each":
        raise LaunchError(
            f"launcher: {launcher.name} starts each engine by itself, and a job needs one that starts ranks "
            "on all of its nodes: mpiexec, or srun in a job of Slurm"
        )
    plan = job.plan(launcher, profile, n, engine, os.environ.get(MARK, ""), cwd=os.getcwd())
    if plan.starter is not None:
        say(f"hpcremote: {n} ranks by {plan.starter}")
    say(f"$ {text.shown(plan.words)}")
    try:
        os.execvpe(plan.words[0], plan.words, plan.env)  # noqa: S606 (words, no shell)
    except OSError as error:
        sys.exit(f"hpcremote: cannot run {plan.words[0]}: {error.strerror}")
