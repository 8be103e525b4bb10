"""Options that several commands have."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from hpcremote import clusters
from hpcremote.errors import ClusterNotFound, ConfigError
from hpcremote.ids import UNNAMED
from hpcremote.launch import byhand, record
from hpcremote.profile import keys as profile_keys

#: A cluster that is written down, or one whose controller was started by hand.
Found = record.Record | byhand.ByHand


def parser(command: str, about: str, *, several: bool = False) -> argparse.ArgumentParser:
    """Return a parser for ``hpcremote <command>``, which is about one cluster or about *several*."""
    made = argparse.ArgumentParser(prog=f"hpcremote {command}", description=about, allow_abbrev=False)
    which = "of this profile only" if several else "profile (default: $HPCREMOTE_PROFILE, or default)"
    made.add_argument("-p", "--profile", metavar="NAME", help=which)
    if not several:
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


def add_keys(made: argparse.ArgumentParser) -> None:
    """Add an option for every key of a profile: ``--ranks-per-node 4``."""
    group = made.add_argument_group("keys of the profile")
    for key in profile_keys():
        many = key.kind.startswith(("tuple", "dict"))
        group.add_argument(
            *(
                f"--{name.replace('_', '-')}" if len(name) > 1 else f"-{name}"
                for name in (key.name, *key.also)
            ),
            dest=f"key_{key.name}",
            metavar="NAME=TEXT" if key.kind.startswith("dict") else "VALUE",
            action="append" if many else "store",
            help=key.doc.replace("%", "%%") + (" (repeatable)" if many else ""),
        )


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


def chosen_keys(args: argparse.Namespace) -> dict[str, Any]:
    """Return what was given by the options of :func:`add_keys`."""
    found: dict[str, Any] = {}
    for key in profile_keys():
        value = getattr(args, f"key_{key.name}")
        if value is not None:
            is_mapping = key.kind.startswith("dict")
            found[key.name] = dict(_pair(one) for one in value) if is_mapping else value
    return found


def records(profile: str | None = None, cluster_id: str | None = None) -> list[Found]:
    """Return the clusters that are known of; damaged records are skipped."""
    found: list[Found] = []
    for folder in record.folders():
        if profile in (None, folder.parent.name) and cluster_id in (None, folder.name):
            try:
                one = record.read(folder) or byhand.find(folder)
            except ConfigError:
                continue
            if one is not None:
                found.append(one)
    return found


def pick(profile: str | None, cluster_id: str | None) -> Found:
    """Return the one cluster that is meant: dead ones are only meant when no living one is.

    Raises:
        ClusterNotFound: there is none, or several and it was not said which.
    """
    named = named_profile(profile)
    found = records(named, cluster_id)
    if len(found) > 1:
        conditions = clusters.conditions(found)
        found = [one for one, how in zip(found, conditions, strict=True) if how != "stale"] or found
    if named is None and len(found) > 1:
        found = [one for one in found if one.profile == "default"] or found
    if {one.profile for one in found} == {named or "default"}:  # as `hpcremote start` has told it
        found = [one for one in found if one.cluster_id == UNNAMED] or found
    if len(found) == 1:
        return found[0]
    if found:
        which = ", ".join(f"--profile {one.profile} --cluster-id {one.cluster_id}" for one in found)
        raise ClusterNotFound(f"{len(found)} clusters are there; say which: {which}")
    what = f"cluster {cluster_id!r}" if cluster_id else "cluster"
    where = f" of profile {named!r}" if named else ""
    raise ClusterNotFound(f"there is no {what}{where}; hpcremote list shows those there are")


def latest_ended(profile: str | None, cluster_id: str | None) -> Path | None:
    """Return the folder of the cluster that left logs the latest, None if none did."""
    named = named_profile(profile)
    found = [
        folder
        for folder in record.folders()
        if named in (None, folder.parent.name)
        and cluster_id in (None, folder.name)
        and record.log_folder(folder).is_dir()
    ]
    return max(found, key=lambda folder: record.log_folder(folder).stat().st_mtime, default=None)


def named_profile(profile: str | None) -> str | None:
    """Return the profile that was named on the command line or by the environment, None if none was."""
    return profile or os.environ.get("HPCREMOTE_PROFILE") or None


def as_options(profile: str, cluster_id: str) -> str:
    """Return the options that name this cluster, as short as can be."""
    words = [] if profile == "default" else ["--profile", profile]
    return " ".join([*words, *([] if cluster_id == UNNAMED else ["--cluster-id", cluster_id])])
