"""What commands that start a cluster show of it."""

from __future__ import annotations

import sys
import warnings

from hpcremote.cli import options
from hpcremote.cluster import Cluster
from hpcremote.launch.watch import Progress


class Show:
    """What the user sees of a start.

    Args:
        quiet: say nothing but errors.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty()
        self._open = False

    def progress(self, seen: Progress) -> None:
        """Show how far it is: in place on a terminal, else a line for each step."""
        what = f"{seen.phase}: {seen.detail}" if seen.detail else f"{seen.phase} {seen.done}/{seen.total}"
        text = f"{what} ({seen.seconds:.1f} s)"
        if self._quiet:
            return
        if self._live:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
            self._open = True
        else:
            print(text, file=sys.stderr)

    def take_warnings(self) -> None:
        """Say Python's warnings in this process as sentences, from here on."""

        def show(message: Warning | str, *_where: object, **_more: object) -> None:
            self.end_line()
            self.say(f"hpcremote: {message}")

        warnings.showwarning = show

    def end_line(self) -> None:
        """End the line that is written in place."""
        if self._open:
            sys.stderr.write("\n")
            self._open = False

    def say(self, text: str) -> None:
        """Say something on standard error."""
        if not self._quiet:
            print(text, file=sys.stderr)

    def ready(self, cluster: Cluster, *, foreground: bool = False) -> None:
        """Say that it runs, how to connect and how to end it."""
        if self._quiet:
            return
        name, cluster_id = cluster.profile.name, cluster.cluster_id
        chosen = options.as_options(name, cluster_id)
        named = [] if name == "default" else [f"profile={name!r}"]
        if cluster_id != "default":
            named.append(f"cluster_id={cluster_id!r}")
        plural = "" if cluster.n == 1 else "s"
        size = f"{cluster.n} engine{plural}"
        print(f"cluster {cluster_id!r} of profile {name!r} is ready: {size}, {cluster.launcher}")
        print(f"  connect:  rc = hpcremote.Client({', '.join(named)})")
        print("  stop:     Ctrl-C" if foreground else f"  stop:     hpcremote stop {chosen}".rstrip())
        sys.stdout.flush()
