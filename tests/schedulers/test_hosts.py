"""The simulated hosts are what the tests that use them take them for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from hpcremote import files
from tests.integration.support import ROOT, environment, eventually, has_ended
from tests.schedulers.lab import folder, needs
from tests.schedulers.lab.hosts import Hosts


def test_every_host_has_a_name_of_its_own(hosts: Hosts) -> None:
    assert [host.run(["hostname"]).stdout.strip() for host in hosts] == ["head", "node1", "node2", "node3"]
    assert [host.run(["cat", "/etc/hostname"]).stdout.strip() for host in hosts] == [
        host.name for host in hosts
    ]


def test_hosts_find_each_other_by_name_on_both_wires(hosts: Hosts) -> None:
    code = "import socket; print(*[socket.gethostbyname(name) for name in ('node1', 'node2-fast')])"
    for host in hosts:
        said = host.run([sys.executable, "-c", code], check=True).stdout.split()
        assert said == [hosts["node1"].address(), hosts["node2"].address("eth1")]
    assert hosts["node1"].hears(hosts["node2"])
    assert hosts["node1"].hears(hosts["node2"], "eth1")


def test_memory_runtime_and_temporary_files_are_a_hosts_own(hosts: Hosts) -> None:
    one, other = hosts.nodes[:2]
    for place in ("/dev/shm", "/run", "/tmp"):
        one.run(["touch", f"{place}/mark"], check=True)
        assert one.run(["test", "-e", f"{place}/mark"]).returncode == 0
        assert other.run(["test", "-e", f"{place}/mark"]).returncode == 1
        assert not Path(f"{place}/mark").exists()


def test_hpcremote_takes_them_for_different_machines(hosts: Hosts) -> None:
    code = "from hpcremote import files; print(files.machine_id())"
    known = {host.run([sys.executable, "-c", code], env=environment(), check=True).stdout for host in hosts}
    assert len(known | {files.machine_id() + "\n"}) == 5


def test_the_folder_of_a_test_is_the_same_on_all_hosts(hosts: Hosts, tmp_path: Path) -> None:
    hosts["node1"].run(["sh", "-c", "hostname > here"], cwd=tmp_path, check=True)
    assert hosts["node2"].run(["cat", tmp_path / "here"]).stdout == "node1\n"
    assert (tmp_path / "here").read_text() == "node1\n"


def test_no_packet_leaves(hosts: Hosts) -> None:
    assert hosts.head.run(["ip", "route", "show", "default"], check=True).stdout == ""
    ours = {name for name in os.listdir("/sys/class/net") if name.startswith(("br-eth", "eth0-", "eth1-"))}
    assert ours == set()


def test_a_signal_reaches_the_program(hosts: Hosts) -> None:
    program = hosts["node1"].popen(["sleep", "1000"])
    eventually(lambda: hosts["node1"].processes("sleep 1000"))
    program.terminate()
    assert program.wait(30) == -signal.SIGTERM
    assert hosts["node1"].processes("sleep 1000") == []
    program.communicate()


def test_a_program_that_takes_too_long_is_ended_with_its_children(hosts: Hosts) -> None:
    with pytest.raises(TimeoutError, match="has not ended after 0.5 s\nsaid this"):
        hosts["node1"].run(["sh", "-c", "echo said this; sleep 1001; true"], seconds=0.5)
    eventually(lambda: not hosts["node1"].processes("sleep 1001"))


def test_orphans_are_seen_and_buried(hosts: Hosts) -> None:
    node = hosts["node1"]
    node.run(["sh", "-c", "sleep 1002 >/dev/null 2>&1 &"], check=True)
    (orphan,) = node.processes("sleep 1002")
    assert hosts["node2"].processes("sleep 1002") == []
    orphan.kill()
    eventually(lambda: not orphan.is_running())  # not even as a zombie


def test_power_failure_and_reboot(hosts: Hosts) -> None:
    node, peer = hosts["node2"], hosts["node1"]
    running = node.popen(["sleep", "1003"])
    eventually(lambda: node.processes("sleep 1003"))
    (process,) = node.processes("sleep 1003")
    node.power_off()
    assert has_ended(process)
    running.communicate()
    assert not node.is_on
    assert not peer.hears(node)
    node.power_on()
    assert node.run(["hostname"]).stdout == "node2\n"
    eventually(lambda: peer.hears(node))
    assert node.processes("sleep") == []


def test_nobody_is_told_of_a_power_failure(hosts: Hosts) -> None:
    """A connection to a host without power is silent, as it would be in life, and not closed."""
    node, peer = hosts["node2"], hosts["node1"]
    serving = """
        import socket
        server = socket.create_server(("", 7000)); print("listening", flush=True)
        connection, _ = server.accept(); connection.sendall(b"hello"); connection.recv(1)
    """
    asking = """
        import socket
        with socket.create_connection(("node2", 7000)) as connection:
            print(connection.recv(5), flush=True)
            connection.settimeout(1)
            try: print(connection.recv(1), flush=True)
            except TimeoutError: print("silence", flush=True)
    """
    server = node.popen([sys.executable, "-c", textwrap.dedent(serving)])
    assert server.stdout is not None
    server.stdout.readline()
    client = peer.popen([sys.executable, "-u", "-c", textwrap.dedent(asking)])
    assert client.stdout is not None
    client.stdout.readline()
    node.power_off()
    assert client.communicate(timeout=30)[0] == "silence\n"
    server.communicate()


def test_two_hosts_are_cut_from_each_other(hosts: Hosts) -> None:
    one, other, third = hosts.nodes
    hosts.cut(one, other)
    assert not one.hears(other)
    assert not other.hears(one, "eth1")
    assert one.hears(third)
    assert other.hears(hosts.head)
    hosts.join(one, other)
    eventually(lambda: one.hears(other) and other.hears(one, "eth1"))


def test_a_wire_is_pulled(hosts: Hosts) -> None:
    node = hosts["node1"]
    node.unplug("eth0")
    assert not node.hears(hosts.head)
    assert node.hears(hosts.head, "eth1")
    node.plug("eth0")
    eventually(lambda: node.hears(hosts.head))


def test_an_interface_that_leads_nowhere(hosts: Hosts) -> None:
    with hosts.dead_ends() as name:
        for host in hosts:
            (shown,) = json.loads(host.run(["ip", "-json", "-4", "addr", "show", name], check=True).stdout)
            assert [address["local"] for address in shown["addr_info"]] == ["172.17.0.1"]
            assert name in host.run(["ls", "/sys/class/net"]).stdout.split()
    assert hosts.head.run(["ip", "link", "show", name]).returncode == 1


_DYING = """
    import os, signal, sys
    from tests.schedulers.lab.hosts import Hosts
    hosts = Hosts(["head", "node1"])
    hosts["node1"].popen(["sleep", "1004"])
    print(hosts.path, flush=True)
    sys.stdin.read()
"""


def test_two_labs_at_once_and_one_whose_owner_is_killed(hosts: Hosts) -> None:
    """What ran on its hosts ends with it, whatever became of it; the next one clears its folder away."""
    dying = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_DYING)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment(),
    )  # fmt: skip
    assert dying.stdout is not None
    left = Path(dying.stdout.readline().strip())
    keepers = [
        child for child in psutil.Process(dying.pid).children(recursive=True) if child.name() == "sleep"
    ]
    try:
        assert left in folder.living()
    finally:
        dying.kill()
        dying.communicate()
    eventually(lambda: all(has_ended(child) for child in keepers))
    assert left in folder.folders()
    Hosts(["head"]).close()
    assert left not in folder.folders()
    assert hosts.path in folder.living()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(needs.NEEDS, "hosts", {"sh": "dash", "no-such-program": "no-such-package"})
    assert needs.missing("slurm").startswith("hosts: Debian's no-such-package not installed; `.ci/install`")
