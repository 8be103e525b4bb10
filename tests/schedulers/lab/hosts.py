"""Machines on a machine: each with its own name, network, process table, /tmp, /run and /dev/shm.

::

    head ──┐        ┌── node1         eth0   10.77.0.0/24, on all of them: the names head, node1, ...
           ├─ br0 ──┼── node2         eth1   10.78.0.0/24, a second wire: head-fast, node1-fast, ...
           │        └── node3         docker0  172.17.0.1 on each of them, when asked for: it leads nowhere
           └─ br1 ── ...

The switch with the two bridges is a namespace as well, so nothing of this shows on the machine's own network,
and no packet can leave.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import psutil

from tests.schedulers.lab import folder, keeper
from tests.schedulers.lab.folder import Folder
from tests.schedulers.lab.keeper import PATIENCE, Keeper, Program

#: The wires, and the first three numbers of the addresses on each.
WIRES = {"eth0": "10.77.0", "eth1": "10.78.0"}
#: What the interface that leads nowhere is called and its address, on every host.
DEAD_END = ("docker0", "172.17.0.1/16")
_BOOT = Path(__file__).with_name("boot.sh")
#: The namespaces of a host, besides its process-id space.
HOST_KINDS = ("net", "uts", "ipc", "mount")
_NOBODY = "02:00:00:00:00:fe"  # a hardware address that no host has


class Host:
    """One of the machines. Our own machine's paths are valid on it, except what is in /tmp and not shared.

    Attributes:
        name: its host name, which the others can resolve.
        folder: for what is its own: its /tmp, its services' logs.
    """

    def __init__(self, hosts: Hosts, name: str, number: int) -> None:
        self.name, self.folder = name, hosts.path / name
        self._hosts, self._number = hosts, number
        self._keeper: Keeper | None = None
        self._services: list[Callable[[Host], None]] = []
        self._unplugged: set[str] = set()
        (self.folder / "tmp").mkdir(parents=True)
        (self.folder / "tmp").chmod(0o1777)
        (self.folder / "hostname").write_text(name + "\n")

    def __repr__(self) -> str:
        return f"<host {self.name}{'' if self.is_on else ', off'}>"

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._keeper is not None

    @property
    def pid(self) -> int:
        """The process by whose namespaces it is entered."""
        assert self._keeper is not None, f"{self.name} is off"
        return self._keeper.pid

    def address(self, wire: str = "eth0") -> str:
        """Return its address on a wire."""
        return f"{WIRES[wire]}.{self._number}"

    # ------------------------------------------------------------ programs

    def popen(
        self,
        words: Sequence[str | Path],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        **options: Any,
    ) -> Program:
        """Start a program here, with pipes for output and nothing to read; *options* are those of Popen."""
        assert self._keeper is not None, f"{self.name} is off"
        command = self._keeper.words(words, cwd or Path.cwd())
        return keeper.start(command, env=self._hosts.environment(env), **options)

    def run(
        self,
        words: Sequence[str | Path],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        input: str | None = None,
        seconds: float = PATIENCE,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program here to its end.

        Raises:
            TimeoutError: it has not ended after *seconds*; its output is in the text.
            AssertionError: with *check*, its exit code is not 0.
        """
        given = {} if input is None else {"stdin": subprocess.PIPE}
        done = self.popen(words, env=env, cwd=cwd, **given).finish(input, seconds)
        if check:
            said = f"on {self.name}: {' '.join(map(str, words))}: exit code {done.returncode}"
            assert done.returncode == 0, f"{said}\n{done.stdout}\n{done.stderr}"
        return done

    def processes(self, word: str = "") -> list[psutil.Process]:
        """Return what runs here and has *word* in its command line, by the numbers of our own machine."""
        assert self._keeper is not None, f"{self.name} is off"
        return [process for process, line in self._running() if word in line]

    def commands(self, word: str = "") -> list[str]:
        """Return the command lines that :meth:`processes` finds, as text; none where the power is off."""
        return [line for _, line in self._running() if word in line] if self.is_on else []

    def _running(self) -> Iterator[tuple[psutil.Process, str]]:
        assert self._keeper is not None
        for process in self._keeper.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                # The lab's own folder, which its daemons name, is nothing of hpcremote's.
                yield process, " ".join(process.cmdline()).replace(folder.PREFIX, "lab-")

    # ------------------------------------------------------------ power and wires

    def at_boot(self, service: Callable[[Host], None]) -> None:
        """Start a service now, and whenever the power comes back."""
        self._services.append(service)
        service(self)

    def power_off(self) -> None:
        """Cut the power: others hear no word of it, and nothing that ran here is left."""
        assert self._keeper is not None, f"{self.name} is off already"
        self._hosts.in_switch("\n".join(f"link del {self._port(wire)}" for wire in WIRES))
        self.end()

    def end(self) -> None:
        """End all that runs here; the kernel tells the peers, and takes the network down."""
        if self._keeper is not None:
            self._keeper.end()
            self._keeper = None

    def power_on(self) -> None:
        """Boot it: network and services as they were, nothing else."""
        self._unplugged.clear()
        self._keeper = Keeper(*HOST_KINDS)
        shared = [str(path) for path in self._hosts.shared]
        self.run(["sh", _BOOT, self.name, self._hosts.path, *shared], cwd=Path("/"), check=True)
        ports = "\n".join(
            f"link add {self._port(wire)} type veth"
            f" peer name {wire} address {self._hardware(wire)} netns {self._keeper.pid}\n"
            f"link set {self._port(wire)} master {bridge(wire)} up"
            for wire in WIRES
        )
        self._hosts.in_switch(ports)
        mine = [f"addr add {self.address(wire)}/24 dev {wire}\nlink set {wire} up" for wire in WIRES]
        self.ip("\n".join(["link set lo up", *mine]))
        for service in self._services:
            service(self)

    def unplug(self, wire: str) -> None:
        """Pull a wire: the interface stays, nothing comes and nothing gets through."""
        self._hosts.in_switch(f"link set {self._port(wire)} down")
        self._unplugged.add(wire)

    def plug(self, wire: str) -> None:
        """Put a wire back."""
        self._hosts.in_switch(f"link set {self._port(wire)} up")
        self._unplugged.discard(wire)

    def mend(self) -> None:
        """Have the power on and all wires in their places."""
        if not self.is_on:
            self.power_on()
        for wire in list(self._unplugged):
            self.plug(wire)

    def ip(self, commands: str) -> None:
        """Give commands to the program ``ip``, one a line."""
        self.run(["ip", "-batch", "-"], input=commands + "\n", cwd=Path("/"), check=True)

    def hears(self, other: Host, wire: str = "eth0") -> bool:
        """Say whether packets come back from another host within a second."""
        port = f"/dev/tcp/{other.address(wire)}/9"  # where nobody listens: the answer is a refusal
        said = self.run(["timeout", "1", "bash", "-c", f": <{port}"], cwd=Path("/")).stderr
        return "refused" in said

    def _port(self, wire: str) -> str:
        return f"{wire}-{self._number}"

    def _hardware(self, wire: str) -> str:
        # The same after a new boot, or the others would send to the old one for some seconds.
        return f"02:00:00:00:0{list(WIRES).index(wire)}:{self._number:02x}"


