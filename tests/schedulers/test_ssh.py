"""SSH between the simulated hosts: sessions, tunnels and jumps, with no options of ours."""

from __future__ import annotations

import sys
import textwrap

import pytest

from tests.integration.support import eventually
from tests.schedulers.lab.hosts import Hosts
from tests.schedulers.lab.ssh import Ssh

pytestmark = pytest.mark.usefixtures("ssh")

_SERVER = """
    import socket
    server = socket.create_server(("127.0.0.1", 0)); print(server.getsockname()[1], flush=True)
    connection, _ = server.accept(); connection.sendall(b"through")
"""
_CLIENT = (
    "import socket, sys; print(socket.create_connection(('127.0.0.1', int(sys.argv[1]))).recv(7).decode())"
)


def test_from_host_to_host(hosts: Hosts) -> None:
    done = hosts.head.run(["ssh", "node1", "hostname; ssh node2 hostname; exit 3"])
    assert (done.stdout, done.returncode) == ("node1\nnode2\n", 3)


def test_the_labs_own_daemons_are_not_taken_for_what_was_left(hosts: Hosts) -> None:
    assert all(host.processes("sshd") for host in hosts)
    assert not any(host.processes("hpcremote") for host in hosts)


def test_over_a_jump_host(hosts: Hosts) -> None:
    hosts.cut(hosts.head, hosts["node2"])
    assert hosts.head.run(["ssh", "-J", "node1", "node2", "hostname"], check=True).stdout == "node2\n"


def test_a_tunnel_to_what_listens_on_the_other_host_only(hosts: Hosts) -> None:
    server = hosts["node1"].popen([sys.executable, "-c", textwrap.dedent(_SERVER)])
    assert server.stdout is not None
    port = server.stdout.readline().strip()
    tunnel = ["ssh", "-N", "-o", "ExitOnForwardFailure=yes", "-L", f"4000:127.0.0.1:{port}", "node1"]
    link = hosts.head.popen(tunnel)
    eventually(lambda: f":{4000:04X} " in hosts.head.run(["cat", "/proc/net/tcp"]).stdout)
    assert hosts.head.run([sys.executable, "-c", _CLIENT, "4000"], check=True).stdout == "through\n"
    link.terminate()
    link.communicate(timeout=30)
    server.communicate(timeout=30)


def test_the_server_is_back_after_a_power_failure(hosts: Hosts) -> None:
    hosts["node3"].power_off()
    silent = ["ssh", "-o", "ConnectTimeout=1", "node3", "hostname"]
    assert hosts.head.run(silent).returncode == 255
    hosts["node3"].power_on()
    assert hosts.head.run(["ssh", "node3", "hostname"], check=True).stdout == "node3\n"


@pytest.mark.mpi
def test_ranks_on_two_hosts_by_mpiexec_over_ssh(hosts: Hosts, ssh: Ssh) -> None:
    code = (
        "from mpi4py import MPI; c = MPI.COMM_WORLD; print(f'{c.size} {MPI.Get_processor_name()}\\n', end='')"
    )
    mpiexec = [f"{sys.prefix}/bin/mpiexec", "-launcher", "ssh", "-hosts", "node1:1,node2:1"]
    done = hosts.head.run([*mpiexec, "-n", "2", sys.executable, "-c", code])
    assert sorted(done.stdout.splitlines()) == ["2 node1", "2 node2"], f"{done.stderr}\n{ssh.log()}"
