"""Lists of hosts, and what is said to them."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from hpcremote.errors import LaunchError
from hpcremote.launch import hosts
from hpcremote.launch.hosts import Host


def test_hosts_are_filled_one_after_the_other() -> None:
    assert hosts.parse(["a", "me@b.example:4"]) == [Host("a", 1), Host("me@b.example", 4)]
    assert hosts.deal(["a:2", "b:2", "c:2"], 3) == [Host("a", 2), Host("b", 1)]
    assert hosts.deal(["a:2", "b:2"], 4) == [Host("a", 2), Host("b", 2)]


@pytest.mark.parametrize("entry", ["", "a b", "a:", "a:0", "a:x", "-oProxyCommand=x", "a;b", "$(x)"])
def test_what_is_no_host(entry: str) -> None:
    with pytest.raises(LaunchError, match="neither a host's name nor name:slots"):
        hosts.parse([entry])


def test_too_many_and_twice() -> None:
    with pytest.raises(LaunchError, match=r"3 engines are too many for hosts: a:1, b:1 \(2 slots\)"):
        hosts.deal(["a", "b"], 3)
    with pytest.raises(LaunchError, match="a is there twice: write its slots behind it, as in name:2"):
        hosts.parse(["a", "a"])


def test_values_of_launchers() -> None:
    assert hosts.values([Host("a", 2), Host("b", 1)], ["ssh", "-F", "x"]) == {
        "hosts": "a:2,b:1", "ssh": "ssh", "ssh_args": ["-F", "x"], "ssh_command": "ssh -F x",
    }  # fmt: skip
    assert set(hosts.values([], ["ssh"]).values()) == {None}


def shell(script: str) -> str:
    return subprocess.run(["sh", "-s"], input=script, capture_output=True, text=True, check=True).stdout


def test_the_starting_script(tmp_path) -> None:
    words = ["sh", "-c", 'echo "$A $(pwd) $1"', "sh", "it's"]
    said = shell(hosts.starting(Host("a", 2), words, {"A": "x 'y' $HOME"}, str(tmp_path)))
    assert said.splitlines() == [f"x 'y' $HOME {tmp_path} it's"] * 2


def test_the_ending_script_ends_what_carries_the_mark_and_nothing_else() -> None:
    sleep = ["sleep", "1000"]
    deaf = ["sh", "-c", 'trap "" TERM; echo ready; while :; do sleep 0.05; done']
    ours = subprocess.Popen(sleep, env={**os.environ, "HPCREMOTE_MARK": "abc"})
    stubborn = subprocess.Popen(deaf, env={**os.environ, "HPCREMOTE_MARK": "abc"}, stdout=subprocess.PIPE)
    other = subprocess.Popen(sleep, env={**os.environ, "HPCREMOTE_MARK": "abcd"})
    assert stubborn.stdout is not None
    stubborn.stdout.readline()
    try:
        began = time.monotonic()
        said = shell(hosts.ending("HPCREMOTE_MARK=abc", "nobody", 1))
        assert said.split() == ["hpcremote-left"], f"after {time.monotonic() - began} s"
        assert ours.wait(10) == -15
        assert stubborn.wait(10) == -9
        assert other.poll() is None
        here = os.uname().nodename
        said = shell(hosts.ending("HPCREMOTE_MARK=abcd", "", 0, [("elsewhere", other.pid), (here, 1)]))
        assert said.split() == [here, "hpcremote-left"]
        assert other.poll() is None, "it is none of those"
        said = shell(hosts.ending("HPCREMOTE_MARK=abcd", here, other.pid))
        assert said.split() == ["hpcremote-left"]
        assert other.poll() is None, "it was to be spared"
        shell(hosts.ending("HPCREMOTE_MARK=abcd", "", 0, [(here, 1), (here, other.pid)]))
        assert other.wait(10) == -15
    finally:
        for one in (ours, stubborn, other):
            one.kill()
            one.wait()
        stubborn.stdout.close()


def test_the_looking_script(tmp_path) -> None:
    folder = str(tmp_path)
    env = {"PYTHONPATH": os.pathsep.join(sys.path[1:])}

    def look(python: str = sys.executable, folder: str = folder, cwd: str = folder) -> str:
        return shell(hosts.looking(python, folder, cwd, env))

    from hpcremote._version import __version__

    assert hosts.seen(look(), __version__) == ""
    assert hosts.seen(look(), "77") == f"hpcremote {__version__} is installed there, and 77 here"
    assert hosts.seen(look(cwd="/no/such"), "") == "the working directory /no/such is not there"
    assert "does not see /no/such: HPCREMOTE_DIR has to be" in hosts.seen(look(folder="/no/such"), "")
    assert "there is no Python at /no/py" in hosts.seen(look(python="/no/py"), "")
    assert "hpcremote is not installed for /bin/false" in hosts.seen(look(python="/bin/false"), "")
    assert "did not do as told: This account is not available" in hosts.seen(
        "This account is not available", ""
    )
