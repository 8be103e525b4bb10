"""What is said to ``ssh`` and what it means when it answers: words in, words out. Pure.

``ssh`` is the user's own program with the user's own configuration: jump hosts, keys, agents and names of
hosts are its business. We add what makes it fit for a program: no terminal, no forwarding of agents, a sign
of life every few seconds. No secret is in a command: connection files come by standard output.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from hpcremote.connection import Connection, from_dict
from hpcremote.errors import ConfigError, ConnectionFileError

#: How the address of a Unix socket begins behind which ``ssh`` forwards to a controller's TCP port.
TUNNEL = "tunnel://"
#: ssh asks the other side after this many seconds of silence, and gives up after so many times.
ALIVE_EVERY, ALIVE_TIMES = 5, 3
_BEGIN, _FILE, _STAT, _END = "hpcremote-begin", "hpcremote-file", "hpcremote-stat", "hpcremote-end"

#: Prints every connection file, then lives until its standard input ends.
_LIST = """\
d=${HPCREMOTE_DIR:-$HOME/.hpcremote}
echo "@BEGIN $(uname -n)"
for f in "$d"/clusters/*/*/client.json; do
  [ -r "$f" ] || continue
  echo "@FILE $f"
  cat "$f"; echo
  pid=$(sed -n 's/^ *"pid": *\\([0-9]*\\).*/\\1/p' "$f")
  echo "@STAT $(cat "/proc/${pid:-none}/stat" 2>/dev/null)"
done
echo "@END"
exec cat >/dev/null
"""
#: The same for a tunnel that is made again.
_STAY = 'echo "@BEGIN $(uname -n)"\necho "@END"\nexec cat >/dev/null\n'

_SERVER = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[^\]\s]+\]|[^:@\s]+|[^@\s]*:[^@\s]*:[^@\s]*)(?::(?P<port>\d+))?"
)


class Server(NamedTuple):
    """Where ``ssh`` goes, and how: *command* is the program and its first arguments."""

    destination: str
    port: int | None = None
    key: str = ""
    command: tuple[str, ...] = ("ssh",)

    @property
    def words(self) -> list[str]:
        """The words before the options of one use."""
        words = list(self.command)
        if self.port is not None:
            words += ["-p", str(self.port)]
        if self.key:
            words += ["-i", self.key]
        return words

    @property
    def by_hand(self) -> str:
        """The command with which a user can try the same."""
        return shlex.join([*self.words, self.destination])


class Listed(NamedTuple):
    """What the other side said: its name, and the connection files with the path and state of each.

    ``alive``: None where it cannot be known there.
    """

    host: str
    found: list[tuple[str, Connection, bool | None]]
    wrong: list[str]


def server(text: str, key: str = "", command: str | Sequence[str] = ()) -> Server:
    """Return the server that ``user@host:port`` names.

    Raises:
        ConfigError: it names none.
    """
    match = _SERVER.fullmatch(text)
    if match is None or text.startswith("-") or (match["user"] or "").startswith("-"):
        raise ConfigError(f"ssh server {text!r}: write it as host, user@host or user@host:port")
    host = match["host"].strip("[]")
    if host.startswith("-"):
        raise ConfigError(f"ssh server {text!r}: a host's name does not begin with '-'")
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ConfigError(f"ssh server {text!r}: {port} is no port, which is between 1 and 65535")
    words = shlex.split(command) if isinstance(command, str) else list(command)
    return Server(f"{match['user']}@{host}" if match["user"] else host, port, key, tuple(words or ["ssh"]))


def stay(where: Server, control: str, *, ask: bool, patience: float) -> list[str]:
    """Return the words of the ssh that holds the connection; it runs the shell script on its standard input.

    Args:
        where: the server.
        control: path of a socket, by which it takes orders.
        ask: whether it may ask the user, at the terminal, for a password.
        patience: seconds for the connection to be made.
    """
    options = {
        "ControlMaster": "yes",
        "ControlPath": control,
        "ControlPersist": "no",
        "ClearAllForwardings": "yes",
        "PermitLocalCommand": "no",
        "RemoteCommand": "none",
        "ConnectTimeout": str(max(1, int(patience))),
        **_alive(),
        **({} if ask else {"BatchMode": "yes"}),
    }
    return [*where.words, *_options(options), "-T", "-x", "-a", where.destination, "exec sh -s"]


def forward(where: Server, control: str, ways: Sequence[tuple[str, str]]) -> list[str]:
    """Return the words that have that ssh forward Unix sockets to addresses (``tcp://host:port``)."""
    pairs = [f"{socket}:{address.removeprefix('tcp://')}" for socket, address in ways]
    options = _options({"ControlPath": control, "BatchMode": "yes"})
    return [
        *where.words,
        *options,
        "-O",
        "forward",
        *(w for pair in pairs for w in ("-L", pair)),
        where.destination,
    ]


def once(where: Server, patience: float, command: str = "exec sh -s") -> list[str]:
    """Return the words that run *command* there once, without ever asking the user."""
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": str(max(1, int(patience))),
        "RemoteCommand": "none",
        **_alive(),
    }
    return [*where.words, *_options(options), "-T", "-x", "-a", where.destination, command]


