"""``hpcremote start``: start a cluster, show how far it is, and say how to use it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcremote import profile
from hpcremote.cli import exits, options
from hpcremote.cli.signals import Ended, ended_by_signals
from hpcremote.cluster import Cluster
from hpcremote.launch.watch import Progress


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser(
        "start", "Start a cluster: a controller and n engines. It lives on until it is stopped."
    )
    made.add_argument("-n", metavar="N", type=int, help="how many engines (default: what the profile says)")
    made.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="for all of it (default: the profile's)"
    )
    made.add_argument("--dry-run", action="store_true", help="only print the job's script and the commands")
    made.add_argument("--foreground", action="store_true", help="stay, and stop the cluster when told to end")
    made.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    options.add_settings(made)
    args = made.parse_args(words)
    show = _Show(quiet=args.quiet)
    settings = dict(args.settings)
    asked = profile.load(options.profile_name(args.profile), settings)  # says which setting is wrong
    settings.pop("n", None)
    cluster = Cluster(
        asked.n if args.n is None else args.n,
        options.profile_name(args.profile),
        args.cluster_id or "default",
        progress=show.progress,
        shutdown_atexit=args.foreground,
        **{**settings, **({"start_timeout": args.timeout} if args.timeout is not None else {})},
    )
    if args.dry_run:
        print(cluster.dry_run())
        return exits.OK
    with ended_by_signals():
        try:
            cluster.start()
        finally:
            show.end_line()
        if args.foreground:
            return _stay(cluster, show)
        show.ready(cluster)
        return exits.OK


def _stay(cluster: Cluster, show: _Show) -> int:
    """Stay until the cluster ends, or we are told to: then that is no error."""
    try:
        show.ready(cluster, foreground=True)
        cluster.wait()
        show.say("the controller ended; ending the rest")
    except (KeyboardInterrupt, Ended):
        show.say("stopping")
    finally:
        cluster.stop()
    return exits.OK


class _Show:
    """What the user sees of a start."""

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
