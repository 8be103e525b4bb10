"""What a check found."""

from __future__ import annotations

from typing import NamedTuple

OK, WARNING, PROBLEM = "ok", "warning", "problem"


class Finding(NamedTuple):
    """One sentence, how bad it is, and what to do."""

    group: str
    verdict: str
    said: str
    remedy: str = ""


def ok(group: str, said: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(group, OK, said)


def warning(group: str, said: str, remedy: str) -> Finding:
    """Return that something works, and is worth knowing."""
    return Finding(group, WARNING, said, remedy)


def problem(group: str, said: str, remedy: str) -> Finding:
    """Return that something will not work."""
    return Finding(group, PROBLEM, said, remedy)
