"""What a scheduler's commands print, and what it means. Pure.

::

    sbatch's output ──job_id()──▶ "12"          squeue's ──rows()──▶ {"12": Seen("queued", reason="Priority")}
    scontrol's      ──end()────▶ End("memory", code=1)
"""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from hpcremote.launch.batch.scheduler import Ended, Scheduler, Status

#: How a job ended, in words.
_WORDS = {
    "cancelled": "it was cancelled",
    "preempted": "it was preempted by another job",
    "memory": "it used more memory than it may (out of memory)",
    "walltime": "its walltime was over",
    "node": "a node failed",
    "start": "the scheduler could not start it",
    "finished": "it has ended",
}

#: What stands between hosts (not in the brackets of a range); how many are too many, how many are shown then.
_BETWEEN_HOSTS = re.compile(r"[,+:](?![^\[]*\])")
_MANY, _SHOWN = 8, 3


@dataclass(frozen=True)
class Seen:
    """A job as its scheduler shows it; ``state`` is one of ours (``scheduler.STATES``), ``word`` its own."""

    state: str
    word: str = ""
    reason: str = ""
    start: str = ""
    hosts: str = ""

    def __str__(self) -> str:
        if self.state in ("queued", "stuck"):
            why = f": {self.reason}" if self.reason else ""
            when = f", start estimated for {self.start.replace('T', ' ')}" if self.start else ""
            held = f" ({self.word}: it will not start by itself)" if self.state == "stuck" else ""
            return f"queued{held}{why}{when}"
        where = f" on {_few(self.hosts)}" if self.hosts else ""
        return f"{self.state}{where}"


def _few(hosts: str) -> str:
    """Return hosts as a scheduler lists them, cut short where there are many."""
    listed = _BETWEEN_HOSTS.split(hosts)
    if len(listed) <= _MANY:
        return hosts
    return f"{', '.join(listed[:_SHOWN])} and {len(listed) - _SHOWN} more"


@dataclass(frozen=True)
class End:
    """How a job ended; ``outcome`` is one of ours (``scheduler.OUTCOMES``), or nothing."""

    outcome: str = ""
    code: int | None = None
    signal: int = 0
    reason: str = ""

    def __str__(self) -> str:
        how = []
        number = self.signal or _signal_in(self.code or 0)
        if number:
            how.append(f"killed by {signal_name(number)}")
        elif self.code:
            how.append(f"exit code {self.code}")
        if self.outcome in ("", "finished", "start"):
            words = "" if how and self.outcome != "start" else _WORDS[self.outcome or "finished"]
            said = ", ".join(filter(None, [words, *how]))
        else:
            said = _WORDS[self.outcome]  # by which signal is no news then
        return f"{said} ({self.reason})" if self.reason and self.reason not in said else said

    def after(self, words: str) -> str:
        """Return *words*, which say that the job has ended, with how if that is known."""
        how = str(self)
        return words if how == _WORDS["finished"] else f"{words}: {how}"


def _signal_in(code: int) -> int:
    """Return the signal that *code* stands for: shells add 128 to it, PBS and its kin 256."""
    return next((code - base for base in (128, 256) if base < code < base + 65), 0)


def signal_name(number: int) -> str:
    """Return a signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def job_id(scheduler: Scheduler, output: str) -> str | None:
    """Return the id of the job that was submitted, or None if it is not said."""
    match = scheduler.submit.job_id.search(output)
    return match["id"] if match else None


def rows(status: Status, output: str) -> dict[str, Seen]:
    """Return the jobs that the output of the status command has a row for, or one for each of its hosts."""
    found: dict[str, Seen] = {}
    for match in status.row.finditer(output):
        fields = {
            name: "" if status.nothing and status.nothing.fullmatch(text.strip()) else text.strip()
            for name, text in match.groupdict(default="").items()
        }
        fields["word"] = fields["state"]
        fields["state"] = _state(status.states, fields["word"])
        job = fields.pop("id")
        seen = Seen(**{name: fields.get(name, "") for name in Seen.__dataclass_fields__})
        found[job] = _with_hosts(found[job], seen.hosts) if job in found else seen
    return found


def _with_hosts(seen: Seen, more: str) -> Seen:
    known = seen.hosts.split(",") if seen.hosts else []
    return seen if more in ("", *known) else dataclasses.replace(seen, hosts=",".join([*known, more]))


def _state(states: Mapping[str, re.Pattern[str]], word: str) -> str:
    # A word that nobody has mapped: the job is in the list, so that it has not ended.
    return next((state for state, pattern in states.items() if pattern.fullmatch(word)), "running")


def end(how: Ended, output: str) -> End | None:
    """Return how a job ended if *output* says that at all."""
    if not how.known.search(output):
        return None
    outcome = next((name for name, pattern in how.outcomes.items() if pattern.search(output)), "")
    code = how.code.search(output) if how.code else None
    number = how.signal.search(output) if how.signal else None
    reason = how.reason.search(output) if how.reason else None
    return End(
        outcome,
        int(code["code"]) if code else None,
        int(number["signal"]) if number else 0,
        reason["reason"] if reason else "",
    )


def written(scheduler: Scheduler, output: str) -> str:
    """Return how the scheduler ended a job, in words, out of what it wrote into the job's *output*, or ""."""
    return next((_WORDS[name] for name, how in scheduler.writes.items() if how.search(output)), "")


def waits_why(pattern: re.Pattern[str], output: str) -> str:
    """Return why a job waits, or nothing; of several reasons the first."""
    match = pattern.search(output)
    return match["reason"].strip() if match else ""
