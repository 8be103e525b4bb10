"""Options that several commands have."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from hpcremote.errors import ClusterNotFound, ConfigError
from hpcremote.launch import record


def parser(command: str, about: str) -> argparse.ArgumentParser:
    """Return a parser for ``hpcremote <command>``."""
    made = argparse.ArgumentParser(prog=f"hpcremote {command}", description=about, allow_abbrev=False)
    made.add_argument(
        "-p", "--profile", metavar="NAME", help="profile (default: $HPCREMOTE_PROFILE, or default)"
    )
    made.add_argument("-c", "--cluster-id", metavar="ID", help="which cluster of that profile")
    return made


def profile_name(chosen: str | None) -> str:
    """Return the profile that was chosen on the command line or by the environment."""
    return chosen or os.environ.get("HPCREMOTE_PROFILE") or "default"


def setting(text: str) -> tuple[str, Any]:
    """Return key and value of a ``--set key=value``; the value may be JSON."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def add_settings(made: argparse.ArgumentParser) -> None:
    """Add ``--set key=value``."""
    made.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        type=setting,
        action="append",
        default=[],
        help="a key of the profile, for this time only (repeatable)",
    )


def records(profile: str | None = None, cluster_id: str | None = None) -> list[record.Record]:
    """Return the clusters that are written down; damaged records are skipped."""
    found = []
    for folder in record.folders():
        if profile in (None, folder.parent.name) and cluster_id in (None, folder.name):
            try:
                one = record.read(folder)
            except ConfigError:
                continue
            if one is not None:
                found.append(one)
    return found


def pick(profile: str | None, cluster_id: str | None) -> record.Record:
    """Return the one cluster that is meant: dead ones are only meant when no living one is.

    Raises:
        ClusterNotFound: there is none, or several and it was not said which.
    """
    named = profile or os.environ.get("HPCREMOTE_PROFILE") or None
    found = records(named, cluster_id)
    found = [one for one in found if one.condition() != "stale"] or found
    if named is None and len(found) > 1:
        found = [one for one in found if one.profile == "default"] or found
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(f"--profile {one.profile} --cluster-id {one.cluster_id}" for one in found)
        raise ClusterNotFound(f"{len(found)} clusters are there; say which: {which}")
    _refuse_by_hand(named, cluster_id)
    what = f"cluster {cluster_id!r}" if cluster_id else "cluster"
    where = f" of profile {named!r}" if named else ""
    raise ClusterNotFound(f"there is no {what}{where}; hpcremote list shows those there are")


def _refuse_by_hand(profile: str | None, cluster_id: str | None) -> None:
    """What was started by hand is ended by hand: nobody knows what started its engines."""
    for folder in record.folders():
        if profile not in (None, folder.parent.name) or cluster_id not in (None, folder.name):
            continue
        found = record.peek(folder / "client.json")
        if found is not None and found.is_local and not found.is_stale:
            raise ClusterNotFound(
                f"the controller of cluster {folder.name!r} of profile {folder.parent.name!r} was started by "
                f"hand; `kill {found.pid}` ends it and its engines, as does Ctrl-C where it runs, or "
                "Client.shutdown(hub=True)"
            )


def as_options(profile: str, cluster_id: str) -> str:
    """Return the options that name this cluster, as short as can be."""
    words = [] if profile == "default" else ["--profile", profile]
    return " ".join([*words, *([] if cluster_id == "default" else ["--cluster-id", cluster_id])])
