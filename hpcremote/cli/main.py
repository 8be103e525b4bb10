"""The ``hpcremote`` command: finds the module of the command that was asked for, and runs it.

Only that module is imported: an engine is a command, too, and has to be small and quick to start.
Errors of ours end as one sentence on standard error and an exit status (``cli.exits``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

#: Command → what it does. Each is a module of this package with ``run(words) -> exit status``.
COMMANDS = {
    "start": "start a cluster; it lives on until it is stopped",
    "run": "start a cluster, run a program that uses it, stop it",
    "stop": "stop a cluster and leave nothing behind",
    "connect": "reach a cluster on another machine through ssh, for as long as this runs",
    "restart": "start a cluster's engines again under the same ids",
    "status": "say how a cluster is",
    "list": "list your clusters",
    "logs": "show a cluster's logs",
    "clean": "remove what dead clusters left",
    "doctor": "check what may keep it from working here, and say what to do",
    "profile": "list, show, create or find profiles",
    "controller": "be a controller (start does this for you)",
    "stacks": "show where engines are, also while they hang",
    "agent": "watch the engines of a node (engines start it by themselves)",
    "engine": "be an engine, or an MPI rank of an engine set (start does this for you)",
    "ranks": "inside a job, start its ranks (a job script does this for you)",
    "probe": "inside a job, try to reach the controller (a job script does this for you)",
}
_ERROR = 1
_USAGE = 2
_INTERRUPTED = 130


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line *words* (default: that of this process) and return the exit status."""
    words = list(sys.argv[1:] if words is None else words)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if words else _USAGE
    if words[0] in ("-V", "--version", "version"):
        from hpcremote._version import __version__

        print(f"hpcremote {__version__}")
        return 0
    if words[0] not in COMMANDS:
        print(f"hpcremote: there is no command {words[0]!r}{_near(words[0])}", file=sys.stderr)
        return _USAGE
    return _guarded(words[0], words[1:])


def _guarded(command: str, words: list[str]) -> int:
    from hpcremote.errors import HPCRemoteError

    try:
        return int(import_module(f"hpcremote.cli.{command}").run(words))
    except HPCRemoteError as error:
        from hpcremote.cli import exits

        print(f"hpcremote: {error}", file=sys.stderr)
        return exits.of_error(error)
    except KeyboardInterrupt:
        print("hpcremote: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away. Python would complain again at its end.
        sys.stdout = None
        return _ERROR
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"hpcremote: {what}", file=sys.stderr)
        return _ERROR


def _help() -> str:
    rows = "\n".join(f"  {name:<11} {what}" for name, what in COMMANDS.items())
    return (
        f"usage: hpcremote COMMAND ...\n\n{rows}\n\nhpcremote COMMAND --help tells more; hpcremote --version"
    )


def _near(word: str) -> str:
    from hpcremote.files import did_you_mean

    return did_you_mean(word, COMMANDS) or "; see hpcremote --help"
