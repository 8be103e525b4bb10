"""Launchers and schedulers by name: user's folder, then the site's, then those that come with hpcremote."""

from __future__ import annotations

import yaml

from hpcremote import files
from hpcremote.errors import LauncherError
from hpcremote.launch import spec
from hpcremote.launch.batch import scheduler as batch
from hpcremote.launch.batch.scheduler import Scheduler
from hpcremote.launch.spec import Launcher

_FOLDER = "launchers"


def read(name: str) -> Launcher | Scheduler:
    """Return what the file *name* describes: how ranks start, or where jobs are queued.

    Raises:
        LauncherError: there is none, or it is wrong.
    """
    found = files.find_all(_FOLDER, name) if name and "/" not in name else []
    if not found:
        known = list(files.available(_FOLDER))
        hint = files.did_you_mean(name, known) or f"; there are: {', '.join(known) or 'none'}"
        raise LauncherError(f"there is no launcher {name!r}{hint}")
    text = _read(found[0])
    kind = _kind(text)
    if kind not in ("", "scheduler"):
        raise LauncherError(
            f"{found[0]}: kind: is {kind!r}; it can be scheduler, and a launcher's file has no such key"
        )
    parse = batch.parse if kind else spec.parse
    return parse(text, name, str(found[0]))


def load(name: str) -> Launcher:
    """Return the launcher *name*.

    Raises:
        LauncherError: there is none, its file is wrong, or it is a scheduler's.
    """
    found = read(name)
    if isinstance(found, Scheduler):
        raise LauncherError(
            f"{name} is a batch system: it says where jobs are queued (scheduler: {name}), not how ranks "
            "start (launcher: srun or mpiexec)"
        )
    return found


def scheduler(name: str) -> Scheduler:
    """Return the batch system *name*.

    Raises:
        LauncherError: there is none, its file is wrong, or it is a launcher's.
    """
    found = read(name)
    if isinstance(found, Launcher):
        raise LauncherError(f"{name} is no batch system: it says how ranks start (launcher: {name})")
    return found


def template(name: str) -> str:
    """Return a script template: ``<name>.sh.in`` beside launcher files.

    Raises:
        LauncherError: there is none.
    """
    for folder in files.search_path(_FOLDER):
        file = folder.joinpath(name)
        if file.is_file():
            return _read(file)
    folders = ", ".join(str(folder) for folder in files.search_path(_FOLDER))
    raise LauncherError(f"there is no script template {name} (looked in {folders})")


def _read(file: files.Traversable) -> str:
    try:
        return str(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"cannot read {file}: {error}") from None


def _kind(text: str) -> str:
    """What the file says that it is; what is wrong with it otherwise is said when it is parsed."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        return ""
    return str(data.get("kind", "")) if isinstance(data, dict) else ""
