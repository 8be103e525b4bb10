"""What is known of one call on one engine, as a dictionary: times, engine, output, outcome."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

#: The keys, in the order in which they are shown. ``carrier`` says who took the data from engine to
#: engine, ``mpi`` or ``controller``. ``after``, ``follow``, ``execute_input``, ``outputs`` and ``data`` are
#: empty here; they are there for scripts that look at them.
KEYS = (
    "after",
    "carrier",
    "completed",
    "data",
    "engine_id",
    "engine_uuid",
    "error",
    "execute_input",
    "execute_result",
    "follow",
    "label",
    "msg_id",
    "outputs",
    "received",
    "started",
    "status",
    "stderr",
    "stdout",
    "submitted",
)
KEY_SET = frozenset(KEYS)


class Metadata(dict[str, Any]):
    """A dictionary with a fixed set of keys, which are attributes too."""

    def __init__(self, **known: Any) -> None:
        super().__init__(dict.fromkeys(KEYS))
        self.update(after=[], follow=[], outputs=[], data={}, stdout="", stderr="")
        for key, value in known.items():
            self[key] = value

    def __getattr__(self, key: str) -> Any:
        if key in KEY_SET:
            return self[key]
        raise AttributeError(f"metadata has no {key!r}, only {', '.join(KEYS)}")

    def __setattr__(self, key: str, value: Any) -> None:
        if key not in KEY_SET:
            raise AttributeError(f"metadata has no {key!r}, only {', '.join(KEYS)}")
        self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        if key not in KEY_SET:
            raise KeyError(key)
        super().__setitem__(key, value)


def moment(seconds: float) -> datetime | None:
    """Return a time in seconds since the epoch as a datetime in UTC; None for a time that has not come."""
    return datetime.fromtimestamp(seconds, timezone.utc) if seconds else None
