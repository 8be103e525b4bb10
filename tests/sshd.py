"""A private ssh server on loopback, with keys and configuration of its own; the user's are left alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.integration.support import eventually

SERVER = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
needs_sshd = pytest.mark.skipif(SERVER is None, reason="needs sshd (apt-get install openssh-server)")

_SERVER = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/id.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
MaxStartups 100
{more}
"""
_CLIENT = """\
Host far far-by-jump jump
  HostName 127.0.0.1
  Port {port}
Host far-by-jump
  ProxyJump jump
Host dead
  HostName 127.0.0.1
  Port 1
Host *
  HostKeyAlias far
  IdentityFile {folder}/id
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  LogLevel ERROR
"""


class Sshd:
    """A server; ``command`` is the ssh that knows it as ``far``, and ``far-by-jump`` by way of ``jump``."""

    def __init__(self, folder: Path, **environment: str) -> None:
        assert SERVER is not None
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        for name in ("host", "id", "stranger"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
            )
        key = (folder / "host.pub").read_text().split()
        (folder / "known").write_text(f"far {key[0]} {key[1]}\n")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        pairs = " ".join(f'{name}="{value}"' for name, value in environment.items())
        more = f"SetEnv {pairs}" if pairs else ""
        (folder / "server").write_text(_SERVER.format(port=self.port, folder=folder, more=more))
        (folder / "config").write_text(_CLIENT.format(port=self.port, folder=folder))
        self.command = f"ssh -F {folder / 'config'}"
        self._log = (folder / "log").open("wb")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it; return when it listens."""
        assert SERVER is not None
        words = [SERVER, "-D", "-e", "-f", str(self.folder / "server")]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log)
        eventually(self._listens, why=f"sshd did not start, see {self.folder / 'log'}")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def sessions(self) -> list[psutil.Process]:
        """The processes that serve connections, and what these run."""
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    def stop(self) -> None:
        """End it, and what serves connections."""
        if self._process is None:
            return
        left = self.sessions()
        self._process.terminate()
        self._process.wait()
        self._process = None
        for one in left:
            try:
                one.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, 10)

    def close(self) -> None:
        """End everything."""
        self.stop()
        self._log.close()
