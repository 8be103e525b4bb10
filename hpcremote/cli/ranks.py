"""``hpcremote ranks``: inside a job, start its ranks by what is there (a job script does so)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn

from hpcremote import profile


def run(words: Sequence[str]) -> NoReturn:
    """Run the command: it becomes mpiexec or srun."""
    made = argparse.ArgumentParser(
        prog="hpcremote ranks",
        description="Inside a job: find mpiexec or srun and the options that the MPI library needs, print "
        "the command, and become it. A job script of hpcremote does this.",
        allow_abbrev=False,
    )
    made.add_argument("-n", metavar="N", type=int, required=True, help="how many ranks")
    made.add_argument("--file", metavar="engine.json", required=True, help="the engines' connection file")
    made.add_argument("--wait", metavar="SECONDS", default="30", help="for that file (default: 30)")
    made.add_argument("--launcher", metavar="NAME", default="mpiexec", help="mpiexec (default) or srun")
    made.add_argument("--profile", metavar="NAME", default="default", help="for messages")
    made.add_argument("--mpi", default="auto", help="auto (default), mpich, openmpi or intel")
    made.add_argument("--mpiexec", metavar="PATH", default="", help="unset: beside Python, then on PATH")
    made.add_argument("--srun-mpi", metavar="TYPE", default="", help="unset: what the MPI library needs")
    made.add_argument("--threads-per-rank", metavar="CORES", type=int, help="cores for each rank")
    made.add_argument("--log-level", metavar="LEVEL", default="info", help="what engines log (default: info)")
    made.add_argument("args", nargs="*", metavar="ARG", help="after --: more arguments for mpiexec or srun")
    args = made.parse_args(words)
    from hpcremote.launch import job, ranks

    chosen = profile.Profile(
        name=args.profile,
        launcher=args.launcher,
        mpi=args.mpi,
        mpiexec=args.mpiexec,
        srun_mpi=args.srun_mpi,
        threads_per_rank=args.threads_per_rank,
        log_level=args.log_level,
        mpiexec_args=tuple(args.args),
    )
    engine = ["-m", "hpcremote", "engine", "--file", args.file, "--wait", args.wait]
    ranks.start(chosen, args.n, [job.python_of(chosen), *engine], lambda line: print(line, flush=True))
