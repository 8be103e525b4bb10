"""Ranks on two nodes, their controller on a third host: one connection a node, whoever dies."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hpcremote import files
from tests.integration.support import PATIENCE, eventually, has_ended
from tests.schedulers.lab.hosts import Host, Hosts
from tests.schedulers.lab.keeper import Program
from tests.schedulers.users import Prompt

pytestmark = [pytest.mark.mpi, pytest.mark.timeout(400)]

HPCREMOTE = [sys.executable, "-m", "hpcremote"]
RANKS = 4


class Site:
    """A controller on the head, two ranks on each of some nodes, and a client on the head.

    Attributes:
        killed: a node on which nobody was left to clear up.
    """

    killed: Host | None = None
    client: Prompt | None = None

    def __init__(self, hosts: Hosts, folder: Path, nodes: int) -> None:
        self.hosts = hosts
        self.head, self.nodes = hosts.head, hosts.nodes[:nodes]
        self.ranks_wanted = 2 * nodes
        for node in self.nodes:  # what schedulers killed in other tests could not clear up
            node.run(["rm", "-rf", f"/tmp/hpcremote-{os.geteuid()}"], cwd=Path("/"))
        profile = folder / "site.yaml"
        profile.write_text("extends: mpi\nrelay: auto\ninterface: eth0\n")
        self._log = (folder / "log").open("a+")
        self._folder, self._programs = folder, []

    def begin(self) -> None:
        """Start it all, and wait until all ranks are there."""
        output = {"stdout": self._log, "stderr": self._log}
        profile = self._folder / "site.yaml"
        self._programs.append(self.head.popen([*HPCREMOTE, "controller", "--profile", profile], **output))
        home = files.user_dir() / "clusters" / "site"
        eventually(lambda: list(home.glob("*/engine.json")), 60, lambda: f"no controller: {self.log()}")
        (engine,) = home.glob("*/engine.json")
        self.address = json.loads(engine.read_text())["addresses"][0]
        self._programs.append(self._mpiexec([*HPCREMOTE, "engine", "--file", engine], output))
        self.client = Prompt(self.head, self._folder, {})
        assert self(f"import zlib; rc = hpcremote.Client({str(engine.with_name('client.json'))!r})") is None
        assert self(f"rc.wait_for_engines({self.ranks_wanted}, timeout=90)") is None
        self("view = rc[:]")

    def _mpiexec(self, words: list[str | Path], output: dict[str, object]) -> Program:
        """Start ranks on the nodes. mpiexec has the head's name and network, and sees all hosts as we do."""
        shell = self._folder / "shell"
        cases = [f'{node.name}) exec {shlex.join(_enter(node))} sh -c "$*" ;;' for node in self.nodes]
        lines = ["#!/bin/sh", 'while [ "${1#-}" != "$1" ]; do shift; done', "host=$1; shift", "case $host in"]
        shell.write_text("\n".join([*lines, *cases, "esac", ""]))
        shell.chmod(0o700)
        mpiexec = Path(sys.executable).parent / "mpiexec"
        places = ",".join(f"{node.name}:2" for node in self.nodes)
        remote = ["-launcher", "ssh", "-launcher-exec", shell, "-hosts", places, "-n", self.ranks_wanted]
        command = [*_enter(self.head)[:3], "--net", "--uts", "--", mpiexec, *remote, *words]
        return Program(
            list(map(str, command)), text=True, start_new_session=True, stdin=subprocess.DEVNULL,
            env=self.hosts.environment(None), **output,
        )  # type: ignore[call-overload]  # fmt: skip

    def __call__(self, line: str) -> Any:
        assert self.client is not None
        return self.client(line)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def connections(self) -> list[str]:
        """Return who has connections to the controller, once for each."""
        port = self.address.rpartition(":")[2]
        words = ["ss", "-Htn", "state", "established", "sport", "=", f":{port}"]
        rows = self.head.run(words, check=True).stdout.splitlines()
        names = {host.address(): host.name for host in self.hosts}
        return sorted(names[row.split()[3].rpartition(":")[0]] for row in rows)

    def agent(self, node: Host) -> psutil.Process:
        eventually(lambda: len(node.processes("hpcremote agent")) == 1, why="there is not one agent")
        return node.processes("hpcremote agent")[0]

    def ranks(self, node: Host) -> list[psutil.Process]:
        """Return a node's ranks in their order."""
        return sorted(node.processes("hpcremote engine --file"), key=lambda one: one.pid)

    def close(self) -> None:
        """End it all; nothing may be left on the nodes."""
        assert self.client is not None
        self("rc.shutdown(hub=True)")
        self.client.close()
        for program in self._programs:
            program.wait(2 * PATIENCE)  # over a wire that was cut TCP tries again after up to half a minute
        for node in self.nodes:
            eventually(lambda node=node: not left(node), 60, lambda node=node: f"{node.name}: {left(node)}")
            if node is not self.killed:
                assert node.run(["ls", "-A", f"/tmp/hpcremote-{os.geteuid()}"], cwd=Path("/")).stdout == ""

    def kill(self) -> None:
        """Leave nothing to other tests, whatever happened."""
        if self.client is not None:
            self.client.close()
        for program in self._programs:
            program.kill_all()
        for host in self.hosts:
            for process in host.processes("-m hpcremote"):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        if self.killed is not None:  # what was killed there could not clear up
            self.killed.run(["rm", "-rf", f"/tmp/hpcremote-{os.geteuid()}"], cwd=Path("/"))
        for program in self._programs:
            program.wait(PATIENCE)
        self._log.close()


