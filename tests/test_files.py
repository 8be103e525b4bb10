from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from hpcremote import files
from hpcremote.errors import ConfigError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to give files away")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "user"))
    monkeypatch.delenv("HPCREMOTE_PROFILE_PATH", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# ---------------------------------------------------------------- places


def test_user_dir_expands_home_and_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HPCREMOTE_DIR")
    assert files.user_dir() == tmp_path / ".hpcremote"
    monkeypatch.setenv("HPCREMOTE_DIR", "~/a")
    assert files.user_dir() == tmp_path / "a"
    monkeypatch.setenv("HPCREMOTE_DIR", "$HOME/b")
    assert files.user_dir() == tmp_path / "b"


@pytest.mark.parametrize("bad", ["", "..", "a/b", "/etc", ".hidden"])
def test_a_cluster_folder_cannot_lie_elsewhere(bad: str) -> None:
    assert files.cluster_dir("mpi", "a1") == files.user_dir() / "clusters" / "mpi" / "a1"
    with pytest.raises(ConfigError, match="plain file name"):
        files.cluster_dir("mpi", bad)
    with pytest.raises(ConfigError, match="plain file name"):
        files.cluster_dir(bad, "a1")


def test_search_path_goes_from_the_user_to_what_is_shipped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPCREMOTE_PROFILE_PATH", f"{tmp_path}/group::{tmp_path}/lab")
    assert [str(folder) for folder in files.search_path("profiles")] == [
        str(tmp_path / "user/profiles"),
        str(tmp_path / "group"),
        str(tmp_path / "lab"),
        "/etc/hpcremote/profiles",
        str(files.shipped("profiles")),
    ]
    assert [str(folder) for folder in files.search_path("launchers")] == [
        str(tmp_path / "user/launchers"),
        "/etc/hpcremote/launchers",
        str(files.shipped("launchers")),
    ]


def test_the_first_on_the_path_wins_and_the_others_can_be_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPCREMOTE_PROFILE_PATH", str(tmp_path / "group"))
    for folder in ("user/profiles", "group"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "mpi.yaml").touch()
    (tmp_path / "group" / "notes.txt").touch()
    names = files.available("profiles")
    assert {"default", "local", "mpi"} <= set(names)
    assert "notes" not in names
    assert str(names["mpi"]) == str(tmp_path / "user/profiles/mpi.yaml")
    assert [str(file) for file in files.find_all("profiles", "mpi")] == [
        str(tmp_path / "user/profiles/mpi.yaml"),
        str(tmp_path / "group/mpi.yaml"),
        str(files.shipped("profiles").joinpath("mpi.yaml")),
    ]


def test_did_you_mean_says_nothing_when_nothing_is_near() -> None:
    assert files.did_you_mean("mpixec", ["mpiexec", "n"]) == "; did you mean 'mpiexec'?"
    assert files.did_you_mean("zzz", ["mpiexec", "n"]) == ""


# ---------------------------------------------------------------- private folders


def test_private_dir_makes_a_folder_for_its_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = files.private_dir(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(old)
    assert mode(made) == 0o700
    assert mode(made.parent) == mode(made.parent.parent) == 0o700
    assert files.private_dir(made) == made


@pytest.mark.parametrize("bad", [0o750, 0o705, 0o701, 0o720])
def test_private_dir_refuses_one_that_others_may_use(tmp_path: Path, bad: int) -> None:
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(bad)
    with pytest.raises(ConfigError, match=f"mode {bad:04o}.*chmod 700 {path}"):
        files.private_dir(path)


def test_private_dir_refuses_links_and_files(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name in ("link", "dangling", "file"):
        with pytest.raises(ConfigError, match=f"{name} .*move it away"):
            files.private_dir(tmp_path / name)
    with pytest.raises(ConfigError, match=r"cannot make the folder .*Not a directory"):
        files.private_dir(tmp_path / "file" / "below" / "it")


@as_root
def test_private_dir_refuses_what_somebody_else_made_first(tmp_path: Path) -> None:
    path = tmp_path / "squatted"
    path.mkdir(mode=0o700)
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="belongs to nobody, not to you"):
        files.private_dir(path)
    os.chown(path, 64321, 65534)
    with pytest.raises(ConfigError, match="belongs to user 64321"):
        files.private_dir(path)


# ---------------------------------------------------------------- private files


def test_write_private_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"old")
    path.chmod(0o644)
    old = os.umask(0)
    try:
        files.write_private(path, b"new")
    finally:
        os.umask(old)
    assert files.read_private(path) == b"new"
    assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_a_write_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    files.write_private(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(ConfigError, match=f"cannot write {path}: File too large"):
            files.write_private(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files.read_private(path) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys"]


def test_write_private_says_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot write .*/no/keys: No such file or directory"):
        files.write_private(tmp_path / "no" / "keys", b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="folder: Is a directory"):
        files.write_private(tmp_path / "folder", b"")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("bad", [0o640, 0o604, 0o620, 0o666])
def test_read_private_refuses_what_others_may_use(tmp_path: Path, bad: int) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"secret")
    path.chmod(bad)
    with pytest.raises(ConfigError, match=f"mode {bad:04o}.*chmod 600 {path}"):
        files.read_private(path)


def test_read_private_does_not_hang_on_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(ConfigError, match="is not a file"):
        files.read_private(tmp_path / "fifo")
    with pytest.raises(ConfigError, match=f"cannot read {tmp_path}"):
        files.read_private(tmp_path)
    with pytest.raises(FileNotFoundError):
        files.read_private(tmp_path / "none")


# ---------------------------------------------------------------- this machine


def test_runtime_dir_is_private_short_and_the_same_for_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "_TMP", tmp_path)
    found = files.runtime_dir()
    assert found == tmp_path / f"hpcremote-{os.geteuid()}"
    assert mode(found) == 0o700
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert files.runtime_dir() == found


def test_runtime_dir_falls_back_when_the_name_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(files, "_TMP", tmp_path)
    taken = tmp_path / f"hpcremote-{os.geteuid()}"
    taken.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match=f"{taken} is a link"):
        files.runtime_dir()
    # mkdtemp: tmp_path may be too long for sockets, and then XDG_RUNTIME_DIR is not used.
    short = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
        assert files.runtime_dir() == short / "hpcremote"
        (short / "hpcremote").rmdir()
        short.chmod(0o755)
        with pytest.raises(ConfigError, match=f"{taken} is a link"):
            files.runtime_dir()
    finally:
        short.rmdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", f"/tmp/{'x' * 80}")
    with pytest.raises(ConfigError, match=f"{taken} is a link"):
        files.runtime_dir()


