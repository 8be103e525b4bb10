"""What begins as a whole or not at all: if it fails half way, what there is of it is abandoned."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from hpcremote.errors import HPCRemoteError, LaunchError


@contextlib.contextmanager
def attempt(abandon: Callable[[], object]) -> Iterator[None]:
    """Call *abandon* if what is done in here fails, or is interrupted; the error stays what it was.

    Raises:
        LaunchError: it failed, and not all of it could be ended: both are said.
    """
    try:
        yield
    except BaseException as error:
        try:
            abandon()
        except HPCRemoteError as left:
            said = str(error) or type(error).__name__
            raise LaunchError(f"{said}\nNot all that had begun could be ended: {left}") from error
        raise
