"""Scheduler files: YAML text to :class:`Scheduler`. Pure: text out, text in, and nothing is run here.

::

    launchers/slurm.yaml ──parse──▶ Scheduler ─┬─ submit   the command, and how its output gives the job's id
      (beside it slurm.sh.in)                  ├─ status   one command for many jobs, and how to read a row
                                               ├─ ended    commands that tell how a job ended, best first
                                               ├─ cancel, signal
                                               └─ hints    what refusals mean, in a sentence with a remedy

Our words for a job's state and for how it ended are :data:`STATES` and :data:`OUTCOMES`; a file maps the
scheduler's own to them by regular expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpcremote.launch.reader import Reader
from hpcremote.launch.spec import Hint, hints

#: How a job is. ``stuck``: it stays in the queue, and will not run unless somebody does something;
#: ``cancelling``: it is ending because somebody had it cancelled, where the scheduler tells that.
STATES = ("queued", "stuck", "running", "ending", "cancelling", "ended")
#: How a job ended; the first whose pattern is found is the one.
OUTCOMES = ("cancelled", "preempted", "memory", "walltime", "node", "start", "finished")


@dataclass(frozen=True)
class Submit:
    """How a script is handed in: the command, the id in what it prints; ``stdin``: it reads the script."""

    command: tuple[str, ...]
    job_id: re.Pattern[str]
    stdin: bool


@dataclass(frozen=True)
class Status:
    """How to ask for many jobs at once: a ``row`` for each, with groups id, state, reason, start, hosts.

    ``unknown`` is what it says, and fails, when it knows none of them; ``nothing`` matches words that mean
    nothing ("N/A"). ``why`` asks why one job waits, where a row does not tell.
    """

    command: tuple[str, ...]
    row: re.Pattern[str]
    states: Mapping[str, re.Pattern[str]]
    unknown: re.Pattern[str] | None
    nothing: re.Pattern[str] | None
    why: Why | None


@dataclass(frozen=True)
class Why:
    """A command about one job, and where in what it prints the reason for waiting is (group reason)."""

    command: tuple[str, ...]
    reason: re.Pattern[str]


@dataclass(frozen=True)
class Ended:
    """A command about one job that has ended, and how to read it.

    It is believed if ``known`` is found. ``code`` and ``signal`` have groups of these names.
    """

    command: tuple[str, ...]
    known: re.Pattern[str]
    outcomes: Mapping[str, re.Pattern[str]]
    code: re.Pattern[str] | None
    signal: re.Pattern[str] | None
    reason: re.Pattern[str] | None


@dataclass(frozen=True)
class Recognise:
    """How to tell whose the commands are, as several have a ``qsub``: it prints ``pattern``."""

    command: tuple[str, ...]
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Spread:
    """Who spreads ranks over nodes where a script cannot ask for that, and how to look what is done there.

    The command's output shows in ``each`` a fixed number of ``ranks`` a node, in ``one`` that all go to one.
    """

    command: tuple[str, ...]
    each: re.Pattern[str]
    one: re.Pattern[str]
    say: str


@dataclass(frozen=True)
class Scheduler:
    """A batch system.

    Attributes:
        inside: the variable that is set in its jobs, to the job's id.
        defaults: values for the script and the commands where a profile says nothing.
        cancel: ends jobs; ``absent`` is what it says of one that is gone already.
        signal: sends a signal to a job's processes, where that can be done.
        writes: what it writes into a job's own output when it ends it, by outcome.
        spread: who spreads ranks over nodes, where that cannot be asked for.
        recognise: how its commands are told from those of another one that have the same names.
    """

    name: str
    source: str
    about: str
    inside: str
    defaults: Mapping[str, str]
    submit: Submit
    status: Status
    ended: tuple[Ended, ...]
    cancel: tuple[str, ...]
    absent: re.Pattern[str] | None
    signal: tuple[str, ...]
    writes: Mapping[str, re.Pattern[str]]
    spread: Spread | None
    recognise: Recognise | None
    hints: tuple[Hint, ...]


def parse(text: str, name: str, source: str) -> Scheduler:
    """Return the scheduler that *text*, the content of file *source*, describes.

    Raises:
        LauncherError: bad YAML, an unknown or missing key, a wrong type, or a bad pattern. The
            message has the file, the line and the key.
    """
    read = Reader(text, source)
    top = read.mapping(
        (),
        "kind about inside submit status ended cancel",
        "defaults absent signal writes spread recognise hints",
    )
    return Scheduler(
        name=name,
        source=source,
        about=read.string(top, "about"),
        inside=read.string(top, "inside"),
        defaults=read.table(top, "defaults"),
        submit=_submit(read),
        status=_status(read),
        ended=tuple(_ended(read, i) for i in range(read.length("ended"))),
        cancel=read.lines(top, "cancel"),
        absent=read.optional(top, "absent"),
        signal=read.lines(top, "signal"),
        writes=read.patterns(top, "writes", OUTCOMES),
        spread=_spread(read) if "spread" in top else None,
        recognise=_recognise(read) if "recognise" in top else None,
        hints=hints(read),
    )


def _submit(read: Reader) -> Submit:
    path = ("submit",)
    part = read.mapping(path, "command job_id", "stdin")
    job_id = _with_groups(read, path, part, "job_id", "id")
    stdin = read.boolean(part, "stdin", path) if "stdin" in part else False
    return Submit(read.lines(part, "command", path), job_id, stdin)


def _status(read: Reader) -> Status:
    path = ("status",)
    part = read.mapping(path, "command row states", "unknown nothing why")
    why = None
    if "why" in part:
        inner = (*path, "why")
        more = read.mapping(inner, "command reason", "")
        why = Why(read.lines(more, "command", inner), _with_groups(read, inner, more, "reason", "reason"))
    return Status(
        command=read.lines(part, "command", path),
        row=_with_groups(read, path, part, "row", "id", "state"),
        states=read.patterns(part, "states", STATES, path),
        unknown=read.optional(part, "unknown", path),
        nothing=read.optional(part, "nothing", path),
        why=why,
    )


def _ended(read: Reader, index: int) -> Ended:
    path = ("ended", index)
    part = read.mapping(path, "command known", "outcomes code signal reason")

    def maybe(key: str) -> re.Pattern[str] | None:
        return _with_groups(read, path, part, key, key) if key in part else None

    return Ended(
        command=read.lines(part, "command", path),
        known=read.pattern(part, "known", path),
        outcomes=read.patterns(part, "outcomes", OUTCOMES, path),
        code=maybe("code"),
        signal=maybe("signal"),
        reason=maybe("reason"),
    )


def _recognise(read: Reader) -> Recognise:
    path = ("recognise",)
    part = read.mapping(path, "command pattern", "")
    return Recognise(read.lines(part, "command", path), read.pattern(part, "pattern", path))


def _spread(read: Reader) -> Spread:
    path = ("spread",)
    part = read.mapping(path, "command each one say", "")
    return Spread(
        command=read.lines(part, "command", path),
        each=_with_groups(read, path, part, "each", "ranks"),
        one=read.pattern(part, "one", path),
        say=read.string(part, "say", path),
    )


def _with_groups(
    read: Reader, path: tuple[object, ...], part: dict[str, object], key: str, *groups: str
) -> re.Pattern[str]:
    pattern = read.pattern(part, key, path)
    for group in groups:
        if group not in pattern.groupindex:
            raise read.wrong((*path, key), f"needs a group (?P<{group}>...)")
    return pattern
