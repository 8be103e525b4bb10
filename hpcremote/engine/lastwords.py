"""A process that ends says how, on its standard error, so that others can tell.

Faults (a segmentation fault) and SIGTERM are reported by Python's faulthandler, which works while C code
holds the process up, as a collective does; ``os._exit`` and an ordinary end by lines of our own. Only
SIGKILL leaves nothing, and that says it too. They are read by :func:`hpcremote.wire.lastwords.cause_of`.
"""

from __future__ import annotations

import atexit
import faulthandler
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from hpcremote.wire.lastwords import MARK


class LastWords:
    """Makes this process say how it ends, to the file descriptor *fd*."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)
        self._said = False
        self._pid = os.getpid()
        self._exit = os._exit

    def install(self) -> None:
        """From now on."""
        faulthandler.enable(self._fd, all_threads=True)
        # One stack, then the default action: the process ends at once. The parser knows the form.
        faulthandler.register(signal.SIGTERM, self._fd, all_threads=False, chain=True)
        os.register_at_fork(after_in_child=self._in_child)
        self._replace_exit(self._on_exit)
        atexit.register(self.say, "it ended by itself (sys.exit, or the end of its program)")

    def uninstall(self) -> None:
        """Undo :meth:`install`."""
        faulthandler.disable()
        faulthandler.unregister(signal.SIGTERM)
        self._replace_exit(self._exit)
        atexit.unregister(self.say)
        os.close(self._fd)

    def say(self, what: str) -> None:
        """Write down how the process ends; the first one counts."""
        if self._said or os.getpid() != self._pid:  # a forked child of the user's ends on its own account
            return
        self._said = True
        with suppress(OSError):  # a full disk, at the very end
            os.write(self._fd, f"\n{MARK}{what}\n".encode())

    @staticmethod
    def _replace_exit(function: Callable[[int], NoReturn]) -> None:
        # Sent by reference, as in apply(os._exit, 3), it is looked up where it is from: in posix.
        for module in (os, sys.modules[os.name]):
            module._exit = function  # type: ignore[attr-defined]  # noqa: SLF001

    def _in_child(self) -> None:
        # A child that the user forks shares the file, and its end is not ours.
        if not self._said and os.getpid() != self._pid:
            faulthandler.disable()
            faulthandler.unregister(signal.SIGTERM)

    def _on_exit(self, status: int) -> NoReturn:
        self.say(f"os._exit({status})")
        self._exit(status)
