"""A progress bar: a line of text in terminals, tqdm's widget in notebooks where it is installed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TextIO

_WIDTH = 30


class Bar(Protocol):
    """Shows how much is done."""

    def update(self, done: int) -> None:
        """Show that *done* items are done."""


class TextBar:
    """One line on stderr, rewritten in a terminal; elsewhere (a log file) only its last state is written."""

    def __init__(self, total: int, title: str, file: TextIO | None = None) -> None:
        self._total = total
        self._title = title
        self._file = file or sys.stderr
        self._live = self._file.isatty()
        self._begun = time.monotonic()
        self._shown = ""
        self._done = 0

    def update(self, done: int) -> None:
        """Show that *done* items are done."""
        self._done = done
        line = self._line()
        if self._live and line != self._shown:
            self._file.write("\r" + line.ljust(len(self._shown)))
            self._file.flush()
            self._shown = line

    def close(self) -> None:
        """End the line."""
        self._file.write("\n" if self._live else self._line() + "\n")
        self._file.flush()

    def _line(self) -> str:
        share = self._done / self._total if self._total else 1.0
        filled = int(share * _WIDTH)
        bar = "#" * filled + "." * (_WIDTH - filled)
        return f"{self._title} [{bar}] {self._done}/{self._total} {time.monotonic() - self._begun:.1f} s"


class _WidgetBar:
    def __init__(self, total: int, title: str, tqdm: Any) -> None:
        self._bar = tqdm(total=total, desc=title, unit="tasks")

    def update(self, done: int) -> None:
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


@contextmanager
def progress_bar(total: int, title: str, *, widget: bool | None = None) -> Iterator[Bar]:
    """Show progress while the block runs.

    Args:
        total: how many items there are.
        title: what is being done.
        widget: True or False instead of asking whether this is a notebook.
    """
    tqdm = _notebook_tqdm() if widget or (widget is None and in_notebook()) else None
    bar: Any = TextBar(total, title) if tqdm is None else _WidgetBar(total, title, tqdm)
    bar.update(0)
    try:
        yield bar
    finally:
        bar.close()


def in_notebook() -> bool:
    """Say whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return getattr(shell, "kernel", None) is not None


def in_ipython() -> bool:
    """Say whether somebody sits at an IPython prompt or notebook of this process."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and ipython.get_ipython() is not None


def _notebook_tqdm() -> Any:
    try:
        import ipywidgets  # noqa: F401
        from tqdm.notebook import tqdm
    except ImportError:
        return None
    return tqdm
