"""What is written down about a cluster, so that another process can find, judge and end it.

::

    <user_dir>/clusters/<profile>/<cluster id>/cluster.json    here: which processes, where, since when
                                              /client.json     the controller's: how to connect (secret)
                                              /engine.json
                                              /job.sh          what was submitted, if anything was
                                              /logs/controller.log, engines.log, failed.json
                                              /.lock           held while a start or stop is at work

There is no secret in ``cluster.json``. Pids stand with their start times: one that was reused is never taken
for ours.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hpcremote import files
from hpcremote.connection import Connection, from_dict
from hpcremote.errors import AlreadyRunning, ConfigError
from hpcremote.ids import is_blob_name
from hpcremote.launch import memory
from hpcremote.launch.process import Process, end, surely_marked

FORMAT = 1
_FILE = "cluster.json"
_LOOK_AGAIN = 0.02
#: Seconds to wait for somebody else who starts or stops the cluster.
PATIENCE = 5.0
#: The file by which the controller tells the script of its job to start the ranks once more.
AGAIN = "again"
#: Stands for a set's name in the job that the controller has for itself.
CONTROLLER = "controller"


@dataclasses.dataclass(frozen=True)
class Submitted:
    """A job that was submitted: its id, the scheduler's name, when, and which set of *n* engines it brings.

    ``set`` is what the engines carry in their environment, or :data:`CONTROLLER`; ``script`` and ``log`` are
    files; ``launcher`` is what starts the ranks; ``ended`` is how it ended, in words, once somebody knew.
    """

    id: str
    scheduler: str
    set: str
    n: int
    submitted: float
    script: str
    log: str
    launcher: str
    ended: str = ""

    def __str__(self) -> str:
        whose = "the controller's " if self.set == CONTROLLER else ""
        return f"{whose}job {self.id} ({self.scheduler})"


@dataclasses.dataclass(frozen=True)
class Record:
    """One cluster, as written down by who started it.

    Attributes:
        profile: name of its profile.
        cluster_id: its name within the profile.
        mark: what its processes carry in their environment.
        machine: ``files.machine_id()`` of where it was started.
        host: that machine's name, for people.
        started: when, in seconds since the epoch.
        n: how many engines were asked for.
        launcher: name of the launcher, and what it found ("MPICH 5.0.2").
        state: ``starting``, ``running`` or ``stopping``.
        temporary: nobody chose its id, so nobody will look for its logs when it has ended well.
        owner: the process that started it.
        controller: the controller's process.
        engines: the processes that run the engines (n of them, or one mpiexec).
        memory: files of shared memory that MPI libraries made (see ``launch.memory``), by the set's mark.
        cwd: the folder that the engines start in.
        controller_at: where the controller runs: ``here``, in a ``job`` with engines, or in its ``own-job``.
        jobs: what was submitted to a batch system.
    """

    profile: str
    cluster_id: str
    mark: str
    machine: str
    host: str
    started: float
    n: int
    launcher: str
    state: str
    temporary: bool
    owner: Process
    controller: Process | None = None
    engines: tuple[Process, ...] = ()
    memory: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    cwd: str = ""
    controller_at: str = "here"
    jobs: tuple[Submitted, ...] = ()

    @property
    def home(self) -> Submitted | None:
        """The job that the controller runs in, if it does in one: the first."""
        return self.jobs[0] if self.controller_at != "here" and self.jobs else None

    @property
    def folder(self) -> Path:
        """The cluster's folder."""
        return files.cluster_dir(self.profile, self.cluster_id)

    @property
    def name(self) -> str:
        """The cluster in words."""
        return f"cluster {self.cluster_id!r} of profile {self.profile!r}"

    @property
    def is_here(self) -> bool:
        """Whether its processes are on this machine, so that pids mean something."""
        return self.machine == files.machine_id()

    @property
    def processes(self) -> list[Process]:
        """All processes that are written down, save the owner."""
        return [*([self.controller] if self.controller else []), *self.engines]

    def condition(self) -> str:
        """Return how it is: starting, running, stopping, stale (no process left) or broken (some left).

        ``elsewhere``: it was started on another machine, from which alone that can be told. Where the
        controller is in a job, the scheduler has to be asked, which this does not do: see ``clusters``.
        """
        if self.controller_at != "here":
            return self.state
        if not self.is_here:
            return "elsewhere"
        if self.controller is not None and self.controller.alive():
            return self.state
        if self.state == "starting" and self.owner.alive():
            return "starting"
        left = self.jobs or any(one.alive() for one in self.processes) or surely_marked(self.mark)
        return "broken" if left else "stale"

    def write(self) -> None:
        """Write it down."""
        data = {"format": FORMAT, **dataclasses.asdict(self)}
        files.write_private(self.folder / _FILE, (json.dumps(data, indent=2) + "\n").encode())

    def with_memory(self, mark: str, paths: tuple[str, ...]) -> Record:
        """Return the same with these files of the set that carries *mark*, having written it down."""
        return self.changed(memory={**self.memory, mark: paths})

    def changed(self, **changes: Any) -> Record:
        """Return the same with *changes*, having written it down."""
        record = dataclasses.replace(self, **changes)
        record.write()
        return record

    def changed_at_the_end(self, **changes: Any) -> Record:
        """As ``changed``, but a disk that is full keeps no cluster from being ended."""
        record = dataclasses.replace(self, **changes)
        with contextlib.suppress(ConfigError):
            record.write()
        return record


