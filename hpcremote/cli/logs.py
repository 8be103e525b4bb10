"""``hpcremote logs``: what controller and engines said."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpcremote.cli import exits, options
from hpcremote.errors import ClusterNotFound, ConfigError
from hpcremote.launch import failed, record

_LOOK_AGAIN = 0.2


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser("logs", "Show a cluster's logs, also of one that has ended or did not start.")
    made.add_argument("--controller", action="store_true", help="the controller's only")
    made.add_argument(
        "--engines", action="store_true", help="the engines' only: what they said while they started"
    )
    made.add_argument("-n", metavar="LINES", type=int, default=50, help="how many lines (default: 50)")
    made.add_argument("-f", "--follow", action="store_true", help="go on until the cluster ends or Ctrl-C")
    args = made.parse_args(words)
    folder = _folder(args.profile, args.cluster_id)
    both = args.controller == args.engines
    logs = [record.log_folder(folder) / "controller.log"] if both or args.controller else []
    if both or args.engines:  # one for each set that was added
        first = record.log_folder(folder) / "engines.log"
        logs += [first, *sorted(first.parent.glob("engines-*.log"))]
    offsets = [_show(log, args.n, title=len(logs) > 1) for log in logs]
    if both and not record.is_written_down(folder) and (last := failed.read(folder)) is not None:
        print(f"==> the start failed\n{last.said}", flush=True)
    if args.follow:
        _follow(folder, logs, offsets)
    return exits.OK


def _folder(profile: str | None, cluster_id: str | None) -> Path:
    """The cluster that is meant; of those that have ended, the latest."""
    try:
        one = options.pick(profile, cluster_id)
        if isinstance(one, record.Record):
            return one.folder
        if one.condition() != "stale":
            raise ConfigError(
                f"{one.name} was started by hand: its controller and its engines write their logs to the "
                "standard error that they were started with"
            )
    except ClusterNotFound:
        if options.records(options.named_profile(profile), cluster_id):
            raise  # several
    found = options.latest_ended(profile, cluster_id)
    if found is None:
        raise ClusterNotFound("there are no logs of such a cluster; hpcremote list shows those that run")
    return found


def _show(log: Path, count: int, *, title: bool) -> int:
    """Print the last lines and return how far the file was read."""
    if title:
        print(f"==> {log}")
    if not log.exists():
        return 0
    with log.open("rb") as file:
        data = file.read()
    said = data.decode(errors="replace").splitlines()
    print("\n".join(said[max(0, len(said) - count) :]) if count > 0 else "", flush=True)
    return len(data)


def _follow(folder: Path, logs: Sequence[Path], offsets: list[int]) -> None:
    alive = True
    while alive:
        alive = _runs(folder)  # asked first: what is said last is shown, too
        for i, log in enumerate(logs):
            if log.exists() and log.stat().st_size > offsets[i]:
                with log.open("rb") as file:
                    file.seek(offsets[i])
                    data = file.read()
                offsets[i] += len(data)
                sys.stdout.write(data.decode(errors="replace"))
                sys.stdout.flush()
        if alive:
            time.sleep(_LOOK_AGAIN)


def _runs(folder: Path) -> bool:
    try:
        found = record.read(folder)
    except ConfigError:
        return False
    return found is not None and found.condition() not in ("stale", "broken")
