"""What PBS Pro and Torque have in common, for the fake commands of both. After their public manuals."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path

import machine

SERVER = "fake-server"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        machine.fail(f"qsub: {message}", 2)


def qsub(resources: str, version: str) -> None:
    """Take a job; *resources* is the pattern of what may follow -l."""
    words = sys.argv[1:]
    if words == ["--version"]:
        print(version)
        return
    text = Path(words[-1]).read_text()
    for line in text.splitlines():
        if line.startswith("#PBS "):
            words = [*shlex.split(line[5:]), *words]
    parser = _Parser(add_help=False)
    for option in "SNjoqA":
        parser.add_argument(f"-{option}")
    parser.add_argument("-V", action="store_true")
    parser.add_argument("-l", action="append", default=[])
    parser.add_argument("script")
    asked = parser.parse_args(words)
    if asked.q and asked.q not in machine.QUEUES:
        machine.fail("qsub: Unknown queue", 170)
    for part in asked.l:
        if not re.fullmatch(resources, part):
            machine.fail(f"qsub: Illegal attribute or resource value Resource_List.{part}", 168)
    nodefile = machine.folder() / f"nodefile.{os.getpid()}"
    machine.folder().mkdir(parents=True, exist_ok=True)
    nodefile.write_text(f"{os.uname().nodename}\n" * _slots(asked.l))
    environment = {"PBS_JOBID": f"{{id}}.{SERVER}", "PBS_NODEFILE": str(nodefile)}
    job = machine.submit(text, environment, name=asked.N)
    print(f"{job.number}.{SERVER}")


def _slots(resources: list[str]) -> int:
    found = re.search(r"(?:mpiprocs|ppn)=(\d+)", " ".join(resources))
    return int(found[1]) if found else 1


def jobs(words: list[str], command: str) -> list[machine.Job]:
    """Return the jobs that are named, saying of which there are none."""
    found = []
    for word in words:
        job = machine.Job(word.partition(".")[0])
        if job.exists:
            found.append(job)
        else:
            print(f"{command}: Unknown Job Id {word}", file=sys.stderr)
    return found


def status(code: int | None) -> int:
    """Return how PBS says *code* of Popen: signals by 256."""
    return 256 - code if code is not None and code < 0 else code or 0


def show(job: machine.Job, letter: str, more: dict[str, str]) -> None:
    """Print a job's attributes."""
    print(f"Job Id: {job.number}.{SERVER}")
    lines = {
        "Job_Name": job.facts["name"],
        "Job_Owner": f"ada@{SERVER}",
        "job_state": letter,
        "queue": "batch",
    }
    for key, value in {**lines, "server": SERVER, **more}.items():
        print(f"    {key} = {value}")
    print()


def qdel() -> None:
    """End jobs."""
    named = sys.argv[1:]
    found = jobs(named, "qdel")
    for job in found:
        job.tell("cancel")
    sys.exit(0 if len(found) == len(named) else 153)