def read(folder: Path) -> Record | None:
    """Return the record in a cluster's folder, or None if there is none.

    Raises:
        ConfigError: it cannot be read, or is not one.
    """
    path = folder / _FILE
    try:
        data = json.loads(files.read_private(path))
        if data.pop("format") != FORMAT:
            raise ConfigError(
                f"{path} is of another version of hpcremote; run the other version's `hpcremote stop`"
            )
        data["owner"] = Process(**data["owner"])
        data["controller"] = Process(**data["controller"]) if data["controller"] else None
        data["engines"] = tuple(Process(**one) for one in data["engines"])
        data["memory"] = {mark: tuple(paths) for mark, paths in data["memory"].items()}
        data["jobs"] = tuple(Submitted(**one) for one in data.get("jobs", ()))
        return Record(**data)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(
            f"{path} is damaged; end what is left of that cluster and remove the folder"
        ) from None


def is_being_stopped(folder: Path, mark: str) -> bool:
    """Say whether somebody has stopped the cluster that carries *mark*, or is at it, here or elsewhere."""
    with contextlib.suppress(OSError):
        os.listdir(folder)  # has network file systems look again
    found = read(folder)
    return found is None or found.mark != mark or found.state == "stopping"


def is_written_down(folder: Path) -> bool:
    """Say whether there is a record in a cluster's folder, readable or not."""
    return (folder / _FILE).exists()


def folders() -> list[Path]:
    """Return the folders of all clusters of this user, running or not."""
    return sorted(path for path in (files.user_dir() / "clusters").glob("*/*") if path.is_dir())


def log_folder(folder: Path) -> Path:
    """Return the folder of a cluster's logs."""
    return folder / "logs"


# ---------------------------------------------------------------- coming and going


