"""A user's own program beside a cluster: it has our terminal and our environment."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from hpcremote.errors import LaunchError

#: Seconds that it has to end when we are told to.
_FIRM = 5.0


def run(words: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a program to its end; return its exit code (negative: ended by that signal).

    Ctrl-C in the terminal reaches it as it reaches us, and what that means is for the program to say. If we
    are told to end in another way, it is, too.

    Raises:
        LaunchError: it cannot be started.
    """
    try:
        child = subprocess.Popen(list(words), env=dict(env))
    except OSError as error:
        raise LaunchError(f"cannot start {words[0]}: {error.strerror}") from None
    try:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue
    finally:
        if child.poll() is None:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_FIRM)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
