"""Engines on a list of hosts by ssh, and clients that reach a cluster from where it cannot be reached."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpcremote import files
from tests.integration.support import eventually
from tests.schedulers.lab.hosts import Hosts

pytestmark = [pytest.mark.usefixtures("ssh"), pytest.mark.timeout(400)]

_SEEN = """
import json, socket
with hpcremote.Cluster(profile=PROFILE) as rc:
    print(json.dumps(rc[:].apply_sync(socket.gethostname)))
"""


class Site:
    """A head, on which everything is started."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        self._made = 0

    def profile(self, **keys: Any) -> str:
        self._made += 1
        path = self.folder / f"reach{self._made}.yaml"
        lines = [f"{key}: {value}" for key, value in {"extends": "mpi", "interface": "eth0", **keys}.items()]
        path.write_text("\n".join(lines) + "\n")
        return str(path)

    def python(self, code: str, host: str = "head", **names: Any) -> str:
        given = "".join(f"{name} = {value!r}\n" for name, value in names.items())
        words = [sys.executable, "-c", f"import hpcremote\n{given}{textwrap.dedent(code)}"]
        done = self.hosts[host].run(words, cwd=self.folder, seconds=120)
        return done.stdout + done.stderr

    def see(self, profile: str) -> list[str]:
        """Return the engines' hosts."""
        said = self.python(_SEEN, PROFILE=profile)
        assert said.startswith("["), said
        return json.loads(said)  # type: ignore[no-any-return]

    def left(self) -> list[str]:
        words = ("-m hpcremote", "hydra_pmi_proxy")
        return [f"{host.name}: {one}" for host in self.hosts for word in words for one in host.commands(word)]

    def close(self) -> None:
        """See that nothing is left; what is nevertheless, is no matter of other tests."""
        try:
            eventually(lambda: not self.left(), why=lambda: f"processes are left: {self.left()}")
        finally:
            for host in self.hosts:
                for one in host.processes("-m hpcremote") if host.is_on else ():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.kill()


