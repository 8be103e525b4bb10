"""``hpcremote clean``: remove what dead clusters left: folders with logs, sockets, shared memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hpcremote import files
from hpcremote.cli import exits, options
from hpcremote.errors import ConfigError, HPCRemoteError
from hpcremote.launch import byhand, leftovers, record
from hpcremote.launch.batch import jobs


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser(
        "clean",
        "Remove the folders (with logs), sockets and shared memory of clusters that have ended.",
        several=True,
    )
    made.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    args = made.parse_args(words)
    status = exits.OK
    for folder in record.folders():
        if args.profile not in (None, folder.parent.name) or _in_use(folder):
            continue
        print(f"{'would remove' if args.dry_run else 'removing'} {folder}")
        try:
            if not args.dry_run:
                _remove(folder)
        except (HPCRemoteError, OSError) as error:
            print(f"hpcremote: {error}", file=sys.stderr)
            status = exits.ERROR
    for path in leftovers.orphans(files.runtime_dir()):
        print(f"{'would remove' if args.dry_run else 'removing'} {path}")
        if not args.dry_run:
            leftovers.remove(path)
    return status


def _in_use(folder: Path) -> bool:
    try:
        found = record.read(folder)
    except ConfigError as error:
        print(f"hpcremote: {error}", file=sys.stderr)
        return True  # it may be another version's, and running
    if found is not None:
        return jobs.condition(found) not in ("stale", "broken")
    by_hand = byhand.find(folder)
    return by_hand is not None and by_hand.condition() != "stale"


def _remove(folder: Path) -> None:
    with record.locked(folder):
        found = record.read(folder)
        if found is not None:
            jobs.clear(found)
        record.remove(folder)
