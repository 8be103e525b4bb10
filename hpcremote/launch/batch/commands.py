"""A scheduler's commands are run: words from its file, no shell; what they print is read elsewhere."""

from __future__ import annotations

import getpass
import os
import shlex
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from hpcremote.errors import LaunchError
from hpcremote.launch import text
from hpcremote.launch.batch import reading
from hpcremote.launch.batch.reading import End, Seen
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.launch.job import JOB, REPLACES
from hpcremote.launch.process import MARK, how_it_ended

#: Seconds that a scheduler has to answer: busy ones take long, and are not asked more often for that.
PATIENCE = 60.0
#: What says to which set a process of the cluster belongs. A job inherits the environment of the command that
#: submits it, and that is often run by the controller, which may be in another set's job.
_OURS = (MARK, JOB, REPLACES)


class Said(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    out: str
    errors: str

    @property
    def all(self) -> str:
        """Everything it said."""
        return f"{self.out}\n{self.errors}".strip()


def run(words: Sequence[str], stdin: str = "", seconds: float = PATIENCE) -> Said:
    """Run a command to its end, which has to come within so many seconds.

    Raises:
        LaunchError: it is not here, or does not end.
    """
    try:
        done = subprocess.run(
            words,
            input=stdin.encode(),
            capture_output=True,
            timeout=seconds,
            check=False,
            env={name: value for name, value in os.environ.items() if name not in _OURS},
            start_new_session=True,  # Ctrl-C is for us: what the scheduler has begun it shall finish
        )
    except subprocess.TimeoutExpired:
        raise LaunchError(f"{shlex.join(words)} did not answer within {seconds:g} s") from None
    except OSError as error:
        raise LaunchError(
            f"cannot run {words[0]} ({error.strerror}): this machine ({os.uname().nodename}) has no such "
            "batch system, or its commands are not on PATH; go to a login node, or load its module"
        ) from None
    return Said(done.returncode, *(part.decode(errors="replace") for part in (done.stdout, done.stderr)))


def status(scheduler: Scheduler, ids: Sequence[str]) -> dict[str, Seen]:
    """Return the jobs that the scheduler shows.

    Raises:
        LaunchError: it does not answer.
    """
    how = scheduler.status
    words = text.command(how.command, _about(ids))
    said = run(words)
    if said.code != 0 and not (how.unknown and how.unknown.search(said.all)):
        raise _failure(words[0], said)
    found = {job: seen for job, seen in reading.rows(how, said.out).items() if job in ids}
    return {job: _with_reason(scheduler, job, seen) for job, seen in found.items()}


def _with_reason(scheduler: Scheduler, job: str, seen: Seen) -> Seen:
    why = scheduler.status.why
    if why is None or seen.reason or seen.state not in ("queued", "stuck"):
        return seen
    said = run(text.command(why.command, _about([job])))
    return Seen(seen.state, seen.word, reading.waits_why(why.reason, said.out), seen.start, seen.hosts)


def how_ended(scheduler: Scheduler, job: str) -> End | None:
    """Return how a job ended, None if the scheduler does not tell (yet)."""
    for how in scheduler.ended:
        try:
            said = run(text.command(how.command, _about([job])))
        except LaunchError:
            continue  # sacct is not on every machine
        if (end := reading.end(how, said.all)) is not None:
            return end
    return None


def cancel(scheduler: Scheduler, ids: Sequence[str]) -> None:
    """Have jobs ended; that one is gone already is fine.

    Raises:
        LaunchError: the scheduler refuses, or does not answer.
    """
    words = text.command(scheduler.cancel, _about(ids))
    said = run(words)
    if said.code != 0 and not (scheduler.absent and scheduler.absent.search(said.all)):
        raise _failure(shlex.join(words), said)


def _failure(command: str, said: Said) -> LaunchError:
    words = text.tail(said.all, 2)
    return LaunchError(f"{command} fails ({how_it_ended(said.code)}){': ' if words else ''}{words}")


def _about(ids: Sequence[str]) -> text.Values:
    return {"ids": list(ids), "id_list": ",".join(ids), "id": ids[0], "user": getpass.getuser()}