def _alive() -> dict[str, str]:
    return {"ServerAliveInterval": str(ALIVE_EVERY), "ServerAliveCountMax": str(ALIVE_TIMES)}


def _options(options: dict[str, str]) -> list[str]:
    return [word for name, value in options.items() for word in ("-o", f"{name}={value}")]


# ---------------------------------------------------------------- the script, and what it prints


def listing() -> str:
    """Return the script that prints all connection files, and stays."""
    return _marked(_LIST)


def staying() -> str:
    """Return the script that only stays."""
    return _marked(_STAY)


def _marked(text: str) -> str:
    for name, mark in (("@BEGIN", _BEGIN), ("@FILE", _FILE), ("@STAT", _STAT), ("@END", _END)):
        text = text.replace(name, mark)
    return text


def is_whole(said: str) -> bool:
    """Say whether the script has printed everything."""
    return said.endswith(f"\n{_END}\n")


def listed(said: str) -> Listed:
    """Return what the script has printed; what a login shell prints before does not count."""
    host, path = "", ""
    found: list[tuple[str, Connection, bool | None]] = []
    wrong: list[str] = []
    body: list[str] = []
    for line in said.splitlines():
        word, _, rest = line.partition(" ")
        if word == _BEGIN:
            host, path = rest, ""
        elif word == _FILE:
            path, body = rest, []
        elif word == _STAT and path:
            try:
                one = from_dict(json.loads("\n".join(body)), "client", f"{host}:{path}")
                found.append((path, one, _alive_there(one, host, rest)))
            except ValueError:
                wrong.append(f"{host}:{path}: not a whole JSON file")
            except ConnectionFileError as error:
                wrong.append(str(error))
            path = ""
        else:
            body.append(line)
    return Listed(host, found, wrong)


def _alive_there(one: Connection, host: str, stat: str) -> bool | None:
    """Say whether the controller lives, from its line in ``/proc`` of *host*; None: it is elsewhere."""
    if one.host != host:
        return None
    fields = stat.rpartition(")")[2].split()
    return len(fields) > 19 and fields[0] not in "ZX" and one.ticks in (0, int(fields[19]))


def through(connection: Connection, folder: str, host: str) -> tuple[Connection, list[tuple[str, str]]]:
    """Return how to connect by sockets in *folder*, and which socket has to lead where.

    Args:
        connection: as it is on the cluster.
        folder: of the sockets, on this machine.
        host: the ssh server's own name: if the controller is there, its loopback address is the best.
    """
    here = connection.host == host
    order = sorted(connection.addresses, key=lambda one: one.startswith("tcp://127.") != here)
    ways = [(f"{folder}/{_as_file(address)}", address) for address in order]
    changes: dict[str, Any] = {"ipc": "", "shm": "", "tunnel": folder}
    addresses = tuple(TUNNEL + socket for socket, _ in ways)
    return connection.but(addresses=addresses, **changes), ways


def _as_file(address: str) -> str:
    return re.sub(r"[^\w.]+", "_", address.removeprefix("tcp://"))


# ---------------------------------------------------------------- when it fails

_MEANINGS = {
    "REMOTE HOST IDENTIFICATION HAS CHANGED": (
        "shows another host key than before: ask whoever runs it before you go on"
    ),
    "Host key verification failed|No \\S+ host key is known": (
        "has a host key that is not known here: run `{by_hand}` once and compare it"
    ),
    "Permission denied|Too many authentication failures|no mutual signature": (
        "does not let you in: `{by_hand}` has to work without a question (a key in an agent, or sshkey=)"
    ),
    "Could not resolve hostname": (
        "has no such name here: is it spelt right, or does it need a jump host (ProxyJump in ~/.ssh/config)?"
    ),
    "Connection refused": "runs no ssh server on that port",
    "[Tt]imed out|No route to host|Network is unreachable|not responding": (
        "cannot be reached from here: a firewall, a machine that is down, or a jump host is needed "
        "(ProxyJump in ~/.ssh/config)"
    ),
    "administratively prohibited|forwarding disabled|not allow": (
        "forbids forwarding: ask for AllowTcpForwarding there"
    ),
    "[Bb]ad configuration option|unknown option|usage: ssh": (
        "cannot be asked: this ssh does not know one of the options"
    ),
}


def why(where: Server, code: int | None, said: str) -> str:
    """Return in one sentence why ssh failed, with its own words."""
    words = " / ".join(line.strip() for line in said.splitlines() if line.strip(" @\t\r"))[-600:]
    own = f" (ssh says: {words})" if words else f" (ssh ended with code {code} and says nothing)"
    for pattern, meaning in _MEANINGS.items():
        if re.search(pattern, said):
            return f"{where.destination} {meaning.format(by_hand=where.by_hand)}{own}"
    works = f"does `{where.by_hand}` work without a question?"
    if code is None:
        return f"{where.destination} did not answer in time{own if words else ''}: {works}"
    if code < 0:
        return f"ssh to {where.destination} was ended by signal {-code}"
    return f"ssh to {where.destination} failed{own}: {works}"


def refused(said: str) -> str:
    """Return what ssh said of connections that the other side could not make for us, or nothing."""
    lines = re.findall(r"open failed: (.*)", said)
    return "; ".join(dict.fromkeys(line.strip() for line in lines))[-300:]
