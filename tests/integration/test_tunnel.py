"""Clients that come by ssh: a real server on loopback, tunnels that break and are made again."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import hpcremote
from hpcremote import files
from hpcremote.errors import ClusterNotFound, NotConnected
from tests.integration.support import Running, command, environment, eventually, has_ended
from tests.sshd import Sshd, needs_sshd

pytestmark = needs_sshd


@pytest.fixture(scope="module")
def sshd(session_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"), HPCREMOTE_DIR=str(session_home))
    yield server
    server.close()


@pytest.fixture(scope="module")
def cluster(session_home: Path) -> Iterator[Running]:
    with Running(n=2, profile="local") as running:
        yield running


@pytest.fixture
def rc(cluster: Running, sshd: Sshd) -> Iterator[hpcremote.Client]:
    with hpcremote.Client(
        sshserver="far", profile="local", cluster_id=cluster.cluster.cluster_id, ssh=sshd.command
    ) as client:
        yield client
    assert tunnels() == [], "a tunnel has left its sockets"


def tunnels() -> list[Path]:
    return sorted(files.runtime_dir().glob(f"tun.{os.getpid()}.*"))


def test_a_client_by_ssh_does_what_any_client_does(rc: hpcremote.Client, cluster: Running) -> None:
    assert rc.ids == [0, 1]
    assert rc.link.address.startswith("tunnel://")
    assert rc[:].apply_sync(os.getpid) == [cluster.engines[0].pid, cluster.engines[1].pid]
    blob = os.urandom(3_000_000)
    assert rc[:].apply_sync(len, blob) == [len(blob)] * 2
    assert rc[0].apply_sync(bytes, blob) == blob


def test_by_a_jump_host(cluster: Running, sshd: Sshd) -> None:
    with hpcremote.Client(
        sshserver="far-by-jump", cluster_id=cluster.cluster.cluster_id, profile="local", ssh=sshd.command
    ) as rc:
        assert rc[:].apply_sync(abs, -3) == [3, 3]


def test_with_the_connection_file_at_hand(cluster: Running, sshd: Sshd) -> None:
    with hpcremote.Client(cluster.client_file(), sshserver="far", ssh=sshd.command) as rc:
        assert rc.link.address.startswith("tunnel://")
        assert rc[:].apply_sync(abs, -3) == [3, 3]


def test_calls_survive_the_death_of_the_tunnel(rc: hpcremote.Client, tmp_path: Path) -> None:
    assert rc.tunnel is not None
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    view = rc[:]
    open_call = rc[0].apply_async(lambda path: __import__("pathlib").Path(path).read_text(), str(gate))
    for round_ in range(3):
        before = rc.tunnel.pid
        os.kill(before, signal.SIGKILL)
        while_away = [rc[1].apply_async(pow, round_, power) for power in range(50)]
        assert [ar.get(timeout=30) for ar in while_away] == [round_**power for power in range(50)]
        assert rc.tunnel.pid != before
    gate.write_text("through")
    assert open_call.get(timeout=30) == "through"
    assert view.apply_sync(abs, -1) == [1, 1]


def test_results_that_came_while_the_tunnel_was_away(
    rc: hpcremote.Client, sshd: Sshd, tmp_path: Path
) -> None:
    marker = tmp_path / "done"
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def work(gate: str, marker: str) -> bytes:
        from pathlib import Path

        Path(gate).read_text()
        Path(marker).touch()
        return b"x" * 2_000_000

    call = rc[0].apply_async(work, str(gate), str(marker))
    sshd.stop()
    gate.write_text("go")
    eventually(marker.exists)
    assert not call.ready()
    sshd.start()
    assert call.get(timeout=60) == b"x" * 2_000_000


def test_a_tunnel_that_falls_silent_is_made_again(rc: hpcremote.Client, sshd: Sshd) -> None:
    frozen = sshd.sessions()
    for one in frozen:
        one.suspend()
    try:
        assert rc[:].apply_async(abs, -7).get(timeout=60) == [7, 7]
    finally:
        for one in frozen:
            if one.is_running():
                one.resume()


def test_the_end_of_the_controller_is_known_at_once(sshd: Sshd, session_home: Path) -> None:
    with Running(n=1, profile="local") as running:
        rc = hpcremote.Client(
            sshserver="far", profile="local", cluster_id=running.cluster.cluster_id, ssh=sshd.command
        )
        running.cluster.stop()
        assert rc.link.wait(lambda: rc.link.lost is not None, 30)
        with pytest.raises(NotConnected, match="went away"):
            rc[0].apply_sync(abs, 1)
        rc.close()


def test_nothing_is_left_when_a_client_is_forgotten_or_killed(cluster: Running, sshd: Sshd) -> None:
    rc = hpcremote.Client(
        sshserver="far", profile="local", cluster_id=cluster.cluster.cluster_id, ssh=sshd.command
    )
    assert rc.tunnel is not None
    ssh = psutil.Process(rc.tunnel.pid)
    del rc
    gc.collect()
    eventually(lambda: has_ended(ssh))
    eventually(lambda: tunnels() == [])

    code = """
        import hpcremote, sys, time
        rc = hpcremote.Client(sshserver="far", profile="local", cluster_id=sys.argv[2], ssh=sys.argv[1])
        print(rc.tunnel.pid, flush=True)
        time.sleep(60)
    """
    from tests.integration.support import script

    with script(code, sshd.command, cluster.cluster.cluster_id) as other:
        assert other.stdout is not None
        ssh = psutil.Process(int(other.stdout.readline()))
        other.kill()
    eventually(lambda: has_ended(ssh))
    eventually(lambda: sshd.sessions() == [], why="something still runs on the other side")
    left = list(files.runtime_dir().glob(f"tun.{other.pid}.*"))
    assert left
    hpcremote.Client(
        sshserver="far", profile="local", cluster_id=cluster.cluster.cluster_id, ssh=sshd.command
    ).close()
    assert [path for path in left if path.exists()] == [], "the next tunnel tidies up"


def test_no_key_is_in_an_argument_or_in_the_environment(rc: hpcremote.Client, sshd: Sshd) -> None:
    assert rc.tunnel is not None
    secret = rc.link.connection.secret_key
    processes = [psutil.Process(rc.tunnel.pid), *sshd.sessions()]
    assert len(processes) > 1
    for one in processes:
        assert secret not in " ".join(one.cmdline())
        assert secret not in str(one.environ())


@pytest.mark.parametrize(
    ("server", "more", "words"),
    [
        ("dead", "", "dead runs no ssh server on that port .*Connection refused"),
        ("nowhere.invalid", "", "no such name here.*nowhere.invalid"),
        ("far", "", None),
        ("far", " -o UserKnownHostsFile=/dev/null", "host key that is not known here: run `ssh .* far`"),
        ("far", " -o Bogus=1", "does not know one of the options.*bogus"),
    ],
)
def test_what_ssh_refuses_is_said_in_its_words(
    cluster: Running, sshd: Sshd, server: str, more: str, words: str | None
) -> None:
    ssh = sshd.command + more
    if words is None:  # the configuration's own key must not help
        own = ("-F none", "-o HostName=127.0.0.1", "-o HostKeyAlias=far", "-o IdentitiesOnly=yes")
        ssh = f"ssh {' '.join(own)} -p {sshd.port} -o UserKnownHostsFile={sshd.folder}/known"
        ssh += f" -i {sshd.folder}/stranger"
        words = "does not let you in: `ssh .* far` has to work without a question.*Permission denied"
    with pytest.raises(NotConnected, match=words):
        hpcremote.Client(sshserver=server, profile="local", ssh=ssh)
    assert tunnels() == []


def test_other_things_that_are_wrong(cluster: Running, sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotConnected, match="no program 'nossh' here"):
        hpcremote.Client(sshserver="far", ssh="nossh -v")
    with pytest.raises(
        ClusterNotFound, match="no cluster of profile 'mpi' runs on far.*running there: local/"
    ):
        hpcremote.Client(sshserver="far", profile="mpi", ssh=sshd.command)
    with pytest.raises(TypeError, match="password.*ssh asks for it at the terminal"):
        hpcremote.Client(sshserver="far", password="secret")
    monkeypatch.setenv("HPCREMOTE_SSH", sshd.command)
    with hpcremote.Client(sshserver="far", profile="local", cluster_id=cluster.cluster.cluster_id) as rc:
        assert rc.ids == [0, 1]


class Connect:
    """``hpcremote connect``, on a laptop with a home of its own."""

    def __init__(self, home: Path, sshd: Sshd, *words: str) -> None:
        self.home = home
        self.env = environment(HPCREMOTE_DIR=str(home), HPCREMOTE_SSH=sshd.command)
        words = ("connect", "far", *words)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hpcremote", *words], env=self.env, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline() for _ in range(3)]

    def call(self, code: str) -> str:
        words = [sys.executable, "-c", code]
        return subprocess.run(
            words, env=self.env, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def end(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def test_connect_offers_the_cluster_as_long_as_it_runs(cluster: Running, sshd: Sshd, tmp_path: Path) -> None:
    connect = Connect(tmp_path, sshd, "--profile", "local", "--cluster-id", cluster.cluster.cluster_id)
    assert "through far: 2 engines" in connect.said[0]
    code = "import hpcremote\nwith hpcremote.Client(profile='local') as rc: print(rc[:].apply_sync(abs, -4))"
    assert connect.call(code) == "[4, 4]\n"
    (client,) = tmp_path.rglob("client.json")
    assert client.stat().st_mode & 0o777 == 0o600
    status, errors = connect.end()
    assert (status, errors) == (0, "")
    assert list(tmp_path.rglob("client.json")) == []
    eventually(lambda: sshd.sessions() == [])


def test_connect_does_not_touch_a_cluster_that_is_here(
    cluster: Running, sshd: Sshd, session_home: Path
) -> None:
    env = {"HPCREMOTE_DIR": str(session_home), "HPCREMOTE_SSH": sshd.command}
    done = command("connect", "far", "--profile", "local", "--cluster-id", cluster.cluster.cluster_id, **env)
    assert done.returncode == 4
    assert "sees the cluster's own folder" in done.stderr
    assert cluster.client_file().exists()
    connect = Connect(
        session_home, sshd, "--profile", "local", "--cluster-id", cluster.cluster.cluster_id, "--as", "near"
    )
    code = "import hpcremote\nprint(hpcremote.Client(profile='local', cluster_id='near').ids)"
    assert connect.call(code) == "[0, 1]\n"
    assert connect.end()[0] == 0


def test_connect_ends_with_its_cluster(sshd: Sshd, session_home: Path, tmp_path: Path) -> None:
    with Running(n=1, profile="local") as running:
        connect = Connect(tmp_path, sshd, "--profile", "local", "--cluster-id", running.cluster.cluster_id)
        running.cluster.stop()
        _, errors = connect.process.communicate(timeout=60)
    assert connect.process.returncode == 1
    assert "went away" in errors


def test_a_file_that_connect_left_is_known_to_be_stale(cluster: Running, sshd: Sshd, tmp_path: Path) -> None:
    connect = Connect(tmp_path, sshd, "--profile", "local", "--cluster-id", cluster.cluster.cluster_id)
    connect.process.kill()
    connect.process.communicate(timeout=60)
    code = "import hpcremote\nhpcremote.Client(profile='local')"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        connect.call(code)
    assert "is stale: the `hpcremote connect` that made it has ended; run it again" in caught.value.stderr
    began = time.monotonic()
    again = Connect(tmp_path, sshd, "--profile", "local", "--cluster-id", cluster.cluster.cluster_id)
    assert "connected" in again.said[0], f"after {time.monotonic() - began} s"
    again.process.kill()
    again.process.communicate(timeout=60)
    done = command("clean", HPCREMOTE_DIR=str(tmp_path))
    assert "removing" in done.stdout
    assert list(tmp_path.rglob("client.json")) == []
