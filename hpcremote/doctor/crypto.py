"""How fast are encrypted connections?"""

from __future__ import annotations

from hpcremote.doctor.finding import Finding, ok, problem, warning
from hpcremote.net import speed

_GROUP = "encryption"
#: Slower than this, in bytes a second, is worth knowing.
SLOW = 200e6


def probe() -> float | str:
    """Return bytes a second, or why they cannot be measured."""
    try:
        return speed.encrypted()
    except (OSError, TimeoutError, AttributeError) as error:
        return str(error)


def judge(seen: float | str) -> list[Finding]:
    """Say what it means."""
    if isinstance(seen, str):
        text = f"no encrypted connection: {seen}"
        return [problem(_GROUP, text, "install pyzmq with a libzmq that has CURVE (the wheels have)")]
    text = f"one connection encrypts {seen / 1e6:.0f} MB/s"
    if seen < SLOW:
        remedy = (
            "none for one machine, or if arrays go by MPI; else build pyzmq with the system's libsodium "
            "(pip install --no-binary pyzmq pyzmq)"
        )
        return [warning(_GROUP, f"{text}: slow for big arrays between machines", remedy)]
    return [ok(_GROUP, text)]
