"""Engines on other hosts, by ssh: can they start there, and is nothing of them left.

An ssh that is killed leaves what it started. So the hosts of a cluster are written down, and when it ends
each is asked to end what carries the cluster's mark.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hpcremote import files
from hpcremote._version import __version__
from hpcremote.errors import LaunchError
from hpcremote.launch import hosts, process
from hpcremote.net import sshwords
from hpcremote.profile import Profile

#: Seconds for a host to answer, and for what it has to do then.
PATIENCE, WORK = 10.0, 20.0
_FILE = "hosts.json"
_AT_ONCE = 32


def command(profile: Profile) -> list[str]:
    """Return the ssh command of a profile."""
    return [*shlex.split(profile.ssh or os.environ.get("HPCREMOTE_SSH", "") or "ssh"), *profile.ssh_args]


def ask(host: str, ssh: Sequence[str], script: str) -> tuple[str, str]:
    """Have a host's shell run *script*; return what it printed, and why it could not (or nothing)."""
    where = sshwords.Server(host, command=tuple(ssh))
    words = sshwords.once(where, PATIENCE)
    try:
        done = subprocess.run(
            words,
            input=script,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE + WORK,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "", sshwords.why(where, None, "")
    except OSError as error:
        return "", f"cannot run {words[0]}: {error.strerror}"
    if done.returncode == 255:  # its own failures; others are the script's
        return done.stdout, sshwords.why(where, 255, done.stderr)
    return done.stdout, ""


def _all(names: Sequence[str], work: Callable[[str], str]) -> dict[str, str]:
    """Return what is wrong with each of the hosts of which *work* says something; all at the same time."""
    with ThreadPoolExecutor(_AT_ONCE, "hpcremote-hosts") as pool:
        return {name: wrong for name, wrong in zip(names, pool.map(work, names), strict=True) if wrong}


def check(dealt: Sequence[hosts.Host], ssh: Sequence[str], script: str) -> None:
    """See whether engines can start on all hosts, by a script of :func:`hosts.looking`.

    Raises:
        LaunchError: on some they cannot; each is named with the reason.
    """

    def look(name: str) -> str:
        said, wrong = ask(name, ssh, script)
        return wrong or hosts.seen(said, __version__)

    if wrong := _all([host.name for host in dealt], look):
        listed = "\n".join(f"  {name}: {why}" for name, why in wrong.items())
        raise LaunchError(f"engines cannot start on {len(wrong)} of {len(dealt)} hosts:\n{listed}")


def note(folder: Path, mark: str, dealt: Sequence[hosts.Host], ssh: Sequence[str]) -> None:
    """Write down where the processes of a cluster are, besides where they were before."""
    former = _noted(folder, mark)
    names = dict.fromkeys([*(former["hosts"] if former else []), *(host.name for host in dealt)])
    data = {"mark": mark, "hosts": list(names), "ssh": list(ssh)}
    files.write_private(folder / _FILE, json.dumps(data).encode())


def _noted(folder: Path, mark: str) -> dict[str, Any] | None:
    """Return what is written down for the cluster that *mark*, its own or a set's, is of."""
    try:
        data = json.loads(files.read_private(folder / _FILE))
    except FileNotFoundError:
        return None
    return dict(data) if data["mark"] == mark.partition(".")[0] else None


def end(folder: Path, mark: str, *, carries: str = "", forget: bool = True) -> None:
    """End what is left of a cluster, or of a set of it, on other hosts, if it had any.

    Args:
        folder: the cluster's.
        mark: its own, or its set's.
        carries: the variable, with its value, of what is to end; unset: the mark.
        forget: whether nothing of the cluster is left then.

    Raises:
        LaunchError: some host cannot be asked, or something there does not end.
    """
    data = _noted(folder, mark)
    if data is None:
        return
    script = hosts.ending(carries or f"{process.MARK}={mark}", socket.gethostname(), os.getpid())

    def kill(name: str) -> str:
        said, wrong = ask(name, data["ssh"], script)
        left = said.rpartition("hpcremote-left")[2].split()
        return wrong or (f"processes {', '.join(left)} do not end" if left else "")

    wrong = _all(data["hosts"], kill)
    if forget:
        (folder / _FILE).unlink(missing_ok=True)
    if wrong:
        listed = "\n".join(f"  {name}: {why}" for name, why in wrong.items())
        raise LaunchError(
            f"it is not certain that nothing is left on {len(wrong)} of {len(data['hosts'])} hosts "
            f"(engines end by themselves when their controller is gone):\n{listed}"
        )


def end_engines(folder: Path, mark: str, members: Sequence[tuple[str, int]]) -> list[str]:
    """End some engines of a cluster, and no other of what carries the same mark.

    Args:
        folder: the cluster's.
        mark: what they carry.
        members: each one's host, by the name that it has itself, and process id.

    Returns:
        The names by which ssh reaches these hosts.

    Raises:
        LaunchError: one does not end. (A host that cannot be asked is none of theirs, or is down.)
    """
    data = _noted(folder, mark)
    if data is None:
        return []
    script = hosts.ending(f"{process.MARK}={mark}", "", 0, members)
    theirs = {host for host, _ in members}
    found = []

    def kill(name: str) -> str:
        said, wrong = ask(name, data["ssh"], script)
        here = said.partition("\n")[0]
        if not wrong and here in theirs:
            found.append(name)
        left = said.rpartition("hpcremote-left")[2].split()
        return f"processes {', '.join(left)} of it do not end" if left else ""

    if wrong := _all(data["hosts"], kill):
        raise LaunchError("; ".join(f"{why} on {name}" for name, why in wrong.items()))
    return found
