"""When a batch job ends, from what is known inside of it. Pure.

::

    environment ──known()──▶ seconds left, or None       HPCREMOTE_ENDS, SLURM_JOB_END_TIME
                ──system()─▶ "slurm" ──question()──▶ words of a command ──answer()──▶ seconds left, or None

Time is passed on as seconds that are left: clocks of nodes differ.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping

#: Set by our job scripts, or by hand: when the job ends, in seconds since the epoch.
ENDS = "HPCREMOTE_ENDS"
#: Newer Slurms say so themselves (22.05 does not).
_TIMES = (ENDS, "SLURM_JOB_END_TIME")
#: Set by batch systems inside a job.
BATCH = (
    *("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "COBALT_JOBID", "OAR_JOB_ID"),
    *("FLUX_JOB_ID", "FLUX_BATCH_JOB_ID", "CONDOR_JOB_ID"),
)
#: Signals by which batch systems say that they are about to end a job, and those after which they do.
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU, signal.SIGTERM)
FINAL = (signal.SIGXCPU, signal.SIGTERM)
_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?:(?:(?P<hours>\d+):)?(?P<minutes>\d+):)?(?P<seconds>\d+)")


def in_job(environ: Mapping[str, str]) -> bool:
    """Say whether this is inside a batch job."""
    return any(environ.get(name) for name in (*BATCH, ENDS))


def job_of(environ: Mapping[str, str]) -> str:
    """Return what names the batch job that this is inside of, or ""."""
    return next((f"{name}={environ[name]}" for name in BATCH if environ.get(name)), "")


def known(environ: Mapping[str, str], now: float) -> float | None:
    """Return in how many seconds the job ends, or None if that is not known.

    Raises:
        ValueError: HPCREMOTE_ENDS is not a time.
    """
    for name in _TIMES:
        if text := environ.get(name, "").strip():
            try:
                return max(0.0, float(text) - now)
            except ValueError:
                if name == ENDS:
                    raise ValueError(
                        f"the environment variable {ENDS} has to be seconds since the epoch, as `date +%s` "
                        f"prints them, not {text!r}"
                    ) from None
    return None


def system(environ: Mapping[str, str]) -> str:
    """Return which batch system can be asked when the job ends, or ""."""
    return "slurm" if environ.get("SLURM_JOB_ID") else ""


def question(environ: Mapping[str, str]) -> list[str]:
    """Return the words of the command that says so, or nothing."""
    job = environ.get("SLURM_JOB_ID", "")
    return ["squeue", "--noheader", "--format=%L", f"--jobs={job}"] if job else []


def answer(text: str) -> float | None:
    """Return the seconds in what it printed; -1 for a job without limit, None for anything else."""
    text = text.strip()
    if text == "UNLIMITED":
        return -1.0
    match = _CLOCK.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24.0 + hours) * 60 + minutes) * 60 + seconds


def words(seconds: float) -> str:
    """Return a span as people say it: ``10 minutes``, ``2 min 5 s``, ``1 h 30 min``."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} minutes"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
