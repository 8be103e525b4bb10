"""A start that failed is written down beside its logs, to be told later: until the next start, or a clean."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hpcremote import files
from hpcremote.errors import ConfigError
from hpcremote.launch import record
from hpcremote.launch.record import Record

#: Among the logs, which the next start removes all.
_FILE = "failed.json"


class Failed(NamedTuple):
    """A start that failed: when it began and failed, on which machine, and the whole error."""

    n: int
    launcher: str
    host: str
    started: float
    failed: float
    said: str


@contextlib.contextmanager
def noted(begun: Record) -> Iterator[None]:
    """Write down the error that ends a start in here. Who interrupts or stops it has no need of that."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(ConfigError):  # a full disk hides no error
            _note(begun, str(error) or type(error).__name__)
        raise


def _note(begun: Record, said: str) -> None:
    if record.is_being_stopped(begun.folder, begun.mark):
        return  # or nothing has begun, or it is somebody else's cluster that runs
    found = record.read(begun.folder) or begun
    told = Failed(found.n, found.launcher, found.host, found.started, time.time(), said)
    path = record.log_folder(found.folder) / _FILE
    files.write_private(path, (json.dumps(told._asdict(), indent=2) + "\n").encode())


def read(folder: Path) -> Failed | None:
    """Return what is written down in a cluster's folder of its last start, if that failed."""
    try:
        return Failed(**json.loads(files.read_private(record.log_folder(folder) / _FILE)))
    except (FileNotFoundError, ValueError, TypeError):  # not there, or damaged
        return None
