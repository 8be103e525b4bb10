"""Why a job that was to bring engines did not, from what it wrote. Pure.

::

    its output ──┬─ the probe's lines          which addresses were tried from which host, what each answered
                 ├─ hints of launcher and scheduler
                 └─ excerpt()                  the lines of the rank that failed first, else the last ones
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from hpcremote.launch import text
from hpcremote.launch.spec import Hint, Launcher

#: What every line of the probe begins with, so that it is found among whatever else the job wrote.
PROBE = "hpcremote probe: "
_LINES = 30
_BEGIN = re.compile(r"^hpcremote: job \S+ has started on")
_EXIT = re.compile(r"^hpcremote: (?:job \S+ has started on|the ranks have ended)")


def probed(output: str) -> str:
    """Return what the last probe in the job's *output* complained of, or nothing."""
    said: list[str] = []
    for line in output.splitlines():
        if _EXIT.match(line):
            said = []  # it was queued again: another start, another probe
        elif line.startswith(PROBE):
            said.append(line[len(PROBE) :])
    return "\n".join(said)


def last_run(output: str) -> str:
    """Return what a job that was queued again wrote since it began for the last time."""
    lines = output.splitlines()
    begun = (at for at in range(len(lines) - 1, -1, -1) if _BEGIN.match(lines[at]))
    return "\n".join(lines[next(begun, 0) :])


def meaning(output: str, hints: Iterable[Hint], values: text.Values) -> str:
    """Return what is known of why it went wrong, with the remedy, or nothing."""
    return probed(output) or text.explain(hints, output, values)


def excerpt(output: str, launcher: Launcher) -> str:
    """Return the lines that matter: those of the rank that failed first if that is known, else the last."""
    rank = culprit(output, launcher)
    if rank is not None and launcher.label is not None:
        own = [line for line in output.splitlines() if _label(launcher, line) == rank]
        if own:
            return text.tail("\n".join(own), _LINES)
    return text.tail(output, _LINES)


def culprit(output: str, launcher: Launcher) -> str | None:
    """Return the rank that failed first, as far as what started it says."""
    match = launcher.culprit.search(output) if launcher.culprit else None
    return match.groupdict().get("rank") if match else None


def _label(launcher: Launcher, line: str) -> str | None:
    match = launcher.label.match(line) if launcher.label else None
    return match["rank"] if match else None