@pytest.fixture
def site(hosts: Hosts, tmp_path: Path) -> Iterator[Site]:
    made = Site(hosts, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("launcher", ["ssh", pytest.param("mpiexec", marks=pytest.mark.mpi)])
def test_no_orphan_when_what_started_them_is_killed(site: Site, launcher: str) -> None:
    """An ssh that is killed leaves what it started: stop finds it."""
    profile = site.profile(launcher=launcher, hosts="[node1, node2]")
    words = [sys.executable, "-m", "hpcremote"]
    chosen = ["--profile", profile]
    done = site.hosts.head.run([*words, "start", *chosen], cwd=site.folder, seconds=120)
    assert done.returncode == 0, done.stderr
    for one in site.hosts.head.processes("ssh"):
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.name() == "ssh":
                one.kill()
    name = Path(profile).stem
    done = site.hosts.head.run([*words, "stop", "--profile", name], cwd=site.folder, seconds=120)
    assert done.returncode == 0, done.stderr
    assert site.left() == []


def test_hosts_that_cannot_take_engines_are_named(site: Site) -> None:
    site.hosts["node3"].power_off()
    code = "hpcremote.Cluster(profile=PROFILE).start()"
    profile = site.profile(hosts="[node1, node3]", launcher="ssh", ssh_args="[-o, ConnectTimeout=2]")
    said = site.python(code, PROFILE=profile)
    assert "engines cannot start on 1 of 2 hosts:\n  node3: node3 cannot be reached from here" in said
    said = site.python(code, PROFILE=site.profile(hosts="[node1, nowhere]", launcher="ssh"))
    assert "nowhere: nowhere has no such name here" in said
    said = site.python(code, PROFILE=site.profile(hosts="[node1, node2:2]", launcher="ssh", n=5))
    assert "5 engines are too many for hosts: node1:1, node2:2 (3 slots)" in said
    said = site.python(code, PROFILE=site.profile(launcher="ssh"))
    assert "launcher ssh needs hosts: in profile" in said
    script = site.folder / "python3"
    script.write_text(
        f'#!/bin/sh\n[ "$(hostname)" = node2 ] && exec /usr/bin/false\nexec {sys.executable} "$@"\n'
    )
    script.chmod(0o755)
    said = site.python(code, PROFILE=site.profile(hosts="[node1, node2]", launcher="ssh", python=str(script)))
    assert "on 1 of 2 hosts:\n  node2: hpcremote is not installed for" in said


_FAR = """
import os, sys, time
rc = hpcremote.Client(FILE, sshserver=SERVER, ssh=SSH)
print(rc.ids, rc[:].apply_sync(abs, -1), flush=True)
call = rc[:].apply_async(__import__("time").sleep, 1)
for line in sys.stdin:
    print(rc[:].apply_async(abs, int(line)).get(timeout=60), call.get(timeout=60), flush=True)
rc.close()
"""


def test_a_client_behind_a_jump_host_whose_wire_is_pulled(site: Site) -> None:
    """The laptop (node3) reaches the head by node1 only; the controller's port is reached from the head."""
    hosts = site.hosts
    profile = site.profile(launcher="local", extends="local", n=2)
    words = [sys.executable, "-m", "hpcremote"]
    done = hosts.head.run([*words, "start", "--profile", profile], cwd=site.folder, seconds=120)
    assert done.returncode == 0, done.stderr
    name = Path(profile).stem
    with contextlib.ExitStack() as stack:
        stop = [*words, "stop", "--profile", name]
        stack.callback(hosts.head.run, stop, cwd=site.folder, seconds=120)
        hosts.cut(hosts["node3"], hosts.head)
        file = str(files.cluster_dir(name, "default") / "client.json")
        code = f"import hpcremote\nSERVER, SSH, FILE = 'head', 'ssh -J node1', {file!r}\n{_FAR}"
        far = stack.enter_context(
            hosts["node3"].popen([sys.executable, "-u", "-c", code], cwd=site.folder, stdin=subprocess.PIPE)
        )
        stack.callback(far.kill_all)
        assert far.stdin is not None
        assert far.stdout is not None
        assert far.stdout.readline() == "[0, 1] [1, 1]\n", far.communicate(timeout=60)
        hosts.cut(hosts["node3"], hosts["node1"])
        far.stdin.write("-5\n")
        far.stdin.flush()
        eventually(lambda: _broke(site, name), seconds=60)
        hosts.join(hosts["node3"], hosts["node1"])
        assert far.stdout.readline() == "[5, 5] [None, None]\n"
        far.communicate(timeout=60)


def _broke(site: Site, name: str) -> bool:
    words = [sys.executable, "-m", "hpcremote", "logs", "--profile", name]
    return "is away" in site.hosts.head.run(words, cwd=site.folder).stdout


def test_an_interface_with_the_same_address_everywhere_is_named_and_costs_no_time(site: Site) -> None:
    with site.hosts.dead_ends() as name:
        profile = site.profile(launcher="ssh", hosts="[node1]", interface=name)
        said = site.python("hpcremote.Cluster(profile=PROFILE, start_timeout=30).start()", PROFILE=profile)
        assert "172.17.0.1" in said
        assert "connection refused; node1 has that address itself (docker0)" in said
        assert site.see(site.profile(launcher="ssh", hosts="[node1]", interface="all")) == ["node1"]


@pytest.mark.mpi
def test_the_doctor_looks_at_another_host_and_tries_a_rank_a_node(site: Site) -> None:
    words = [sys.executable, "-m", "hpcremote", "doctor", "--host", "node1", "--trial", "--json"]
    profile = site.profile(hosts="[node1:2, node2:2]")
    done = site.hosts.head.run([*words, "--profile", profile], cwd=site.folder, seconds=120)
    said = [one["said"] for one in json.loads(done.stdout)]
    assert any(text.startswith("node1: python 3.") for text in said)
    assert any(text.startswith("2 ranks answered from node1, node2") for text in said), said
    assert done.returncode == 0, done.stdout
    done = site.hosts.head.run(
        [*words[:-2], "--host", "nowhere", "--profile", profile], cwd=site.folder, seconds=60
    )
    assert done.returncode == 1
    assert "PROBLEM  versions    nowhere: nowhere has no such name here" in done.stdout
