"""What is written down about a cluster, and how it is judged."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time

import pytest

from hpcremote import files
from hpcremote.errors import AlreadyRunning, ConfigError
from hpcremote.ids import new_uid
from hpcremote.launch import ending, record
from hpcremote.launch.process import MARK, Process, of_pid


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))


@pytest.fixture
def sleeper():
    mark = new_uid()
    code = "import signal; signal.pause()"
    child = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, MARK: mark})
    yield mark, of_pid(child.pid)
    child.kill()
    child.wait()


DEAD = Process(2**22 + 1, 1)


def make(**changes) -> record.Record:
    values = {
        "profile": "mpi",
        "cluster_id": "a",
        "mark": new_uid(),
        "machine": files.machine_id(),
        "host": "node1",
        "started": time.time(),
        "n": 4,
        "launcher": "mpiexec",
        "state": "running",
        "temporary": False,
        "owner": DEAD,
        "controller": DEAD,
        "engines": (DEAD,),
    }
    return record.Record(**{**values, **changes})


def claimed(**changes) -> record.Record:
    made = make(**changes)
    record.claim(made)
    return made


def test_a_record_comes_back_as_it_was():
    made = claimed()
    assert record.read(made.folder) == made
    assert (made.folder / "cluster.json").stat().st_mode & 0o077 == 0
    assert record.folders() == [made.folder]


def test_there_is_none():
    assert record.read(files.cluster_dir("mpi", "none")) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 1, "owner": 3}', "\xff"])
def test_a_damaged_record_is_said_to_be(text):
    made = claimed()
    (made.folder / "cluster.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"cluster\.json is damaged"):
        record.read(made.folder)


def test_a_record_of_another_format():
    made = claimed()
    path = made.folder / "cluster.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ConfigError, match="of another version"):
        record.read(made.folder)


def test_conditions(sleeper):
    mark, alive = sleeper
    assert make(controller=alive).condition() == "running"
    assert make(controller=alive, state="stopping").condition() == "stopping"
    assert make(controller=None, engines=(), owner=alive, state="starting").condition() == "starting"
    assert make(controller=None, engines=(), state="starting").condition() == "stale"
    assert make().condition() == "stale"
    assert make(engines=(DEAD, alive)).condition() == "broken"
    assert make(mark=mark).condition() == "broken"  # a rank in a session of its own
    assert make(controller=alive, machine="another").condition() == "elsewhere"


def test_a_recycled_pid_is_not_ours(sleeper):
    _, alive = sleeper
    stranger = Process(alive.pid, (alive.started or 0) - 1)
    assert make(controller=stranger, engines=(stranger,)).condition() == "stale"


def test_a_living_cluster_is_not_replaced(sleeper):
    first = claimed(controller=sleeper[1])
    with pytest.raises(AlreadyRunning) as caught:
        claimed()
    said = str(caught.value)
    assert said.startswith("cluster 'a' of profile 'mpi' is running, since ")
    assert "hpcremote stop --profile mpi --cluster-id a" in said
    assert "--cluster-id another-name" in said
    assert record.read(first.folder) == first


def test_a_cluster_on_another_machine_is_not_replaced():
    claimed(machine="another")
    with pytest.raises(AlreadyRunning, match="runs on node1"):
        claimed()


def test_what_is_left_of_a_dead_one_is_ended_and_removed(sleeper):
    mark, alive = sleeper
    first = claimed(mark=mark)
    (first.folder / "engine.json").write_text("{")
    (first.folder / "logs" / "engines.log").write_text("old")
    second = claimed()
    assert not alive.alive()
    assert not (first.folder / "engine.json").exists()
    assert list((first.folder / "logs").iterdir()) == []
    assert record.read(first.folder) == second


def test_only_one_at_a_time():
    folder = claimed().folder
    with (
        record.locked(folder),
        pytest.raises(AlreadyRunning, match="another process is starting or stopping"),
        record.locked(folder),
    ):
        pass
    with record.locked(folder):  # free again
        pass


def test_to_forget_keeps_the_logs_of_a_named_cluster():
    made = claimed()
    (made.folder / "logs" / "engines.log").write_text("x")
    record.forget(made)
    assert record.read(made.folder) is None
    assert (made.folder / "logs" / "engines.log").exists()


def test_to_forget_removes_a_temporary_cluster_whole():
    made = claimed(temporary=True)
    record.forget(made)
    assert not made.folder.exists()
    assert record.folders() == []


def test_to_forget_leaves_a_successor_alone():
    first = claimed()
    second = claimed()
    record.forget(first)
    assert record.read(first.folder) == second


def test_a_full_disk_keeps_no_cluster_from_being_ended(sleeper):
    """A file may have no bytes for as long as this ends: whatever is written fails, as on a full disk."""
    mark, alive = sleeper
    made = claimed(mark=mark, state="starting", controller=None, engines=())
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, former[1]))
    try:
        ending.end(made, polite=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert not alive.alive()
    assert record.read(made.folder) is None


def test_of_a_named_cluster_that_has_ended_only_logs_stay():
    made = claimed().with_memory("m.1", ("/dev/shm/no-such-file",))
    for name in ("job.sh", "job-2.sh", "controller.sh", record.AGAIN):
        files.write_private(made.folder / name, b"export SECRET=x")
    record.forget(made)
    left = {path.name for path in made.folder.iterdir() if path.is_file()}
    assert left <= {".lock"}
    assert (made.folder / "logs").is_dir()


def test_a_lock_that_was_let_go_is_free_even_if_a_child_has_it_open():
    folder = claimed().folder
    with record.locked(folder):
        lock = next(fd for fd in map(int, os.listdir("/proc/self/fd")) if _path(fd).endswith("/.lock"))
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock])
    try:
        with record.locked(folder):
            pass
    finally:
        child.communicate(b"\n")


def _path(descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except FileNotFoundError:  # that of the list itself
        return ""


def test_a_lock_makes_no_folder(tmp_path):
    with record.locked(tmp_path / "gone"):
        assert not (tmp_path / "gone").exists()


def test_sweeping_follows_no_path_that_a_file_names(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    made = claimed()
    files.write_private(made.folder / "client.json", json.dumps({"shm": str(precious)}).encode())
    record.sweep(made.folder)
    assert precious.is_dir()
    assert not (made.folder / "client.json").exists()
