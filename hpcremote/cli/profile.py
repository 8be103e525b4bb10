"""``hpcremote profile``: list, show, create and find profiles."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from hpcremote import files, profile
from hpcremote.cli import exits, options
from hpcremote.errors import ProfileError
from hpcremote.ids import is_cluster_id
from hpcremote.launch import unused


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = argparse.ArgumentParser(prog="hpcremote profile", description="Look at profiles, or make one.")
    actions = made.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="list all profiles")
    show = actions.add_parser("show", help="show every key of a profile and where it comes from")
    show.add_argument("name", nargs="?", default="default")
    path = actions.add_parser("path", help="print a profile's file, or the folders that are searched")
    path.add_argument("name", nargs="?")
    create = actions.add_parser("create", help="make a profile of your own")
    create.add_argument("name")
    create.add_argument(
        "--from",
        "--extends",
        dest="extends",
        metavar="NAME",
        default="default",
        help="the profile it builds on",
    )
    options.add_settings(create)
    options.add_keys(create)
    args = made.parse_args(words)
    return {"list": _list, "show": _show, "path": _path, "create": _create}[args.action](args)


def _list(_args: argparse.Namespace) -> int:
    listed = profile.names()
    width = max((len(one.name) for one in listed), default=0)
    for one in listed:
        print(f"{one.name:<{width}}  {one.description}  [{one.path}]")
    return exits.OK


def _show(args: argparse.Namespace) -> int:
    print(profile.load(args.name).to_yaml(), end="")
    return exits.OK


def _path(args: argparse.Namespace) -> int:
    if args.name is None:
        print("\n".join(str(folder) for folder in files.search_path("profiles")))
        return exits.OK
    profile.load(args.name)  # says what is wrong with the name
    print(files.find_all("profiles", args.name)[0])
    return exits.OK


def _create(args: argparse.Namespace) -> int:
    if not is_cluster_id(args.name):
        raise ProfileError(f"{args.name!r} cannot name a profile: letters, digits, '_', '.' and '-' only")
    path = files.user_dir() / "profiles" / f"{args.name}.yaml"
    if path.exists():
        raise ProfileError(f"{path} is there already; edit it, or remove it first")
    settings = {**dict(args.settings), **options.chosen_keys(args)}
    profile.load(args.extends, settings)  # nothing wrong shall be written
    text = draft(args.name, args.extends, settings)
    path.parent.mkdir(parents=True, exist_ok=True)  # no keys are in it, so it may be open to others
    files.write_private(path, text.encode())
    print(path)
    if said := unused.told(profile.load(args.name)):
        print(f"hpcremote: {said}", file=sys.stderr)
    return exits.OK


def draft(name: str, extends: str, settings: dict[str, object]) -> str:
    """Return a profile file: what was chosen, and every other key as a comment with its sentence."""
    import json

    lines = [f"# Profile {name}. Every key is explained in the comment above it.", "", f"extends: {extends}"]
    for key in profile.keys():  # noqa: SIM118 (a function)
        lines += ["", f"# {key.doc}"]
        value = next((settings[name] for name in (key.name, *key.also) if name in settings), None)
        lines.append(f"# {key.name}:" if value is None else f"{key.name}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"
