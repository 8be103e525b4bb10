"""``hpcremote stop``: end clusters; of their processes and files nothing is left but the logs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hpcremote import profile, stopping
from hpcremote.cli import exits, options
from hpcremote.errors import ClusterNotFound, HPCRemoteError, ProfileError


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser("stop", "Stop a cluster, whoever started it and however it is.")
    made.add_argument("-a", "--all", action="store_true", help="all of your clusters, or all of --profile")
    made.add_argument("--timeout", metavar="SECONDS", type=float, help="before its processes are killed")
    args = made.parse_args(words)
    if not args.all:
        _stop(options.pick(args.profile, args.cluster_id), args.timeout)
        return exits.OK
    return max((_try(one, args.timeout) for one in options.records(args.profile, args.cluster_id)), default=0)


def _try(one: options.Found, timeout: float | None) -> int:
    try:
        _stop(one, timeout)
    except HPCRemoteError as error:
        print(f"hpcremote: {error}", file=sys.stderr)
        return exits.of_error(error)
    return exits.OK


def _stop(one: options.Found, timeout: float | None) -> None:
    try:
        stopping.stop(one.profile, one.cluster_id, timeout=_patience(one) if timeout is None else timeout)
    except ClusterNotFound:  # somebody was faster
        return
    print(f"{one.name} is stopped")


def _patience(one: options.Found) -> float:
    try:
        return profile.load(one.profile).stop_timeout
    except ProfileError:  # it was changed or removed since; the cluster has to end all the same
        return profile.Profile("default").stop_timeout