class Hosts:
    """A head and some nodes, and the network between them.

    Args:
        names: of the hosts; the first is the head.
        share: folders in /tmp that are the same on all hosts, besides the one of the lab itself.

    Attributes:
        path: the folder of the lab.
        shared: folders that are the same on all hosts.
        env: what programs on hosts find in their environment besides what is in our own.
    """

    def __init__(
        self, names: Sequence[str] = ("head", "node1", "node2", "node3"), share: Iterable[Path] = ()
    ) -> None:
        self._folder = Folder()
        self.path = self._folder.path
        self.shared = [self.path, *share]
        self.env: dict[str, str] = {}
        self._cut: set[frozenset[str]] = set()
        self._hosts = {name: Host(self, name, number) for number, name in enumerate(names, start=11)}
        self._write_network()
        self._switch = Keeper("net")
        try:
            self._boot()
        except BaseException:
            self.close()
            raise

    def _write_network(self) -> None:
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
        for host in self:
            lines += [f"{host.address()} {host.name}", f"{host.address('eth1')} {host.name}-fast"]
        (self.path / "hosts").write_text("\n".join(lines) + "\n")
        # No name server answers; whoever asks one shall not wait long.
        (self.path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")

    def _boot(self) -> None:
        bridges = [f"link add {bridge(wire)} type bridge\nlink set {bridge(wire)} up" for wire in WIRES]
        self.in_switch("\n".join(["link set lo up", *bridges]))
        for host in self:
            host.power_on()
        self._wait_for_network()

    def _wait_for_network(self) -> None:
        for host in self.nodes:
            tries = 0
            while not host.hears(self.head):
                tries += 1
                assert tries < PATIENCE, f"{host.name} does not reach {self.head.name}"

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    @property
    def head(self) -> Host:
        """The login node, where batch systems have their server."""
        return next(iter(self))

    @property
    def nodes(self) -> list[Host]:
        """The compute nodes: all but the head."""
        return list(self)[1:]

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """Return the environment of programs on hosts: ours, without what names folders in /run and /tmp."""
        ours = {
            name: value for name, value in os.environ.items() if name not in ("XDG_RUNTIME_DIR", "TMPDIR")
        }
        return ours | self.env | (more or {})

    # ------------------------------------------------------------ the network

    def in_switch(self, commands: str) -> None:
        """Give commands to the program ``ip`` where the bridges are, one a line."""
        words = self._switch.only_net(["ip", "-batch", "-"])
        done = keeper.start(words, stdin=subprocess.PIPE).finish(commands + "\n", PATIENCE)
        assert done.returncode == 0, f"{commands}\n{done.stderr}"

    def serve_from_switch(self, words: Sequence[str | Path]) -> None:
        """Run a program, which goes into the background, that no power failure ends."""
        done = keeper.start(self._switch.words(words)).finish(None, PATIENCE)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"

    def cut(self, one: Host, other: Host) -> None:
        """Let no packet through between two hosts, on any wire and without a word to either."""
        for host, peer in ((one, other), (other, one)):
            wrong = f"lladdr {_NOBODY} nud permanent"
            host.ip("\n".join(f"neigh replace {peer.address(wire)} dev {wire} {wrong}" for wire in WIRES))
        self._cut.add(frozenset((one.name, other.name)))

    def join(self, one: Host, other: Host) -> None:
        """Undo :meth:`cut`. A host that has booted since has forgotten it already."""
        self._cut.discard(frozenset((one.name, other.name)))
        for host, peer in ((one, other), (other, one)):
            if host.is_on:
                for wire in WIRES:
                    host.run(["ip", "neigh", "del", peer.address(wire), "dev", wire], cwd=Path("/"))

    @contextlib.contextmanager
    def dead_ends(self) -> Iterator[str]:
        """Give every host an interface with the same address on each, as Docker does; yield its name."""
        name, address = DEAD_END
        for host in self:
            host.ip(f"link add {name} type bridge\naddr add {address} dev {name}\nlink set {name} up")
        try:
            yield name
        finally:
            for host in self:
                if host.is_on:
                    host.run(["ip", "link", "del", name], cwd=Path("/"))

    def mend(self) -> None:
        """Make good what a test may have left: hosts without power, wires pulled, hosts apart."""
        for host in self:
            host.mend()
        for one, other in combinations(self, 2):
            if frozenset((one.name, other.name)) in self._cut:
                self.join(one, other)

    def close(self) -> None:
        """End it all, and leave nothing."""
        for host in self:
            host.end()
        self._switch.end()
        self._folder.close()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bridge(wire: str) -> str:
    """Return the bridge of a wire."""
    return f"br-{wire}"
