"""A list of hosts and how many engines each takes; what is said to them by ssh. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hpcremote.errors import LaunchError
from hpcremote.launch import text

_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9_][\w.@-]*)(?::(?P<slots>\d+))?")


class Host(NamedTuple):
    """A host, and a number of engines: how many it may take, or how many it is given."""

    name: str
    number: int


def parse(entries: Sequence[str]) -> list[Host]:
    """Return the hosts that a profile's ``hosts`` names: ``node1``, ``node2:4``.

    Raises:
        LaunchError: an entry is wrong, or a host is there twice.
    """
    found: dict[str, int] = {}
    for entry in entries:
        match = _ENTRY.fullmatch(entry.strip())
        slots = int(match["slots"] or 1) if match else 0
        if match is None or slots < 1:
            raise LaunchError(f"hosts: {entry!r} is neither a host's name nor name:slots, as in node2:4")
        if match["name"] in found:
            raise LaunchError(
                f"hosts: {match['name']} is there twice: write its slots behind it, as in name:2"
            )
        found[match["name"]] = slots
    return [Host(*one) for one in found.items()]


def deal(entries: Sequence[str], n: int) -> list[Host]:
    """Return which of the hosts get how many of *n* engines: each is filled before the next one.

    Raises:
        LaunchError: they do not take so many.
    """
    found = parse(entries)
    if n > (room := sum(host.number for host in found)):
        listed = ", ".join(f"{host.name}:{host.number}" for host in found)
        raise LaunchError(
            f"{n} engines are too many for hosts: {listed} ({room} slots): start fewer, or raise the slots"
        )
    dealt = []
    for host in found:
        if n > 0:
            dealt.append(Host(host.name, min(n, host.number)))
            n -= host.number
    return dealt


def values(dealt: Sequence[Host], command: Sequence[str]) -> dict[str, text.Value]:
    """Return what a launcher's lines may name of hosts and of the ssh command; unset without hosts."""
    if not dealt:
        return dict.fromkeys(("hosts", "ssh", "ssh_args", "ssh_command"))
    return {
        "hosts": ",".join(f"{host.name}:{host.number}" for host in dealt),
        "ssh": command[0],
        "ssh_args": list(command[1:]) or None,
        "ssh_command": " ".join(command),
    }


def starting(host: Host, words: Sequence[str], env: Mapping[str, str], cwd: str) -> str:
    """Return the shell script that runs *words* on a host as often as it has engines, and waits for them."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())]
    lines = [f"cd {shlex.quote(cwd)} || exit 1", *exports]
    lines += [f"{shlex.join(words)} </dev/null &"] * host.number
    return "\n".join([*lines, "wait", ""])


def running(words: Sequence[str], env: Mapping[str, str]) -> str:
    """Return the shell script that runs *words* on a host, its complaints among what it prints."""
    exports = [f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items())]
    return "\n".join([*exports, f"{shlex.join(words)} </dev/null 2>&1", ""])


#: Ends what carries a mark. It is given the mark, and a host and process id to spare.
_END = """\
left() {
  for f in $(grep -lazx @MARK'\\(\\.[0-9]*\\)*' /proc/[0-9]*/environ 2>/dev/null); do
    p=${f#/proc/}; p=${p%/environ}
    [ "$p" = $$ ] || { [ "$p" = @PID ] && [ "$(uname -n)" = @HOST ]; } || @OTHERS || echo "$p"
  done
}
for s in TERM TERM KILL; do
  p=$(left); [ -n "$p" ] || break
  kill -$s $p 2>/dev/null
  i=0; while [ $i -lt 20 ] && [ -n "$(left)" ]; do i=$((i+1)); sleep 0.1; done
done
echo "hpcremote-left" $(left)
"""


def ending(mark: str, host: str, pid: int, only: Sequence[tuple[str, int]] = ()) -> str:
    """Return the shell script that ends what carries *mark* (a variable), and prints what would not end.

    The mark of a set begins with that of its cluster: ``mark.2``. With *only*, hosts and process ids, nothing
    else ends; the first line printed is the host's name then.
    """
    chosen = shlex.quote(" ".join(["", *(f"{name}:{one}" for name, one in only), ""]))
    others = f'case {chosen} in *" $(uname -n):$p "*) false;; esac' if only else "false"
    script = ("uname -n\n" if only else "") + _END.replace("@OTHERS", others)
    script = script.replace("@MARK", shlex.quote(mark.replace(".", r"\."))).replace("@PID", str(pid))
    return script.replace("@HOST", shlex.quote(host))


#: Says what is missing on a host; the last line begins with "hpcremote-ok" if nothing is.
_LOOK = """\
cd @CWD 2>/dev/null || { echo "hpcremote-no the working directory "@CWD" is not there"; exit; }
[ -d @FOLDER ] || { echo "hpcremote-no it does not see "@FOLDER": HPCREMOTE_DIR has to be on a file system that all hosts share"; exit; }
command -v @PYTHON >/dev/null 2>&1 || { echo "hpcremote-no there is no Python at "@PYTHON" (python: in the profile)"; exit; }
@EXPORT
v=$(@PYTHON -c 'from hpcremote._version import __version__; print(__version__)' 2>&1) || {
  echo "hpcremote-no hpcremote is not installed for "@PYTHON" ($(echo "$v" | tail -n 1))"; exit; }
echo "hpcremote-ok $v"
"""  # noqa: E501 - lines of the script


def looking(python: str, folder: str, cwd: str, env: Mapping[str, str]) -> str:
    """Return the shell script that says whether engines can start on a host."""
    script = _LOOK
    exports = "\n".join(f"export {name}={shlex.quote(value)}" for name, value in sorted(env.items()))
    for name, value in (("CWD", cwd), ("FOLDER", folder), ("PYTHON", python)):
        script = script.replace(f"@{name}", shlex.quote(value))
    return script.replace("@EXPORT", exports)


def seen(said: str, version: str) -> str:
    """Return what is wrong with a host that said this, or nothing."""
    for line in reversed(said.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "hpcremote-no":
            return rest
        if word == "hpcremote-ok":
            return "" if rest == version else f"hpcremote {rest} is installed there, and {version} here"
    return f"its shell did not do as told: {said[-200:].strip() or 'it said nothing'}"