@contextlib.contextmanager
def locked(folder: Path, patience: float = 0.0) -> Iterator[None]:
    """Hold the cluster's lock: only one process at a time starts or stops it.

    Without a folder there is no cluster, and nobody to keep out; none is made.

    Raises:
        AlreadyRunning: another process is at it, for longer than *patience* seconds.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            held.callback(os.close, descriptor)
            try:
                _lock(descriptor, time.monotonic() + patience)
            except BlockingIOError:
                raise AlreadyRunning(
                    f"another process is starting or stopping the cluster in {folder}"
                ) from None
            # Said, and not left to the close: a process that another thread has just forked has it open, too.
            held.callback(fcntl.flock, descriptor, fcntl.LOCK_UN)
        yield


def _lock(descriptor: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_AGAIN)


def claim(
    record: Record,
    condition: Callable[[Record], str] = Record.condition,
    clear: Callable[[Record], None] = lambda found: end(found.processes, found.mark, (), polite=0.0),
) -> None:
    """Write *record* down as the one of its cluster, ending and removing what a dead predecessor left.

    The caller holds the cluster's lock.

    Args:
        record: the cluster.
        condition: tells how the one is that was written down before.
        clear: ends what is left of it.

    Raises:
        AlreadyRunning: a cluster of that profile and id lives.
    """
    found = read(record.folder)
    if found is not None:
        _refuse_living(found, condition(found))
        clear(found)
    for path in connection_files(record.folder):
        _refuse_by_hand(path)
    sweep(record.folder)
    files.private_dir(log_folder(record.folder))
    for log in log_folder(record.folder).iterdir():
        log.unlink()
    record.write()


def _refuse_living(found: Record, condition: str) -> None:
    if condition in ("stale", "broken"):
        return
    how = (
        f"runs on {found.host} (so it was when it was last written down)"
        if condition == "elsewhere"
        else f"is {condition}"
    )
    raise AlreadyRunning(
        f"{found.name} {how}, since {time.strftime('%H:%M:%S on %d %b', time.localtime(found.started))}. "
        f"Connect to it, stop it (hpcremote stop --profile {found.profile} --cluster-id {found.cluster_id}), "
        f"or start another one beside it (--cluster-id another-name)"
    )


def _refuse_by_hand(path: Path) -> None:
    """A controller that was started by hand has no record, only connection files."""
    connection = peek(path)
    if connection is not None and connection.is_local and not connection.is_stale:
        raise AlreadyRunning(
            f"a controller that was started by hand (pid {connection.pid}) runs as cluster "
            f"{connection.cluster_id!r} of profile {connection.profile!r}: stop it (hpcremote stop --profile "
            f"{connection.profile} --cluster-id {connection.cluster_id}), or choose another --cluster-id"
        )


def connection_files(folder: Path) -> list[Path]:
    """Return where a cluster's connection files are, if they are."""
    return [folder / "client.json", folder / "engine.json"]


def peek(path: Path) -> Connection | None:
    """Return the connection in a file even if it is stale; None if it is not there or not one."""
    try:
        return from_dict(json.loads(files.read_private(path)), path.stem, str(path))
    except (FileNotFoundError, ValueError, ConfigError):
        return None


def sweep(folder: Path) -> None:
    """Remove what a dead cluster left: connection files, jobs' scripts, sockets and shared memory."""
    with contextlib.suppress(ConfigError):  # damaged: then it names nothing
        found = read(folder)
        if found is not None and found.is_here:
            for paths in found.memory.values():
                memory.remove(paths)
    for path in connection_files(folder):
        connection = peek(path)
        if connection is not None and connection.is_local:
            _remove_traces(connection)
        path.unlink(missing_ok=True)
    for path in (folder / AGAIN, *folder.glob("*.sh")):
        path.unlink(missing_ok=True)


def _remove_traces(connection: Connection) -> None:
    # Paths are worked out anew: what a file names may be anything.
    uid = connection.cluster_uid
    if not is_blob_name(uid):
        return
    files.socket_path(f"{uid[:16]}.sock").unlink(missing_ok=True)
    for place in (files.runtime_dir() / uid[:16], files.shm_dir(uid)):
        if place is not None and place.is_dir():
            shutil.rmtree(place, ignore_errors=True)


def forget(record: Record, *, keep_logs: bool = False) -> None:
    """Remove a cluster that has ended from disk; its logs stay if its id was chosen, or if asked."""
    found = read(record.folder)
    if found is None or found.mark != record.mark:
        return  # somebody else's by now
    if record.is_here:
        for paths in record.memory.values():  # it may not have been possible to write that down
            memory.remove(paths)
    if record.temporary and not keep_logs:
        remove(record.folder)
        return
    sweep(record.folder)
    (record.folder / _FILE).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove a cluster's whole folder with its logs; what cannot be removed is an error."""
    sweep(folder)
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):  # not empty: other clusters of the profile
        folder.parent.rmdir()
