"""A cluster: a controller and an engine set, started, watched and ended together.

::

    Cluster(n=4, profile="mpi").start()
        launch      controller and engines start at the same time; the engines wait for the controller's file
        MPI_Init    the engines tell the controller how far they are, and it tells us
        register    they are there, all at once
    connect_client() ──▶ Client          stop(): ask, wait, SIGTERM, SIGKILL

What a method does blocking, ``method_async`` does for asyncio, in a thread.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from hpcremote import clusters, files, profile, stopping
from hpcremote.errors import AlreadyRunning, ClusterNotFound, ConfigError, ProfileError
from hpcremote.extending import Extending, checked_count
from hpcremote.ids import is_cluster_id
from hpcremote.launch import ending, failed, job, startup, unused
from hpcremote.launch.attempt import attempt
from hpcremote.launch.watch import Progress, Watch

if TYPE_CHECKING:
    from types import TracebackType

    from hpcremote.client.client import Client
    from hpcremote.client.link import Link

_T = TypeVar("_T")

_BY_PROFILE = "a profile says how engines are started: profile='mpi', profile='local', or one of your own"
#: Those besides the keys of a profile.
_ARGUMENTS = ("profile", "cluster_id", "progress", "shutdown_atexit")
#: Arguments of ipyparallel's Cluster, and what to write instead.
ELSEWHERE = {
    "controller_ip": "that is the key 'interface'",
    "controller_launcher_class": "the controller is a process on this machine",
    "engine_launcher_class": _BY_PROFILE,
    "engine_timeout": "that is the key 'start_timeout'",
    "engines": _BY_PROFILE,
    "profile_dir": "profile= takes a name or the path of a file",
}


class Cluster(Extending):
    """A controller and *n* engines.

    ``with Cluster(n=4, profile="mpi") as rc:`` gives a connected client and ends everything at the end
    of the block. Without ``with``: :meth:`start`, :meth:`connect_client`, :meth:`stop`. What was
    started ends with this Python process, however that ends, unless it was told to :meth:`detach`.

    Args:
        n: how many engines; default: what the profile says.
        profile: the profile's name, or the path of its file.
        cluster_id: default: a random one.
        progress: called with a :class:`Progress` whenever a start gets further.
        shutdown_atexit: False: the cluster lives on once it is started.
        overrides: keys of the profile.

    A profile without a scheduler that has keys of jobs is warned of: they have no effect.

    Raises:
        ProfileError: there is no such profile, or a key or value is wrong.
    """

    def __init__(
        self,
        n: int | None = None,
        profile: str | os.PathLike[str] = "default",
        cluster_id: str | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
        shutdown_atexit: bool = True,
        **overrides: Any,
    ) -> None:
        for name in overrides:
            _refuse_unknown(name)
        self._source = _absolute(profile)
        self._overrides = {key: value for key, value in {"n": n, **overrides}.items() if value is not None}
        self.profile = _load(self._source, self._overrides)
        if said := unused.told(self.profile):
            warnings.warn(said, stacklevel=2)
        self.cluster_id = _checked(cluster_id or f"c{secrets.token_hex(4)}")
        self._temporary = cluster_id is None
        self.n = self.profile.engines
        self.progress = progress
        self.shutdown_atexit = shutdown_atexit
        self._startup: startup.Startup | None = None
        self._client: Client | None = None
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self._given_up = threading.Event()

    def __repr__(self) -> str:
        return f"<Cluster {self.cluster_id!r} n={self.n} profile={self.profile.name!r}>"

    # ------------------------------------------------------------ start

    def start(self, n: int | None = None) -> Cluster:
        """Start controller and engines; return when all engines are registered.

        Raises:
            AlreadyRunning: a cluster of that profile and id lives.
            LaunchError: something is missing, a process ended, or it took longer than the profile's
                ``start_timeout``. The message ends with the logs' last lines. Nothing is left running.
        """
        if n is not None:
            self._overrides["n"] = n
            self.profile = _load(self._source, self._overrides)
            self.n = self.profile.engines
        if self._startup is not None:
            if self._startup.running:
                raise AlreadyRunning(
                    f"{self._startup.record.name} is started already; stop() or restart() it"
                )
            self.stop()  # it came to its end by itself
        begun = startup.Startup(self.profile, self.cluster_id, self.n, temporary=self._temporary)
        self._given_up.clear()
        _keep(self)
        try:
            with attempt(begun.abandon), failed.noted(begun.record):
                self._startup = begun
                begun.launch(self._controller_words(), self._engine_words(begun))
                Watch(begun, self._link, self._tell, self._given_up).run()
                begun.ready()
        except BaseException:
            self._startup = None
            _let_go(self)
            raise
        if not self.shutdown_atexit:
            self.detach()
        return self

    def dry_run(self) -> str:
        """Return what :meth:`start` would do, as text: the job's script if there is one, and the commands."""
        begun = startup.Startup(self.profile, self.cluster_id, self.n)
        return begun.described(self._controller_words(), self._engine_words(begun))

    def _controller_words(self) -> list[str]:
        words = ["-m", "hpcremote", "controller", "--profile", self._source, "--cluster-id", self.cluster_id]
        for key, value in self._overrides.items():
            words += ["--set", f"{key}={_as_word(value)}"]
        return words

    def _engine_words(self, begun: startup.Startup) -> list[str]:
        return job.engine_words(self.profile, begun.record.folder)

    def _link(self) -> Link:
        return clusters.link_of(self.profile.name, self.cluster_id)

    def _tell(self, seen: Progress) -> None:
        if self.progress is not None:
            self.progress(seen)

    def wait(self) -> None:
        """Wait until the cluster's controller has ended (if we started it)."""
        if self._startup is not None:
            self._startup.wait()

    @property
    def launcher(self) -> str:
        """The launcher that started it, and what that found on this machine, as in "mpiexec, MPICH 4.3"."""
        return self._startup.record.launcher if self._startup is not None else self.profile.launcher

    def detach(self) -> None:
        """Let the cluster live on when this process ends."""
        if self._startup is not None:
            self._startup.detach()
        _let_go(self)

    # ------------------------------------------------------------ use

    def connect_client(self, **options: Any) -> Client:
        """Return a new client of this cluster.

        Raises:
            ClusterNotFound: it does not run.
            NotConnected: its controller does not answer.
        """
        from hpcremote.client.client import Client

        made = Client(
            clusters.connection_of(self.profile.name, self.cluster_id), **{"cluster": self, **options}
        )
        self._clients.add(made)
        return made

    def start_and_connect(self, n: int | None = None) -> Client:
        """Start and return a client of it."""
        return self.start(n).connect_client()

    def status(self) -> clusters.Status:
        """Return what is known of the cluster, or of its last start if that failed.

        Raises:
            ClusterNotFound: there is none of that profile and id.
        """
        return clusters.status(self.profile.name, self.cluster_id)

    @property
    def time_left(self) -> float | None:
        """The seconds until the first of the engines' jobs ends; None without a limit that is known.

        Raises:
            ClusterNotFound: it does not run.
        """
        return clusters.time_left(self.profile.name, self.cluster_id)

    # ------------------------------------------------------------ stop

    def stop(self) -> None:
        """End the cluster, whoever started it; nothing of it is left but its logs. Ended already: fine.

        Raises:
            LaunchError: a process cannot be ended.
        """
        client, self._client = self._client, None
        if client is not None:
            client.close()
        begun, self._startup = self._startup, None
        try:
            if begun is not None and begun.record.controller_at == "here":
                ending.end(begun.record, begun.children, polite=self.profile.stop_timeout)
            else:
                stopping.stop(self.profile.name, self.cluster_id, timeout=self.profile.stop_timeout)
        except ClusterNotFound:
            return
        finally:
            _let_go(self)

    def restart(self, n: int | None = None) -> Cluster:
        """End the cluster and start it again, under the same id and with new keys."""
        self.stop()
        return self.start(n)

    def __enter__(self) -> Client:
        self.start()
        try:
            self._client = self.connect_client()
        except BaseException:
            self.stop()
            raise
        return self._client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ------------------------------------------------------------ asyncio

    async def start_async(self, n: int | None = None) -> Cluster:
        """As :meth:`start`. Cancelled, it ends what it started."""
        import asyncio

        work = asyncio.ensure_future(asyncio.to_thread(self.start, n))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self._given_up.set()
            await asyncio.wait([work])
            if not work.cancelled() and work.exception() is None:
                await asyncio.to_thread(self.stop)
            raise

    async def stop_async(self) -> None:
        """As :meth:`stop`."""
        await _in_thread(self.stop)

    async def restart_async(self, n: int | None = None) -> Cluster:
        """As :meth:`restart`."""
        await self.stop_async()
        return await self.start_async(n)

    async def status_async(self) -> clusters.Status:
        """As :meth:`status`."""
        return await _in_thread(self.status)

    async def connect_client_async(self, **options: Any) -> Client:
        """As :meth:`connect_client`."""
        return await _in_thread(self.connect_client, **options)

    async def start_and_connect_async(self, n: int | None = None) -> Client:
        """As :meth:`start_and_connect`."""
        return await (await self.start_async(n)).connect_client_async()

    async def __aenter__(self) -> Client:
        await self.start_async()
        try:
            self._client = await self.connect_client_async()
        except BaseException:
            await self.stop_async()
            raise
        return self._client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_async()

    # ipyparallel's names: the plain one is the coroutine there, ``_sync`` blocks.
    start_cluster = start_async
    stop_cluster = stop_async
    start_cluster_sync = start
    stop_cluster_sync = stop
    start_and_connect_sync = start_and_connect
    connect_client_sync = connect_client


