from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpcremote import connection, files
from hpcremote._version import __version__
from hpcremote.connection import Connection
from hpcremote.errors import ClusterNotFound, ConfigError, ConnectionFileError, ProfileError
from hpcremote.wire.messages import PROTOCOL

SECRET = "s" * 40


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path))
    monkeypatch.setattr(files, "SITE_DIR", tmp_path / "etc")
    for name in ("HPCREMOTE_PROFILE", "HPCREMOTE_CLUSTER_ID", "HPCREMOTE_PROFILE_PATH"):
        monkeypatch.delenv(name, raising=False)


def make(**changes: Any) -> Connection:
    values: dict[str, Any] = {
        "role": "client",
        "cluster_id": "a1",
        "cluster_uid": "0" * 32,
        "profile": "default",
        "version": __version__,
        "protocol": PROTOCOL,
        "host": "login1",
        "pid": os.getpid(),
        "started": time.time(),
        "machine": files.machine_id(),
        "ipc": "ipc:///tmp/x.sock",
        "addresses": ("tcp://10.0.0.1:4000", "tcp://[::1]:4000"),
        "server_key": "p" * 40,
        "public_key": "c" * 40,
        "secret_key": SECRET,
    }
    return Connection(**{**values, **changes})


@pytest.fixture
def dead() -> tuple[int, int]:
    """Pid and start of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    ticks = files.process_start(child.pid)
    child.communicate()
    assert ticks
    return child.pid, ticks


# ---------------------------------------------------------------- the file


def test_what_was_written_is_read_back() -> None:
    for role in connection.ROLES:
        one = make(role=role, shm="/dev/shm/x", controller_timeout=5.0)
        path = one.write()
        assert path == files.user_dir() / "clusters" / "default" / "a1" / f"{role}.json"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert connection.read(path, role) == one


def test_the_secret_is_in_the_file_and_nowhere_else() -> None:
    one = make()
    assert SECRET not in repr(one)
    assert SECRET not in str(one)
    assert SECRET not in f"{one!r:>10}{[one]}"
    assert SECRET in one.to_json()


def test_for_role_changes_the_role_and_its_keys_only() -> None:
    one = make()
    engine = one.for_role("engine", "e" * 40, "f" * 40)
    assert (engine.role, engine.public_key, engine.secret_key) == ("engine", "e" * 40, "f" * 40)
    assert engine.for_role("client", one.public_key, one.secret_key) == one


def test_a_dict_does_as_well() -> None:
    one = make()
    assert connection.from_dict(json.loads(one.to_json())) == one
    assert connection.from_dict(dataclasses.asdict(one)) == one


def test_write_says_why_it_cannot(tmp_path: Path) -> None:
    (tmp_path / "clusters").touch()
    with pytest.raises(ConfigError, match=r"cannot make the folder .*default"):
        make().write()


# ---------------------------------------------------------------- wrong files


def spoil(change: Callable[[dict[str, Any]], object]) -> Path:
    path = make().write()
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match=f"{tmp_path}/no.json does not exist"):
        connection.read(tmp_path / "no.json")


def test_readable_by_others() -> None:
    path = make().write()
    path.chmod(0o644)
    with pytest.raises(ConnectionFileError, match=f"mode 0644.*chmod 600 {path}"):
        connection.read(path)


@pytest.mark.parametrize("keep", [0, 1, 40, 300])
def test_truncated(keep: int) -> None:
    path = make().write()
    path.write_text(path.read_text()[:keep])
    with pytest.raises(
        ConnectionFileError, match=rf"{path}: not a whole JSON file \(.* at line \d+, byte \d+\)"
    ):
        connection.read(path)


def test_not_text_or_not_an_object() -> None:
    path = make().write()
    path.write_bytes(b'{"role": "\xff"}')
    with pytest.raises(ConnectionFileError, match=r"not a text file \(byte 10\)"):
        connection.read(path)
    path.write_text("[1]")
    with pytest.raises(ConnectionFileError, match="has to be a JSON object, not list"):
        connection.read(path)


def test_the_other_roles_file() -> None:
    with pytest.raises(
        ConnectionFileError, match=r"keys for the role 'client', and 'engine' is needed: use engine\.json"
    ):
        connection.read(make().write(), "engine")
    with pytest.raises(
        ConnectionFileError, match=r"keys for the role 'engine', and 'client' is needed: use client\.json"
    ):
        connection.read(make(role="engine").write())


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Connection)])
def test_a_missing_field_is_named(name: str) -> None:
    path = spoil(lambda data: data.pop(name))
    with pytest.raises(ConnectionFileError, match=f"{path}: the field '{name}' is missing"):
        connection.read(path)


@pytest.mark.parametrize(
    ("name", "bad", "words"),
    [
        ("pid", "12", "has to be an integer, not '12'"),
        ("pid", True, "has to be an integer, not True"),
        ("started", None, "has to be a number, not None"),
        ("host", 5, "has to be text, not 5"),
        ("protocol", "1", "has to be an integer"),
        ("addresses", "tcp://10.0.0.1:1", "has to be a list of tcp://address:port"),
        ("addresses", ["10.0.0.1:1"], "has to be a list of tcp://address:port"),
        ("server_key", "short", "has to be a key of 40 characters, not 'short'"),
    ],
)
def test_an_ill_typed_field_is_named(name: str, bad: object, words: str) -> None:
    path = spoil(lambda data: data.update({name: bad}))
    with pytest.raises(ConnectionFileError, match=f"the field '{name}' {words}"):
        connection.read(path)


def test_a_wrong_secret_is_not_repeated() -> None:
    path = spoil(lambda data: data.update(secret_key="hush" * 5))
    with pytest.raises(ConnectionFileError, match="'secret_key' has to be a key of 40 characters") as caught:
        connection.read(path)
    assert "hush" not in str(caught.value)


def test_another_protocol_comes_first_and_another_version_does_not_matter() -> None:
    path = make().write()
    path.write_text(json.dumps({"protocol": PROTOCOL + 1, "version": "9.9"}))
    with pytest.raises(
        ConnectionFileError, match=rf"9\.9 \(protocol {PROTOCOL + 1}\).*the same version on both"
    ):
        connection.read(path)
    assert connection.read(make(version="0.0.1").write()).version == "0.0.1"


# ---------------------------------------------------------------- stale files


def test_stale_when_the_controller_has_ended(dead: tuple[int, int]) -> None:
    pid, ticks = dead
    path = make(pid=pid, ticks=ticks).write()
    with pytest.raises(
        ConnectionFileError,
        match=rf"is stale: the controller \(pid {pid} on login1\) has ended; .*`hpcremote clean`",
    ):
        connection.read(path)


def test_stale_when_the_pid_is_somebody_elses_now() -> None:
    one = make()
    assert one.ticks == files.process_start(os.getpid())
    assert not one.is_stale
    assert dataclasses.replace(one, ticks=one.ticks - 1).is_stale
    assert not dataclasses.replace(one, ticks=0).is_stale


def test_on_another_machine_staleness_cannot_be_known(dead: tuple[int, int]) -> None:
    pid, ticks = dead
    one = make(pid=pid, ticks=ticks, machine="f" * 32)
    assert not one.is_local
    assert connection.read(one.write()) == one


# ---------------------------------------------------------------- find


def test_find_the_only_cluster_of_the_default_profile(dead: tuple[int, int]) -> None:
    one = make()
    one.write()
    make(cluster_id="old", pid=dead[0], ticks=dead[1]).write()
    make(profile="mpi").write()
    assert connection.find() == one
    assert connection.find(profile="default", cluster_id="a1") == one


def test_find_the_only_cluster_of_any_profile() -> None:
    one = make(profile="mpi", cluster_id="b2")
    one.write()
    assert connection.find() == one
    assert connection.find(cluster_id="b2") == one
    assert connection.find(profile="mpi") == one


def test_find_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make(profile="mpi"), make(profile="mpi", cluster_id="b2")
    make().write()
    first.write()
    second.write()
    monkeypatch.setenv("HPCREMOTE_PROFILE", "mpi")
    monkeypatch.setenv("HPCREMOTE_CLUSTER_ID", "b2")
    assert connection.find() == second
    assert connection.find(cluster_id="a1") == first
    monkeypatch.delenv("HPCREMOTE_CLUSTER_ID")
    with pytest.raises(
        ClusterNotFound, match="2 clusters of profile 'mpi' are running: 'a1', 'b2'; say which"
    ):
        connection.find()


def test_find_the_engines_file() -> None:
    make().write()
    engine = make(role="engine")
    with pytest.raises(ClusterNotFound):
        connection.find(role="engine")
    engine.write()
    assert connection.find(role="engine") == engine


def test_the_one_without_a_name_is_meant_where_none_is_said() -> None:
    make(profile="mpi", cluster_id="small").write()
    unnamed = make(profile="mpi", cluster_id="default")
    unnamed.write()
    assert connection.find("mpi") == unnamed
    with pytest.raises(ClusterNotFound, match="2 clusters of profile 'mpi' are running"):
        connection.find()
    make(profile="default", cluster_id="small").write()
    of_default = make(profile="default", cluster_id="default")
    of_default.write()
    assert connection.find() == of_default
    assert connection.find("mpi") == unnamed


def test_several_profiles_run() -> None:
    make(profile="mpi").write()
    make(profile="local", cluster_id="b2").write()
    with pytest.raises(
        ClusterNotFound, match="2 clusters are running: 'b2' of profile 'local', 'a1' of profile 'mpi'"
    ):
        connection.find()


def test_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(
        ClusterNotFound, match=rf"looked in {tmp_path}/clusters/default\); .*`hpcremote start`"
    ):
        connection.find()
    with pytest.raises(ClusterNotFound, match="`hpcremote start --profile mpi --cluster-id b2`"):
        connection.find("mpi", "b2")


def test_one_that_is_on_its_way_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "clusters" / "mpi" / "b2"
    folder.mkdir(parents=True)
    (folder / "cluster.json").touch()
    with pytest.raises(
        ClusterNotFound,
        match="'b2' is being started, waits in a queue, or has ended with its job: see `hpcremote status",
    ):
        connection.find("mpi")


def test_another_profile_runs() -> None:
    make(profile="mpi").write()
    with pytest.raises(ClusterNotFound, match=r"profile 'mpi' has one: Client\(profile='mpi'\)"):
        connection.find(profile="local")
    with pytest.raises(
        ClusterNotFound, match=r"no cluster 'zz' of profile 'mpi' is running .*; running there: a1"
    ):
        connection.find(profile="mpi", cluster_id="zz")


def test_only_a_stale_one_is_there(dead: tuple[int, int]) -> None:
    make(pid=dead[0], ticks=dead[1]).write()
    with pytest.raises(
        ClusterNotFound, match=r"no cluster of profile 'default' is running .*client.json is stale"
    ):
        connection.find()
    with pytest.raises(ConnectionFileError, match="is stale"):
        connection.find(cluster_id="a1")


def test_the_profile_does_not_exist() -> None:
    with pytest.raises(ProfileError, match="there is no profile 'mpii'; did you mean 'mpi'"):
        connection.find(profile="mpii")
    with pytest.raises(ProfileError, match="there is no profile 'zzzz'; there are default, .*local, .*mpi"):
        connection.find(profile="zzzz")


def test_a_profile_given_as_a_file_is_known_by_its_name() -> None:
    one = make(profile="lab")
    one.write()
    assert connection.find(profile="/group/lab.yaml") == one
