"""A cluster of a rank a node, started and ended: the proof."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from hpcremote.cluster import Cluster
from hpcremote.doctor.finding import Finding, ok, problem
from hpcremote.errors import HPCRemoteError
from hpcremote.profile import Profile

_GROUP = "trial"


class Seen(NamedTuple):
    """What became of the trial. ``trouble``: why it failed."""

    seconds: float = 0.0
    hosts: tuple[str, ...] = ()
    trouble: str = ""


def probe(profile: Profile, source: str, settings: Mapping[str, Any]) -> Seen:
    """Start the profile's cluster with one rank a node, call a function on all, and end it.

    Where only the scheduler knows how many nodes there will be, it has all of its ranks.

    Args:
        profile: the profile, *settings* included.
        source: its name or file.
        settings: what was changed in it for now.
    """
    began = time.monotonic()
    changes = {**settings}
    if profile.hosts:
        changes["hosts"] = tuple(entry.partition(":")[0] for entry in profile.hosts)
    elif profile.nodes:
        changes["ranks_per_node"] = 1
    n = len(profile.hosts) or profile.nodes or (profile.n if profile.scheduler else None) or 1
    changes["n"] = n
    try:
        with Cluster(profile=source, **changes) as rc:
            seconds = time.monotonic() - began
            return Seen(seconds, tuple(rc[:].apply_sync(socket.gethostname)))
    except (HPCRemoteError, TimeoutError) as error:
        return Seen(trouble=str(error))


def judge(seen: Seen) -> list[Finding]:
    """Say what it means."""
    if seen.trouble:
        return [problem(_GROUP, f"a trial failed: {seen.trouble}", "see above, and hpcremote logs")]
    where = ", ".join(dict.fromkeys(seen.hosts))
    who = "a rank" if len(seen.hosts) == 1 else f"{len(seen.hosts)} ranks"
    return [ok(_GROUP, f"{who} answered from {where}, {seen.seconds:.1f} s after the start")]
