"""``hpcremote start``: start a cluster, show how far it is, and say how to use it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from hpcremote import profile
from hpcremote.cli import exits, options
from hpcremote.cli.show import Show
from hpcremote.cli.signals import Ended, ended_by_signals
from hpcremote.cluster import Cluster
from hpcremote.ids import UNNAMED


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser(
        "start", "Start a cluster: a controller and n engines. It lives on until it is stopped."
    )
    made.add_argument("--dry-run", action="store_true", help="only print the job's script and the commands")
    made.add_argument("--foreground", action="store_true", help="stay, and stop the cluster when told to end")
    made.add_argument(
        "--resubmit",
        action="store_true",
        help="of a cluster that runs: start the next job of its engine set, which goes on there",
    )
    made.add_argument(
        "--save", metavar="FOLDER", help="with --resubmit: save namespaces there, and put them back"
    )
    add_cluster(made)
    args = made.parse_args(words)
    if args.save is not None and not args.resubmit:
        made.error("--save goes with --resubmit")
    if args.resubmit and (args.n is not None or args.foreground or args.dry_run):
        made.error(
            "--resubmit starts the next job of a set, with as many engines: no -n, --foreground, --dry-run"
        )
    show = Show(quiet=args.quiet)
    show.take_warnings()
    cluster = cluster_of(args, args.cluster_id or UNNAMED, show, ends_with_us=args.foreground)
    if args.dry_run:
        print(cluster.dry_run())
        return exits.OK
    with ended_by_signals():
        try:
            if args.resubmit:
                cluster.extend(save=args.save)
            else:
                cluster.start()
        finally:
            show.end_line()
        if args.resubmit:
            show.say("the engine set goes on in the next job")
            return exits.OK
        if args.foreground:
            return _stay(cluster, show)
        show.ready(cluster)
        return exits.OK


def add_cluster(made: argparse.ArgumentParser) -> None:
    """Add the options that say which cluster is started, and how much is said of it."""
    made.add_argument("-n", metavar="N", type=int, help="how many engines (default: what the profile says)")
    made.add_argument(
        "--timeout", metavar="SECONDS", type=float, help="for all of it (default: the profile's)"
    )
    made.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    options.add_settings(made)


def cluster_of(
    args: argparse.Namespace, cluster_id: str | None, show: Show, *, ends_with_us: bool
) -> Cluster:
    """Return the cluster that was asked for, not started yet."""
    settings = dict(args.settings)
    asked = profile.load(options.profile_name(args.profile), settings)  # says which setting is wrong
    settings.pop("n", None)
    return Cluster(
        asked.n if args.n is None else args.n,
        options.profile_name(args.profile),
        cluster_id,
        progress=show.progress,
        shutdown_atexit=ends_with_us,
        **{**settings, **({"start_timeout": args.timeout} if args.timeout is not None else {})},
    )


def _stay(cluster: Cluster, show: Show) -> int:
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
