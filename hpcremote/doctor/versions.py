"""Which Python and which packages are here, and on another host that is named."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple

from hpcremote._version import __version__
from hpcremote.doctor.finding import Finding, ok, problem, warning
from hpcremote.launch import hosts, job, remote
from hpcremote.profile import Profile

_GROUP = "versions"
PACKAGES = ("hpcremote", "pyzmq", "mpi4py", "msgspec", "cloudpickle")
#: Prints the same for the Python of another host, or of the engines.
CODE = (
    "import json, sys; from importlib import metadata as m\n"
    "from hpcremote._version import __version__ as v\n"
    f"names = {PACKAGES[1:]!r}\n"
    "have = {d.metadata['Name'].lower(): d.version for d in m.distributions() if d.metadata['Name']}\n"
    "print('hpcremote-versions', json.dumps({'python': sys.version.split()[0], 'hpcremote': v,"
    " **{n: have.get(n, '') for n in names}}))\n"
)


class Seen(NamedTuple):
    """The versions here, and there: *host* is empty if nobody asked, *trouble* why it did not answer."""

    here: Mapping[str, str]
    host: str = ""
    there: Mapping[str, str] = {}
    trouble: str = ""


def probe(profile: Profile, host: str = "") -> Seen:
    """Look here, and by ssh on *host* with the profile's Python (default: ours, under the same path)."""
    here = {"python": sys.version.split()[0], "hpcremote": __version__}
    for name in PACKAGES[1:]:
        try:
            here[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            here[name] = ""
    if not host:
        return Seen(here)
    path = {"PYTHONPATH": where} if (where := job.checkout(profile)) else {}
    script = hosts.running([job.python_of(profile), "-c", CODE], path)
    said, trouble = remote.ask(host, remote.command(profile), script)
    return Seen(here, host, *read(said, trouble))


def read(said: str, trouble: str) -> tuple[dict[str, str], str]:
    """Return the versions that a host has printed, or why there are none."""
    for line in said.splitlines():
        word, _, rest = line.partition(" ")
        if word == "hpcremote-versions":
            return json.loads(rest), ""
    last = said.strip().splitlines()[-1:] or ["it printed nothing"]
    return {}, trouble or f"Python or hpcremote does not run there: {last[0]}"


def judge(seen: Seen) -> list[Finding]:
    """Say what it means."""
    found = [ok(_GROUP, "here: " + _shown(seen.here))]
    missing = [name for name in PACKAGES if not seen.here.get(name)]
    if missing:
        found = [problem(_GROUP, f"{', '.join(missing)} not installed", f"pip install {' '.join(missing)}")]
    if not seen.host:
        return found
    if seen.trouble:
        return [
            *found,
            problem(_GROUP, f"{seen.host}: {seen.trouble}", "python: in the profile names another one"),
        ]
    found.append(ok(_GROUP, f"{seen.host}: {_shown(seen.there)}"))
    for name, mine in seen.here.items():
        theirs = seen.there.get(name, "")
        if mine == theirs:
            continue
        if name == "hpcremote" or not theirs:
            text = f"{name} is {mine} here and {theirs or 'not installed'} on {seen.host}"
            found.append(problem(_GROUP, text, "install the same version on both sides"))
        elif name == "python" and mine.split(".")[:2] != theirs.split(".")[:2]:
            text = f"Python is {mine} here and {theirs} on {seen.host}: functions travel as bytecode"
            found.append(warning(_GROUP, text, "use the same minor version on both sides"))
    return found


def _shown(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)
