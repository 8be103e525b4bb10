"""Interactive remote execution on MPI clusters.

::

    import hpcremote as parallel

    rc = parallel.Client(profile="mpi")
    view = rc[:]
    view.apply_sync(lambda x: x + 1, 41)      # [42, 42, 42, 42]

Names are loaded when they are first used, so importing the package costs next to nothing, and an engine
loads nothing of the client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpcremote._version import __version__

if TYPE_CHECKING:
    from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION

    from hpcremote import error
    from hpcremote.client.client import Client
    from hpcremote.client.mapresult import AsyncMapResult
    from hpcremote.client.metadata import Metadata
    from hpcremote.client.remotefunction import ParallelFunction, RemoteFunction, parallel, remote
    from hpcremote.client.result import AsyncResult
    from hpcremote.client.view import DirectView
    from hpcremote.cluster import Cluster
    from hpcremote.engine.comm.current import comm
    from hpcremote.engine.embed import embed, resume
    from hpcremote.engine.ending import on_walltime
    from hpcremote.engine.saving import load_namespace, save_namespace
    from hpcremote.engine.steering import Steering
    from hpcremote.errors import (
        AlreadyRunning,
        ClusterNotFound,
        CollectiveError,
        CompositeError,
        ConfigError,
        ConnectionFileError,
        EngineError,
        HPCRemoteError,
        LauncherError,
        LaunchError,
        NoEnginesRegistered,
        NotConnected,
        NotEnoughTime,
        NotReady,
        PayloadError,
        ProfileError,
        Refused,
        Released,
        RemoteError,
        SaveError,
        TaskAborted,
        TimeoutError,
        UnmetDependency,
        UnmetDependencyError,
    )
    from hpcremote.wire.depend import Reference, depend, dependent, interactive, require
    from hpcremote.wire.saved import Saved

__all__ = [
    "ALL_COMPLETED",
    "FIRST_COMPLETED",
    "FIRST_EXCEPTION",
    "AlreadyRunning",
    "AsyncMapResult",
    "AsyncResult",
    "Client",
    "Cluster",
    "ClusterNotFound",
    "CollectiveError",
    "CompositeError",
    "ConfigError",
    "ConnectionFileError",
    "DirectView",
    "EngineError",
    "HPCRemoteError",
    "LaunchError",
    "LauncherError",
    "Metadata",
    "NoEnginesRegistered",
    "NotConnected",
    "NotEnoughTime",
    "NotReady",
    "ParallelFunction",
    "PayloadError",
    "ProfileError",
    "Reference",
    "Refused",
    "Released",
    "RemoteError",
    "RemoteFunction",
    "SaveError",
    "Saved",
    "Steering",
    "TaskAborted",
    "TimeoutError",
    "UnmetDependency",
    "UnmetDependencyError",
    "__version__",
    "comm",
    "depend",
    "dependent",
    "embed",
    "error",
    "interactive",
    "load_namespace",
    "on_walltime",
    "parallel",
    "remote",
    "require",
    "resume",
    "save_namespace",
]

#: Where the names are.
_HOMES = {
    "concurrent.futures": ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"),
    "hpcremote.client.client": ("Client",),
    "hpcremote.client.mapresult": ("AsyncMapResult",),
    "hpcremote.client.metadata": ("Metadata",),
    "hpcremote.client.remotefunction": ("ParallelFunction", "RemoteFunction", "parallel", "remote"),
    "hpcremote.client.result": ("AsyncResult",),
    "hpcremote.client.view": ("DirectView",),
    "hpcremote.cluster": ("Cluster",),
    "hpcremote.engine.comm.current": ("comm",),
    "hpcremote.engine.embed": ("embed", "resume"),
    "hpcremote.engine.ending": ("on_walltime",),
    "hpcremote.engine.saving": ("load_namespace", "save_namespace"),
    "hpcremote.engine.steering": ("Steering",),
    "hpcremote.wire.depend": ("Reference", "depend", "dependent", "interactive", "require"),
    "hpcremote.wire.saved": ("Saved",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name == "error":
        return import_module("hpcremote.error")
    if name not in __all__:
        raise AttributeError(f"module 'hpcremote' has no attribute {name!r}")
    value = getattr(import_module(_HOME.get(name, "hpcremote.errors")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *globals()})
