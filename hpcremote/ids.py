"""The names of things: engines, engine sets, clients, clusters, calls.

* An *engine id* is what users write: ``rc[3]``. With MPI it is ``base + rank`` of its set.
* Every other id is random and never reused, so that what belongs to a dead engine, cluster or
  client can never be mistaken for a living one's.
"""

from __future__ import annotations

import os
import re
from typing import NewType

EngineId = int
SetId = NewType("SetId", str)
ClusterId = str

#: The id of a cluster to which nobody gave one; it is meant where none is said.
UNNAMED = "default"

_CLUSTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_UID = re.compile(r"[0-9a-f]{32}")


def new_uid() -> str:
    """Return 32 random hexadecimal digits."""
    return os.urandom(16).hex()  # the module secrets would cost every engine half a megabyte


def is_cluster_id(text: str) -> bool:
    """Say whether *text* can name a cluster (it becomes part of file names)."""
    return _CLUSTER_ID.fullmatch(text) is not None


def is_uid(text: str) -> bool:
    """Say whether *text* is one of :func:`new_uid`; anything else might be a path out of a folder."""
    return _UID.fullmatch(text) is not None


def is_blob_name(text: str) -> bool:
    """Say whether *text* names a shared-memory blob; anything else might be a path out of its folder."""
    return is_uid(text)
