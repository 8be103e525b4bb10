"""Times and amounts of memory as people write them. Pure.

::

    "2:00:00", "1-12:00:00", "90 min", "2h", 90 (minutes) ──duration()──▶ seconds ──clock()──▶ "2:00:00"
    "4G", "512 MB", "4GiB", 4096 (megabytes)              ──megabytes()──▶ MiB
"""

from __future__ import annotations

import math
import re

_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>\d{1,2})(?::(?P<seconds>\d{1,2}))?")
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)")
_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_MEGABYTES = {"k": 1 / 1024, "m": 1, "": 1, "g": 1024, "t": 1024 * 1024}


def duration(text: str) -> int:
    """Return seconds: ``H:MM``, ``H:MM:SS``, ``D-H:MM:SS``, ``1h 30min``; a bare number is minutes.

    Raises:
        ValueError: it is none of these, or no time at all.
    """
    text = text.strip().lower()
    if text.isdigit():
        seconds = 60.0 * int(text)
    elif match := _CLOCK.fullmatch(text):
        days, hours, minutes, rest = (int(part or 0) for part in match.groups())
        if minutes > 59 or rest > 59:
            raise ValueError(text)
        seconds = ((days * 24 + hours) * 60 + minutes) * 60.0 + rest
    else:
        parts = _PART.findall(text)
        if not parts or _PART.sub("", text).strip():
            raise ValueError(text)
        seconds = sum(float(number) * _SECONDS[_unit(word)] for number, word in parts)
    if seconds <= 0:
        raise ValueError(text)
    return math.ceil(seconds)


def _unit(word: str) -> str:
    for whole in ("days", "hours", "hrs", "minutes", "mins", "seconds", "secs"):
        if whole.startswith(word):
            return whole[0]
    raise ValueError(word)


def clock(seconds: int) -> str:
    """Return seconds as ``H:MM:SS``."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def megabytes(text: str) -> int:
    """Return an amount of memory in MiB, rounded up; a bare number is that already.

    Raises:
        ValueError: it is not an amount.
    """
    match = _MEMORY.fullmatch(text.strip())
    amount = math.ceil(float(match[1]) * _MEGABYTES[match[2].lower()]) if match else 0
    if amount <= 0:
        raise ValueError(text)
    return amount
