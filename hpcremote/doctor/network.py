"""At which addresses would others find the controller, and is the port free?"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

from hpcremote.doctor.finding import Finding, ok, problem, warning
from hpcremote.errors import ConfigError
from hpcremote.net import addresses
from hpcremote.net.addresses import Interface
from hpcremote.profile import Profile

_GROUP = "network"


class Seen(NamedTuple):
    """What was found. ``port_trouble``: why the profile's port cannot be had."""

    offered: Sequence[str]
    interfaces: Sequence[Interface]
    trouble: str = ""
    port: int = 0
    port_trouble: str = ""


def probe(profile: Profile) -> Seen:
    """Look at the interfaces, and try the profile's port."""
    present = addresses.interfaces()
    try:
        offered = addresses.candidates(profile.interface)
        bound = addresses.bind_address(profile.interface)
    except ConfigError as error:
        return Seen([], present, str(error))
    return Seen(offered, present, "", profile.port, _try(bound, profile.port))


def _try(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except OSError as error:
        return f"{address} port {port or 'any'}: {(error.strerror or str(error)).lower()}"
    return ""


def judge(seen: Seen) -> list[Finding]:
    """Say what it means."""
    if seen.trouble:
        return [problem(_GROUP, seen.trouble, "set interface: in the profile, or leave it out")]
    names = {address: one for one in seen.interfaces for address in one.addresses}
    shown = ", ".join(f"{one} ({names[one].name})" if one in names else one for one in seen.offered)
    found = []
    outward = [one for one in seen.offered if one in names and names[one].rank[0] == 0]
    unknown = [one for one in seen.offered if one not in names]
    if unknown:
        text = f"the controller would offer {', '.join(unknown)}, which no interface here has"
        found.append(problem(_GROUP, text, "set interface: to an address of this machine, a name, or auto"))
    elif not outward:
        text = f"the controller would offer {shown}: nothing but this machine reaches that"
        found.append(
            warning(_GROUP, text, "fine for one machine; else set interface: to one that others reach")
        )
    else:
        found.append(ok(_GROUP, f"the controller would offer {shown}"))
    if len(outward) > 1:
        text = f"{len(outward)} interfaces lead outside: engines try {' and '.join(outward[:4])} in turn"
        found.append(
            warning(_GROUP, text, "name the one that compute nodes reach: interface: ib0, for example")
        )
    if seen.port_trouble:
        found.append(
            problem(_GROUP, f"cannot listen: {seen.port_trouble}", "choose another port:, or 0 for any")
        )
    return found
