"""Controllers that were started by hand: of them there are connection files, and no record.

Nobody wrote down which processes the engines are: the controller knows (see :mod:`hpcremote.clusters`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpcremote.connection import Connection
from hpcremote.launch import record
from hpcremote.launch.process import Process

LAUNCHER = "by hand"


@dataclass(frozen=True)
class ByHand:
    """A cluster whose controller somebody started as ``hpcremote controller``.

    Attributes:
        folder: the cluster's folder.
        connection: the controller's connection file for clients.
    """

    folder: Path
    connection: Connection
    launcher: str = LAUNCHER
    n: None = None

    @property
    def profile(self) -> str:
        """Name of its profile."""
        return self.folder.parent.name

    @property
    def cluster_id(self) -> str:
        """Its name within the profile."""
        return self.folder.name

    @property
    def name(self) -> str:
        """The cluster in words."""
        return f"cluster {self.cluster_id!r} of profile {self.profile!r}"

    @property
    def host(self) -> str:
        """The controller's machine, for people."""
        return self.connection.host

    @property
    def started(self) -> float:
        """When the controller started."""
        return self.connection.started

    @property
    def is_here(self) -> bool:
        """Whether the controller is on this machine, so that its pid means something."""
        return self.connection.is_local

    @property
    def controller(self) -> Process:
        """The controller's process."""
        return Process(self.connection.pid, self.connection.ticks or None)

    def condition(self) -> str:
        """Return how it is: running, stale (its process or tunnel is gone), elsewhere (only asking tells)."""
        if self.connection.is_stale:
            return "stale"
        return "running" if self.is_here else "elsewhere"

    def forget(self) -> None:
        """Remove what a controller that has ended left, unless another one is in its place by now."""
        again = find(self.folder)
        if again is not None and again.connection.cluster_uid == self.connection.cluster_uid:
            record.sweep(self.folder)


def find(folder: Path) -> ByHand | None:
    """Return the cluster in a folder if its controller was started by hand."""
    if record.is_written_down(folder):
        return None
    connection = record.peek(folder / "client.json")
    return ByHand(folder, connection) if connection is not None else None
