"""``hpcremote controller``: be a controller until told to end."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from hpcremote import profile
from hpcremote.cli import options
from hpcremote.errors import AlreadyRunning, ConfigError
from hpcremote.ids import UNNAMED, is_cluster_id

if TYPE_CHECKING:
    from hpcremote.controller.events import Relaunch
    from hpcremote.controller.relaunch import Relauncher
    from hpcremote.launch.again import Again


def run(words: Sequence[str]) -> int:
    """Run the command."""
    made = options.parser("controller", "Be a controller. Its log goes to standard error.")
    options.add_settings(made)
    made.add_argument(
        "--leash",
        action="store_true",
        help="end when standard input does, unless a line came by it before (how `hpcremote start` keeps us)",
    )
    args = made.parse_args(words)
    chosen = profile.load(options.profile_name(args.profile), dict(args.settings))
    cluster_id = args.cluster_id or UNNAMED
    if not is_cluster_id(cluster_id):
        raise ConfigError(f"--cluster-id {cluster_id!r}: letters, digits, '_', '.' and '-' only")
    logging.basicConfig(
        level=chosen.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    # The server minds SIGTERM once it runs; what is written down before that has to go as well.
    signal.signal(signal.SIGTERM, _end)
    if args.leash:
        _hold_leash()
    from hpcremote.controller.main import run as control
    from hpcremote.launch.again import Again
    from hpcremote.launch.batch.inquest import Inquirer

    again = Again(chosen, cluster_id)
    try:
        return control(chosen, cluster_id, _relauncher(again), Inquirer(chosen, cluster_id))
    finally:
        again.give_up()
        _leave_nothing(chosen.name, cluster_id, chosen.stop_timeout)


def _relauncher(again: Again) -> Relauncher:
    """Have engine sets started again: the controller does not know how, and ``launch`` knows no sets."""

    def relaunch(order: Relaunch, there: threading.Event) -> Callable[[], None]:
        if again.in_our_job(order.job):
            old = again.ask_script(order.set_id)
            return lambda: again.by_script(old, order.timeout, there)
        if order.job:
            return lambda: again.submitted(order.set_id, order.job, order.size, order.timeout, there)
        return lambda: again(order.set_id, order.mark, order.size, order.members, order.timeout, there)

    return relaunch


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _hold_leash() -> None:
    """End, as by SIGTERM, when whoever holds the other end of our standard input is gone."""
    threading.Thread(target=_mind_leash, name="leash", daemon=True).start()


def _mind_leash() -> None:
    if not os.read(0, 64):
        os.kill(os.getpid(), signal.SIGTERM)


def _leave_nothing(profile_name: str, cluster_id: str, patience: float) -> None:
    """End what is left of the cluster and forget it, unless somebody else is at that already."""
    mark = os.environ.get("HPCREMOTE_MARK")
    if not mark:
        return  # started by hand
    from hpcremote import files
    from hpcremote.launch import process, record, remote
    from hpcremote.launch.batch import jobs

    folder = files.cluster_dir(profile_name, cluster_id)
    if record.read(folder) is None:
        return
    try:
        with record.locked(folder):
            found = record.read(folder)
            if found is None or found.mark != mark.partition(".")[0]:
                return
            if found.controller_at != "here":  # our job's end, and its reason, stay on record
                jobs.cancel([one for one in found.jobs if one != found.home], patience=patience)
                return
            if found.state == "starting" and found.owner.alive():
                return  # it sees us end, and has a better view of why
            polite = 0.0 if found.state == "starting" else patience
            process.end(found.engines, found.mark, (), polite=polite)
            jobs.cancel(found.jobs, patience=polite)
            try:
                remote.end(folder, found.mark)
            finally:
                record.forget(found)
    except AlreadyRunning:
        return  # hpcremote stop does it
