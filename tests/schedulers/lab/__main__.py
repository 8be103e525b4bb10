"""A lab by hand: ``python -m tests.schedulers.lab up``, ``enter``, ``down``; ``--help`` has the rest."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.schedulers.lab import folder, keeper, needs
from tests.schedulers.lab.gridengine import GridEngine
from tests.schedulers.lab.hosts import HOST_KINDS, Hosts
from tests.schedulers.lab.slurm import Slurm
from tests.schedulers.lab.ssh import Ssh
from tests.schedulers.lab.torque import Torque

_PARTS = ("slurm", "torque", "sge", "ssh")
_NOTE = "by-hand.json"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.schedulers.lab", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring hosts and services up, keep them until Ctrl-C or `down`")
    up.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; default: hosts alone")
    up.add_argument("--nodes", type=int, default=3, help="how many besides the head (default: %(default)s)")
    up.add_argument("--docker0", action="store_true", help="with an interface that leads nowhere")
    enter = commands.add_parser(
        "enter", help="run a command, or a shell, on a host of this checkout's newest lab"
    )
    enter.add_argument("host")
    enter.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    commands.add_parser("down", help="end those of this checkout, and clear away what dead ones left")
    options = parser.parse_args()
    if options.command == "up":
        return _up(options.parts, options.nodes, options.docker0)
    return _enter(options.host, options.words) if options.command == "enter" else _down()


def _up(parts: list[str], nodes: int, docker0: bool) -> int:
    for part in ("hosts", *parts):
        if part not in needs.NEEDS:
            return _refuse(f"{part}: no such part; there are {', '.join(_PARTS)}")
        if why := needs.missing(part):
            return _refuse(why)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    try:
        with Hosts(["head", *(f"node{n}" for n in range(1, nodes + 1))], share=_shared()) as hosts:
            _start(hosts, set(parts))
            with hosts.dead_ends() if docker0 else contextlib.nullcontext():
                _tell(hosts, time.monotonic() - began)
                signal.pause()
    except KeyboardInterrupt:
        print("down")
    return 0


def _shared() -> list[Path]:
    """The checkout and the Python that we run, wherever they are."""
    return [Path.cwd(), Path(sys.prefix), Path(sys.base_prefix)]


def _start(hosts: Hosts, parts: set[str]) -> None:
    if parts & {"slurm", "torque"}:
        slurm = Slurm(hosts)
        if "torque" in parts:
            print(f"Torque's commands: PATH={Torque(slurm).folder}:$PATH")
    if "sge" in parts:
        GridEngine(hosts)
    if "ssh" in parts:
        Ssh(hosts)


def _tell(hosts: Hosts, seconds: float) -> None:
    pids = {host.name: host.pid for host in hosts}
    note = {"owner": os.getpid(), "checkout": str(Path.cwd()), "hosts": pids}
    (hosts.path / _NOTE).write_text(json.dumps(note))
    print(f"up after {seconds:.1f} s: {' '.join(pids)}; files in {hosts.path}")
    print("python -m tests.schedulers.lab enter head [COMMAND...]     Ctrl-C here ends it", flush=True)


def _by_hand() -> dict[Path, dict[str, Any]]:
    """Return the labs that were brought up by hand from this checkout, the newest last."""
    notes = {path: path / _NOTE for path in folder.living()}
    read = {path: json.loads(note.read_text()) for path, note in notes.items() if note.exists()}
    return {path: note for path, note in read.items() if note["checkout"] == str(Path.cwd())}


def _enter(name: str, words: list[str]) -> int:
    labs = list(_by_hand().values())
    if not labs:
        return _refuse("no lab of this checkout is up: python -m tests.schedulers.lab up")
    pids = labs[-1]["hosts"]
    if name not in pids:
        return _refuse(f"{name}: no such host; there are {', '.join(pids)}")
    command = keeper.enter(pids[name], HOST_KINDS, words or ["bash"], Path.cwd())
    return subprocess.run(command).returncode


def _down() -> int:
    for path, note in _by_hand().items():
        print(f"ending {path}")
        os.kill(note["owner"], signal.SIGTERM)
        while path in folder.living():
            time.sleep(0.05)
    for path in folder.sweep():
        print(f"cleared away {path}")
    return 0


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
