"""Ask the batch system of this job how long it has."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping

from hpcremote.wire import walltime

_log = logging.getLogger("hpcremote.agent")

#: How long the command may take, in seconds.
PATIENCE = 30.0


def time_left(environ: Mapping[str, str]) -> float | None:
    """Return the seconds that are left (-1: there is no limit), or None if the batch system does not say."""
    words = walltime.question(environ)
    if not words or shutil.which(words[0]) is None:
        return None
    import subprocess  # where there is somebody to ask

    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("%s: %s", words[0], error)
        return None
    left = walltime.answer(done.stdout)
    if left is None:
        _log.warning("%s does not say when the job ends: %s", words[0], (done.stderr or done.stdout).strip())
    return left