def left(host: Host) -> list[str]:
    """Return what of hpcremote runs on a host."""
    return host.commands("-m hpcremote")


def _enter(host: Host) -> list[str]:
    assert host._keeper is not None
    return host._keeper.words([], Path("/"))


@pytest.fixture
def site(request: pytest.FixtureRequest, hosts: Hosts, tmp_path: Path) -> Iterator[Site]:
    """With two nodes, or as many as the test's parameter says."""
    made = Site(hosts, tmp_path, getattr(request, "param", 2))
    try:
        made.begin()
        yield made
        made.close()
    finally:
        made.kill()


def test_one_connection_a_node_whoever_dies(site: Site) -> None:
    pids = site("view.apply_sync(os.getpid)")
    assert site.connections() == ["node1", "node2"]
    assert site("[info.host for info in rc.link.engines.values()]") == ["node1"] * 2 + ["node2"] * 2
    site("import numpy; data = numpy.random.bytes(100_000_000); crc = zlib.crc32(data)")
    site("view.push({'data': data}, block=True)")
    site("def crc_there(): import zlib; return zlib.crc32(data)")
    assert site("view.apply_sync(crc_there) == [crc] * 4") is True
    site("def same(data): import zlib; print('got it'); return zlib.crc32(data)")
    assert site("(ar := view.apply_async(same, data)).get(60) == [crc] * 4") is True  # not by MPI
    assert site("ar.stdout") == ["got it\n"] * RANKS

    site(
        "def total(n): from mpi4py import MPI; import time; time.sleep(1); return MPI.COMM_WORLD.allreduce(n)"
    )
    for node in site.nodes:
        site("ar = [view.apply_async(total, n) for n in range(3)]")
        before = site.agent(node)
        before.kill()
        eventually(lambda before=before: has_ended(before))
        assert site("[one.get(60) for one in ar]") == [[0] * RANKS, [RANKS] * RANKS, [2 * RANKS] * RANKS]
        assert site.agent(node) != before
    eventually(lambda: site.connections() == ["node1", "node2"], why=site.connections)
    assert site("view.apply_sync(os.getpid)") == pids
    assert site("len(view.stacks())") == RANKS

    site("def wait(): import time; print('my last words', flush=True); time.sleep(600)")
    site("running = rc[0].apply_async(wait); waiting = [view.apply_async(os.getpid) for _ in range(2)]")
    assert site("rc.link.wait(lambda: 'last words' in running.stdout, 60)") is True  # it has begun
    site("rc.abort(waiting); running.abort()")
    assert "TaskAborted" in str(site("waiting[1].get(60)"))
    assert "KeyboardInterrupt" in str(site("running.get(60)"))
    assert site("view.apply_sync(os.getpid)") == pids

    site("ar = rc[3].apply_async(wait)")
    assert site("rc.link.wait(lambda: 'last words' in ar.stdout, 60)") is True
    (victim,) = [one for one in site.ranks(site.nodes[1]) if _inner(one) == pids[3]]
    victim.kill()
    said = str(site("ar.get(60)"))
    assert "EngineError" in said and "killed by SIGKILL" in said and "my last words" in said


def _inner(process: psutil.Process) -> int:
    """Return a process' number on its own host."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    (row,) = [row for row in status.splitlines() if row.startswith("NSpid:")]
    return int(row.split()[-1])


def test_a_node_on_which_all_is_killed_is_missed(site: Site) -> None:
    site("def wait(): import time; time.sleep(600)")
    site("ar = rc[2].apply_async(wait)")
    site.killed = site.nodes[1]
    for process in [site.agent(site.killed), *site.ranks(site.killed)]:
        process.kill()  # all at once, as a batch system does that ends its job there
    assert "EngineError" in str(site("ar.get(90)"))


@pytest.mark.parametrize("site", [3], indirect=True)
def test_nodes_that_nothing_is_heard_of_are_given_up_and_come_back(site: Site) -> None:
    """One node's agent stands still, the other's wire is cut.

    Each is so after the heartbeat's 20 seconds (``net.sockets``), and the 5 in which ranks may come back.
    """
    pids = site("view.apply_sync(os.getpid)")
    agent, apart = site.agent(site.nodes[1]), site.nodes[2]
    agent.suspend()
    site.hosts.cut(site.head, apart)
    try:
        site("ar = view.apply_async(os.getpid)")
        stacks = str(site("str(view.stacks())"))
        assert "ranks 2-3 the node agent of node2" in stacks
        assert "ranks 4-5 the node agent of node3" in stacks
        said = str(site("ar.get(90)"))
        assert "failed on 4 of 6 engines" in said and "its host or network failed" in said
        assert site("rc.ids") == [0, 1]
        assert site("rc[:].apply_sync(os.getpid)") == pids[:2]
    finally:
        agent.resume()
        site.hosts.join(site.head, apart)
    assert site("rc.wait_for_engines(6, timeout=60)") is None
    assert site("rc[:].apply_async(os.getpid).get(60)") == pids
