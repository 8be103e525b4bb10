"""Words for ssh, and sense from what it says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hpcremote.connection import Connection
from hpcremote.errors import ConfigError
from hpcremote.net import sshwords
from hpcremote.net.sshwords import Server, listed, server, through, why


def connection(**changes: Any) -> Connection:
    values: dict[str, Any] = {
        "role": "client", "cluster_id": "c", "cluster_uid": "u" * 32, "profile": "mpi", "version": "1",
        "protocol": 1, "host": "login1", "pid": 77, "started": 1.0, "machine": "m", "ipc": "ipc:///x",
        "addresses": ("tcp://10.0.0.1:4711", "tcp://127.0.0.1:4711", "tcp://[fe::1]:4711"),
        "server_key": "s" * 40, "public_key": "p" * 40, "secret_key": "k" * 40, "shm": "/dev/shm/x",
        "ticks": 5,
    }  # fmt: skip
    return Connection(**{**values, **changes})


@pytest.mark.parametrize(
    ("text", "destination", "port"),
    [
        ("far", "far", None),
        ("me@far", "me@far", None),
        ("me@far:2222", "me@far", 2222),
        ("[::1]:22", "::1", 22),
    ],
)
def test_a_server(text: str, destination: str, port: int | None) -> None:
    assert server(text) == Server(destination, port)


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "a b", "me@-x", "far:0", "far:70000", "far:x", "a@b@c"]
)
def test_no_server(text: str) -> None:
    with pytest.raises(ConfigError, match="ssh server"):
        server(text)


def test_the_user_sees_the_command_to_try() -> None:
    assert server("me@far:22", "/k e y", "ssh -F conf").by_hand == "ssh -F conf -p 22 -i '/k e y' me@far"


def said(*bodies: tuple[str, str], host: str = "login1") -> str:
    lines = ["Welcome to the machine", f"hpcremote-begin {host}"]
    for body, stat in bodies:
        lines += ["hpcremote-file /home/me/client.json", body, f"hpcremote-stat {stat}"]
    return "\n".join([*lines, "hpcremote-end", ""])


def stat(state: str = "S", started: int = 5) -> str:
    return f"77 (a) b) {state} " + " ".join(["1"] * 18) + f" {started} 0"


def test_what_the_other_side_lists() -> None:
    text = json.dumps({**vars(connection())})
    whole = said((text, stat()))
    assert sshwords.is_whole(whole)
    assert not sshwords.is_whole(whole[:-5])
    there = listed(whole)
    assert (there.host, there.wrong) == ("login1", [])
    assert there.found == [("/home/me/client.json", connection(), True)]


@pytest.mark.parametrize(
    ("line", "host", "alive"),
    [(stat(), "login1", True), (stat("Z"), "login1", False), (stat(started=6), "login1", False),
     ("", "login1", False), ("", "login2", None)],
)  # fmt: skip
def test_whether_the_controller_lives_there(line: str, host: str, alive: bool | None) -> None:
    ((_, _, found),) = listed(said((json.dumps(vars(connection())), line), host=host)).found
    assert found is alive


def test_files_that_are_wrong_do_not_hide_the_others() -> None:
    good = json.dumps(vars(connection()))
    there = listed(said(('{"role":', ""), ('{"role": "engine"}', ""), (good, stat())))
    assert len(there.found) == 1
    assert "not a whole JSON file" in there.wrong[0]
    assert "missing" in there.wrong[1]


def test_the_way_through() -> None:
    far, ways = through(connection(), "/run/t", "login2")
    assert [address for _, address in ways] == [
        "tcp://10.0.0.1:4711",
        "tcp://[fe::1]:4711",
        "tcp://127.0.0.1:4711",
    ]
    assert far.addresses[0] == "tunnel:///run/t/10.0.0.1_4711"
    assert (far.ipc, far.shm, far.tunnel) == ("", "", "/run/t")
    near, ways = through(connection(), "/run/t", "login1")
    assert ways[0] == ("/run/t/127.0.0.1_4711", "tcp://127.0.0.1:4711")
    words = sshwords.forward(server("far"), "/run/t/ctl", ways)
    assert "/run/t/_fe_1_4711:[fe::1]:4711" in words
    assert near.secret_key not in " ".join(words)


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("me@far: Permission denied (publickey).", "does not let you in: `ssh far`"),
        ("Host key verification failed.", "not known here: run `ssh far` once"),
        ("ssh: connect to host far port 22: No route to host", "cannot be reached from here"),
        ("Timeout, server far not responding.", "cannot be reached from here"),
        ("kex_exchange_identification: Connection closed", "ssh to far failed"),
        ("", "ended with code 255 and says nothing"),
    ],
)
def test_what_it_means(words: str, meaning: str) -> None:
    told = why(server("far"), 255, words)
    assert meaning in told
    assert words in told


def test_silence_and_signals() -> None:
    assert "did not answer in time: does `ssh far` work" in why(server("far"), None, "")
    assert why(server("far"), -9, "") == "ssh to far was ended by signal 9"
    refusals = "channel 2: open failed: connect failed: Connection refused\r\n"
    assert sshwords.refused(refusals * 3) == "connect failed: Connection refused"
