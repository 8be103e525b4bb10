"""At which addresses a machine can be reached, from a profile's ``interface`` setting.

::

    auto        bind all; offer the default route's address, the other interfaces, bridges, loopback last
    all         the same
    ib0         bind and offer that interface only
    10.1.0.7    bind and offer that address only (IPv6 as well)

No name service is asked: on a machine with a broken resolver that alone can take half a minute.
"""

from __future__ import annotations

import array
import fcntl
import ipaddress
import os
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from hpcremote.errors import ConfigError
from hpcremote.files import did_you_mean

_SIOCGIFADDR = 0x8915
_SIOCGIFFLAGS = 0x8913
_UP = 0x1
_EVERY = "0.0.0.0"  # noqa: S104
_LOOPBACK = 0x8
#: Interfaces of containers and virtual machines: reachable, as a rule, from this machine only.
_BRIDGES = ("docker", "br-", "virbr", "veth", "lxc", "lxd", "cni", "podman", "vmnet")


class Interface(NamedTuple):
    """A network interface that is up, with the addresses that it has."""

    name: str
    addresses: tuple[str, ...]
    loopback: bool = False
    default_route: bool = False

    @property
    def rank(self) -> tuple[int, int]:
        """Sort key: the most useful to others first."""
        bridge = self.name.startswith(_BRIDGES)
        return (2 if self.loopback else 1 if bridge else 0, 0 if self.default_route else 1)


def bind_address(interface: str) -> str:
    """Return the address to bind for this setting: ``0.0.0.0`` for ``auto`` and ``all``.

    Raises:
        ConfigError: there is no such interface; the message lists those that are.
    """
    return _EVERY if _means_all(interface) else candidates(interface)[0]


def candidates(interface: str) -> list[str]:
    """Return the addresses to offer to peers for this setting, the best first; never empty.

    Raises:
        ConfigError: there is no such interface; the message lists those that are.
    """
    present = interfaces()
    if _means_all(interface):
        offered = [address for one in present for address in one.addresses if ":" not in address]
        return offered or ["127.0.0.1"]
    if _is_address(interface):
        return [interface]
    for one in present:
        if one.name == interface and one.addresses:
            return list(one.addresses)
    listed = ", ".join(f"{one.name} ({', '.join(one.addresses)})" for one in present if one.addresses)
    near = did_you_mean(interface, [one.name for one in present])
    raise ConfigError(
        f"interface: {interface!r} is neither an address nor an interface that is up and has one{near}"
        f" ({os.uname().nodename} has: {listed or 'none'})"
    )


def endpoint(address: str, port: int) -> str:
    """Return ``tcp://address:port``, with the brackets that an IPv6 address needs."""
    return f"tcp://[{address}]:{port}" if ":" in address else f"tcp://{address}:{port}"


def interfaces() -> list[Interface]:
    """Return the interfaces of this machine that are up, the most useful to others first."""
    default = _default_route()
    found: list[Interface] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            flags = _flags(probe, name)
            if flags & _UP:
                addresses = (*_ipv4(probe, name), *_ipv6(name))
                found.append(Interface(name, addresses, bool(flags & _LOOPBACK), name == default))
    return sorted(found, key=lambda one: one.rank)


def own_addresses() -> dict[str, str]:
    """Return the addresses of this machine, each with the name of its interface."""
    return {address: one.name for one in interfaces() for address in one.addresses}


def _means_all(interface: str) -> bool:
    return interface in ("auto", "all", "*", _EVERY, "::")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True


def _ask(probe: socket.socket, request: int, name: str) -> bytes:
    reply = array.array("B", struct.pack("256s", os.fsencode(name)[:15]))
    fcntl.ioctl(probe.fileno(), request, reply, True)
    return reply.tobytes()


def _flags(probe: socket.socket, name: str) -> int:
    try:
        return int.from_bytes(_ask(probe, _SIOCGIFFLAGS, name)[16:18], "little" if _LITTLE else "big")
    except OSError:  # went away since it was listed
        return 0


def _ipv4(probe: socket.socket, name: str) -> tuple[str, ...]:
    try:
        return (socket.inet_ntoa(_ask(probe, _SIOCGIFADDR, name)[20:24]),)
    except OSError:  # it has none
        return ()


def _ipv6(name: str) -> tuple[str, ...]:
    """Return the addresses that mean the same on every machine (not those of the link alone)."""
    rows = [line.split() for line in _lines("/proc/net/if_inet6")]
    raw = [bytes.fromhex(row[0]) for row in rows if len(row) > 5 and row[5] == name]
    addresses = [socket.inet_ntop(socket.AF_INET6, packed) for packed in raw]
    return tuple(text for text in addresses if not ipaddress.ip_address(text).is_link_local)


def _default_route() -> str:
    """Return the name of the interface that leads outside, or nothing."""
    rows = [line.split() for line in _lines("/proc/net/route")[1:]]
    ways = [(int(row[6]), row[0]) for row in rows if len(row) > 7 and row[1] == row[7] == "00000000"]
    return min(ways)[1] if ways else ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # not Linux, or no such protocol here
        return []


_LITTLE = struct.pack("=H", 1) == b"\x01\x00"