# ---------------------------------------------------------------- small things

#: Clusters that end with this process, and the process that started them (a fork of it shall not end them).
_ours: dict[Cluster, int] = {}


def _keep(cluster: Cluster) -> None:
    if not _ours:
        atexit.register(_stop_ours)
    _ours[cluster] = os.getpid()


def _let_go(cluster: Cluster) -> None:
    _ours.pop(cluster, None)
    if not _ours:
        atexit.unregister(_stop_ours)


def _stop_ours() -> None:
    for cluster, pid in list(_ours.items()):
        if pid == os.getpid():
            cluster.stop()


async def _in_thread(method: Callable[..., _T], **options: Any) -> _T:
    import asyncio

    return await asyncio.to_thread(method, **options)


def _absolute(profile_name: str | os.PathLike[str]) -> str:
    """A profile's file is named from its root: the controller runs in another folder."""
    name = os.fspath(profile_name)
    return (
        os.path.abspath(os.path.expanduser(name)) if "/" in name or name.endswith((".yaml", ".yml")) else name
    )


def _refuse_unknown(name: str) -> None:
    """Raise the error for what is neither an argument of ``Cluster`` nor a key."""
    if name in ELSEWHERE:
        raise ProfileError(f"Cluster() has no argument {name!r}: {ELSEWHERE[name]}")
    keys = [each for key in profile.keys() for each in (key.name, *key.also)]  # noqa: SIM118 (a function)
    if name not in keys:
        near = files.did_you_mean(name, [*_ARGUMENTS, *keys])
        raise ProfileError(f"Cluster() has no argument {name!r}, and profiles have no such key{near}")


def _load(source: str, overrides: dict[str, Any]) -> profile.Profile:
    count = overrides.get("n")
    if count is not None:
        checked_count(count, "a cluster")
    return profile.load(source, overrides)


def _as_word(value: Any) -> str:
    import json

    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _checked(cluster_id: str) -> str:
    if not is_cluster_id(cluster_id):
        raise ConfigError(
            f"cluster_id {cluster_id!r}: has to begin with a letter or digit, and to be of letters, "
            f"digits, '_', '.' and '-', at most 64"
        )
    return cluster_id