def test_socket_paths_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(os.fsencode(files.socket_path("0123456789abcdef.sock"))) < files.SOCKET_PATH_MAX
    with pytest.raises(ConfigError, match="too long for a Unix socket"):
        files.socket_path("x" * 100)


def test_shm_dir_is_in_memory_or_not_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uid = "0123456789abcdef" * 2
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    expected = Path(f"/dev/shm/hpcremote-{os.geteuid()}-0123456789ab")
    assert files.shm_dir(uid) == (expected if ["/dev/shm", "tmpfs"] in mounts else None)
    monkeypatch.setattr(files, "_SHM", tmp_path)  # a folder that is no mount at all
    assert files.shm_dir(uid) is None


def test_machine_id_is_the_same_in_another_process() -> None:
    code = "from hpcremote import files; print(files.machine_id())"
    other = subprocess.check_output([sys.executable, "-c", code], text=True, cwd="/", env=_env()).strip()
    assert files.machine_id() == other
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() in other


def test_machine_id_differs_where_tmp_is_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = files.machine_id()
    monkeypatch.setattr(files, "_TMP", tmp_path)
    assert files.machine_id() != here


def _env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(files.__file__).parent.parent)}


def test_process_start_tells_processes_apart() -> None:
    own = files.process_start(os.getpid())
    assert own
    assert files.process_start(os.getpid()) == own
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = files.process_start(child.pid)
        assert started is not None
        assert started > own
    finally:
        child.kill()
        # Not reaped yet: a zombie has ended as well.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        zombie = files.process_start(child.pid)
        child.communicate()
    assert zombie is None
    assert files.process_start(child.pid) is None
    assert files.process_start(2**40) is None
