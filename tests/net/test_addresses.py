from __future__ import annotations

import socket

import pytest

from hpcremote.errors import ConfigError
from hpcremote.net.addresses import Interface, bind_address, candidates, endpoint, interfaces


def loopback() -> Interface:
    return next(one for one in interfaces() if one.loopback)


def test_interfaces_are_those_of_this_machine() -> None:
    present = interfaces()
    assert {one.name for one in present} <= {name for _, name in socket.if_nameindex()}
    assert "127.0.0.1" in loopback().addresses
    assert present[-1].loopback


def test_every_candidate_can_be_bound() -> None:
    offered = candidates("auto")
    assert offered[-1] == "127.0.0.1"
    assert len(set(offered)) == len(offered)
    for address in offered:
        with socket.socket() as server:
            server.bind((address, 0))


@pytest.mark.parametrize("word", ["auto", "all", "*", "0.0.0.0", "::"])
def test_all_binds_all_and_offers_no_wildcard(word: str) -> None:
    assert bind_address(word) == "0.0.0.0"
    assert candidates(word) == candidates("auto")
    assert "0.0.0.0" not in candidates(word)


def test_an_interface_stands_for_its_addresses() -> None:
    one = loopback()
    assert candidates(one.name) == list(one.addresses)
    assert bind_address(one.name) == "127.0.0.1"


@pytest.mark.parametrize("address", ["10.1.0.7", "2001:db8::7", "fe80::1%ib0"])
def test_an_address_is_used_as_it_is(address: str) -> None:
    assert candidates(address) == [address]
    assert bind_address(address) == address


def test_an_unknown_interface_lists_those_that_are_there() -> None:
    name = loopback().name
    with pytest.raises(ConfigError, match=rf"'ib7' is neither .*{name} \(127\.0\.0\.1"):
        candidates("ib7")
    with pytest.raises(ConfigError, match=f"did you mean '{name}'"):
        bind_address(name + "o")


def test_the_most_useful_come_first() -> None:
    lo = Interface("lo", ("127.0.0.1",), loopback=True)
    docker = Interface("docker0", ("172.17.0.1",))
    ib, eth = Interface("ib0", ("10.1.0.1",)), Interface("eth0", ("10.0.0.1",), default_route=True)
    ranked = sorted([lo, docker, ib, eth], key=lambda one: one.rank)
    assert [one.name for one in ranked] == ["eth0", "ib0", "docker0", "lo"]


def test_endpoint_brackets_ipv6() -> None:
    assert endpoint("10.0.0.1", 5) == "tcp://10.0.0.1:5"
    assert endpoint("::1", 5) == "tcp://[::1]:5"
