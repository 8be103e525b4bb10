"""SSH between the hosts of a lab: ``ssh node1 hostname`` on any of them, with keys of the lab's own.

On every host /etc/ssh shows our configuration, so ``ssh`` needs neither options nor anything in ``~/.ssh``.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.schedulers.lab.hosts import Host, Hosts

_TEMPLATES = Path(__file__).with_name("templates") / "ssh"
_SSHD = "/usr/sbin/sshd"  # it insists on its full path, as it starts itself again for each connection


class Ssh:
    """An SSH server on each host. It reads the user's start-up files and passes no variables on, as in life.

    Attributes:
        hosts: where they run.
        folder: keys, configuration and logs.
    """

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        self.folder = hosts.path / "ssh"
        shutil.copytree(_TEMPLATES, self.folder / "etc")
        for name in ("host_key", "user_key"):
            key = [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "lab",
                "-f",
                self.folder / "etc" / name,
            ]
            subprocess.run(key, check=True, stdin=subprocess.DEVNULL)
        (self.folder / "etc" / "ssh_known_hosts").write_text(f"lab {self._public('host_key')}\n")
        for host in hosts:
            host.at_boot(self._boot)

    def _public(self, name: str) -> str:
        kind, key, _ = (self.folder / "etc" / f"{name}.pub").read_text().split()
        return f"{kind} {key}"

    def _boot(self, host: Host) -> None:
        host.run(["mount", "--bind", self.folder / "etc", "/etc/ssh"], cwd=Path("/"), check=True)
        host.run([_SSHD, "-E", self.folder / f"{host.name}.log"], cwd=Path("/"), check=True)

    def log(self, lines: int = 20) -> str:
        """Return the last lines of the logs of all servers."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            parts += [f"--- {path.name}", *path.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(parts)
