"""``hpcremote run``: a cluster for one program, and the program's exit code.

::

    start ──▶ program with $HPCREMOTE_PROFILE, $HPCREMOTE_CLUSTER_ID: its Client() finds the cluster ──▶ stop
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hpcremote import profile
from hpcremote.cli import options
from hpcremote.cli.show import Show
from hpcremote.cli.signals import ended_by_signals
from hpcremote.cli.start import add_cluster, cluster_of
from hpcremote.cluster import Cluster
from hpcremote.errors import ConfigError
from hpcremote.launch import inside, program


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser(
        "run",
        "Start a cluster, run a Python program whose Client() finds it, stop the cluster, and exit with the "
        "program's exit code. In a batch system's job the engines are ranks of that job, as many as it has "
        "slots (Slurm, Grid Engine, PBS, Torque, LSF; under Flux and HTCondor -n says how many).",
    )
    add_cluster(made)
    made.add_argument("-m", dest="module", metavar="MODULE", help="run a module instead of a file")
    made.add_argument("program", nargs=argparse.REMAINDER, help="the file, and its arguments")
    args = made.parse_args(words)
    command = _command(args.module, args.program)
    _use_job(args)
    show = Show(quiet=args.quiet)
    show.take_warnings()
    cluster = cluster_of(args, args.cluster_id, show, ends_with_us=True)
    with ended_by_signals():
        try:
            cluster.start()
        finally:
            show.end_line()
        try:
            code = program.run(command, _environment(cluster))
        finally:
            cluster.stop()
    return code if code >= 0 else 128 - code


def _use_job(args: argparse.Namespace) -> None:
    """Inside of a job no other is submitted: its own nodes and slots are used."""
    here = inside.job()
    if here is None:
        return
    named = args.profile or os.environ.get("HPCREMOTE_PROFILE")
    args.profile, settings = inside.adapt(here, named, dict(args.settings))
    args.settings = list(settings.items())
    if args.n is None and profile.load(args.profile, settings).n is None:
        args.n = here.slots


def _command(module: str | None, rest: list[str]) -> list[str]:
    """Return the program's words, if there is such a program: not only when the engines are there."""
    if module:
        return [sys.executable, "-m", module, *rest]
    if not rest:
        raise ConfigError("no program is named: hpcremote run -n 4 program.py, or -m module")
    if not Path(rest[0]).is_file():
        raise ConfigError(f"there is no program {rest[0]} in {Path.cwd()}")
    return [sys.executable, *rest]


def _environment(cluster: Cluster) -> dict[str, str]:
    chosen = {"HPCREMOTE_PROFILE": cluster.profile.name, "HPCREMOTE_CLUSTER_ID": cluster.cluster_id}
    return {**os.environ, **chosen}
