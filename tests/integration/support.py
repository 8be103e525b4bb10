"""Clusters that are looked after to the end, and users at a prompt."""

from __future__ import annotations

import errno
import linecache
import os
import subprocess
import sys
import textwrap
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import hpcremote
from hpcremote import files
from hpcremote.launch import process, record

ROOT = Path(hpcremote.__file__).parents[1]
#: Seconds after which what should have happened has not: generous, the machine may be busy.
PATIENCE = 30.0
#: Open MPI wants to be told that root and few cores are no accident.
MANNERS = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
}


def eventually(
    what: Callable[[], Any], seconds: float = PATIENCE, why: str | Callable[[], object] = "it did not happen"
) -> float:
    """Wait for something that nobody announces (the end of a stranger's process); return how long it took.

    Args:
        what: is true when it has happened.
        seconds: how long it may take.
        why: what is wrong if it does not happen; or what returns that, then.
    """
    began = time.monotonic()
    while not what():
        if time.monotonic() - began >= seconds:
            raise AssertionError(f"{why() if callable(why) else why}, for {seconds:g} s")
        time.sleep(0.005)
    return time.monotonic() - began


def has_ended(process: psutil.Process) -> bool:
    """Say whether a process has ended, its parent having looked or not."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


class Running:
    """A cluster, a client of it, and what has to be gone when it ends.

    Attributes:
        cluster: the cluster.
        rc: a client.
        controller: the controller's process.
        engines: the engines' processes, by id.
    """

    cluster: hpcremote.Cluster
    rc: hpcremote.Client

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._traces: set[Path] = set()
        self.engines: dict[int, psutil.Process] = {}

    def start(self) -> Running:
        self.cluster = hpcremote.Cluster(**self._options)
        self.cluster.start()
        self._record = record.read(files.cluster_dir(self.cluster.profile.name, self.cluster.cluster_id))
        try:
            self.rc = self.cluster.connect_client()
            self._take_note()
        except BaseException:
            self.cluster.stop()
            raise
        return self

    def _take_note(self) -> None:
        infos = self.rc.link.engines.values()
        self.engines = {info.id: psutil.Process(info.pid) for info in infos}
        self.controller = psutil.Process(self.rc.link.welcome.pid)
        uid = self.rc.link.connection.cluster_uid
        self._traces = {files.runtime_dir() / f"{uid[:16]}.sock", files.runtime_dir() / uid[:16]}
        if (shm := files.shm_dir(uid)) is not None:
            self._traces.add(shm)
        self._mapped = {
            Path(entry.path) for engine in self.engines.values() for entry in engine.memory_maps()
            if entry.path.startswith("/dev/shm/") and not entry.path.endswith("(deleted)")
        }  # fmt: skip

    @property
    def mark(self) -> str:
        """What all processes of the cluster carry in their environment."""
        assert self._record is not None
        return self._record.mark

    def processes(self) -> list[psutil.Process]:
        """All of its processes that run now, helpers (mpiexec, its proxies) among them."""
        return [psutil.Process(one.pid) for one in process.marked(self.mark)]

    def new_client(self) -> hpcremote.Client:
        """Return one more client."""
        return self.cluster.connect_client()

    def client_file(self) -> Path:
        """Return the connection file for clients."""
        return files.cluster_dir(self.cluster.profile.name, self.cluster.cluster_id) / "client.json"

    def stop(self) -> None:
        """End it, and fail if anything of it is left."""
        if not hasattr(self, "cluster"):
            return
        if hasattr(self, "rc"):
            self.rc.close()
        self.cluster.stop()
        if self._record is not None:
            assert self._left() == [], "processes are left"
            assert not self._record.folder.exists(), "the cluster's folder is left"
        left = {path for path in self._traces | self.shared_memory() if path.exists()}
        assert left == set(), "files are left"

    def _left(self) -> list[str]:
        """Return the command lines of what is left."""
        paths = [Path(f"/proc/{one.pid}/cmdline") for one in process.marked(self.mark)]
        return [f"{path}: {path.read_text()}" for path in paths if path.exists()]

    def shared_memory(self) -> set[Path]:
        """Return the shared-memory files that the engines' MPI library made."""
        return getattr(self, "_mapped", set())

    def __enter__(self) -> Running:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


def open_gate(path: Path) -> None:
    """Let go on who waits at a named pipe by opening it for reading; wait for it to get there."""

    def someone_waits() -> bool:
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError as error:
            if error.errno == errno.ENXIO:
                return False
            raise
        return True

    eventually(someone_waits, why=f"nobody came to {path}")


class Notebook:
    """A user at a prompt: cells run in a module ``__main__`` that exists nowhere else.

    ``notebook(code)`` runs a cell; tracebacks show its lines, as in IPython. ``notebook.name`` reads, and
    ``notebook["name"] = value`` sets, what cells see. Use the fixture of this name.
    """

    def __init__(self) -> None:
        self.module = types.ModuleType("__main__")
        self._cells = 0

    def __call__(self, code: str, **names: Any) -> Notebook:
        vars(self.module).update(names)
        self._cells += 1
        code = textwrap.dedent(code).strip("\n") + "\n"
        name = f"<notebook-{self._cells}>"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        exec(compile(code, name, "exec", dont_inherit=True), vars(self.module))
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self.module, name, value)


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which any Python finds this very hpcremote."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **more}


def python(*words: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python of its own, with pipes."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen([sys.executable, *words], text=True, env=environment(), **options)


def script(code: str, *words: str, **options: Any) -> subprocess.Popen[str]:
    """Start a Python that runs *code* as ``__main__``."""
    return python("-c", textwrap.dedent(code), *words, **options)


def command(*words: str, seconds: float = PATIENCE, **env: str) -> subprocess.CompletedProcess[str]:
    """Run ``hpcremote`` as a user does, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "hpcremote", *words],
        text=True, capture_output=True, timeout=seconds, check=False,
        env=environment(**env), stdin=subprocess.DEVNULL,
    )  # fmt: skip
