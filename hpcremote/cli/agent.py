"""``hpcremote agent``: watch the ranks of this node until they have gone. Engines start it by themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcremote.connection import Connection


def run(words: Sequence[str]) -> int:
    """Run the command."""
    file, lock = _by_engine(words) or _by_argparse(words)
    connection = _connection(file)
    from hpcremote.agent.main import detach
    from hpcremote.agent.main import run as watch

    if lock is not None:
        detach()
    from hpcremote.cli.engine import log_to_stderr

    log_to_stderr()
    return watch(connection, lock)


def _by_engine(words: Sequence[str]) -> tuple[str, int | None] | None:
    """Read the words of an engine without argparse, which would stay in memory."""
    if len(words) == 4 and words[0] == "--file" and words[2] == "--lock" and words[3].isdigit():
        return words[1], int(words[3])
    return None


def _by_argparse(words: Sequence[str]) -> tuple[str, int | None]:
    import argparse

    made = argparse.ArgumentParser(
        prog="hpcremote agent",
        description="Watch the engines of a cluster on this node. Engines start this by themselves.",
        allow_abbrev=False,
    )
    made.add_argument(
        "--file", metavar="engine.json", required=True, help="the cluster's connection file; - for stdin"
    )
    made.add_argument("--lock", metavar="FD", type=int, help="a descriptor that holds the node's lock")
    args = made.parse_args(words)
    return args.file, args.lock


def _connection(file: str) -> Connection:
    from hpcremote import connection

    if file == "-":
        return connection.from_dict(json.load(sys.stdin), "engine", "standard input")
    return connection.read(file, "engine")
