"""Users of a lab's hosts: with a profile at the shell, and at a Python prompt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpcremote import files
from tests.integration.support import eventually
from tests.schedulers.lab.hosts import Host, Hosts

#: Seconds that a start, or a stop, may take on a busy machine.
PATIENCE = 100.0

_PROMPT = """
import json, os, sys, time
import hpcremote

def fate(call):
    "What became of a call: its results, or for each engine the error's name and words."
    try:
        return call.get(90)
    except hpcremote.CompositeError as error:
        return [f"{type(one).__name__}: {one}" for one in error.errors]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]

names = {"hpcremote": hpcremote, "os": os, "time": time, "fate": fate}
for line in sys.stdin:
    try:
        said = eval(line, names)
    except SyntaxError:
        try:
            said = exec(line, names)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    print(json.dumps(said), flush=True)
"""


class Prompt:
    """A Python prompt on a host.

    ``prompt("1 + 1")`` gives what comes of a line, as JSON has it; of an error, its name and what it says.
    ``fate(call)`` there gives what became of a call.
    """

    def __init__(self, host: Host, cwd: Path, env: Mapping[str, str]) -> None:
        self._errors = (cwd / f"prompt-{host.name}.log").open("a+")
        words = [sys.executable, "-u", "-c", _PROMPT]
        self._program = host.popen(words, cwd=cwd, env=dict(env), stdin=subprocess.PIPE, stderr=self._errors)

    def tell(self, line: str) -> None:
        """Say a line, which :meth:`hear` has the answer to."""
        assert self._program.stdin is not None
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()

    def hear(self) -> Any:
        """Return what comes of the line that was said first."""
        assert self._program.stdout is not None
        said = self._program.stdout.readline()
        assert said, f"the prompt has ended\n{self.errors()}"
        return json.loads(said)

    def __call__(self, line: str) -> Any:
        self.tell(line)
        return self.hear()

    def errors(self) -> str:
        """Return what it wrote besides."""
        self._errors.seek(0)
        return self._errors.read()

    def close(self) -> None:
        """End it, and its clients with it."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        try:
            self._program.stdin.close()
            self._program.wait(PATIENCE)
        finally:
            self._program.kill_all()
            self._program.wait()
            self._program.stdout.close()
            self._errors.close()

    def __enter__(self) -> Prompt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class User:
    """Somebody at the head with a profile of the name *name*.

    Args:
        hosts: the hosts.
        folder: where the user works.
        name: of the profile.
        keys: what is in the profile.
        env: what the user's shell sets.
    """

    def __init__(
        self, hosts: Hosts, folder: Path, name: str, keys: Mapping[str, Any], env: Mapping[str, str]
    ) -> None:
        self.hosts, self.folder, self.name, self._env = hosts, folder, name, dict(env)
        profile = files.user_dir() / "profiles" / f"{name}.yaml"
        profile.parent.mkdir(exist_ok=True)
        profile.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in keys.items()))

    def hpcremote(self, *words: str, host: Host | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command about this profile."""
        command = [sys.executable, "-m", "hpcremote", words[0], "--profile", self.name, *words[1:]]
        return (host or self.hosts.head).run(command, cwd=self.folder, env=self._env, seconds=PATIENCE)

    def start(self, *options: str, **keys: object) -> str:
        """Start a cluster, with other keys; return what was said."""
        done = self.hpcremote("start", *options, *_settings(keys))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def fail(self, *options: str, **keys: object) -> str:
        """Start a cluster that cannot be started, with other keys; return why."""
        done = self.hpcremote("start", *options, *_settings(keys))
        assert done.returncode != 0, done.stdout
        assert "Traceback" not in done.stderr, done.stderr
        return done.stderr

    def stop(self, *options: str, host: Host | None = None) -> None:
        """End a cluster."""
        done = self.hpcremote("stop", *options, host=host)
        assert done.returncode == 0, done.stdout + done.stderr

    def clear(self) -> None:
        """End all clusters of this profile, however they are."""
        self.stop("--all")

    def prompt(self, host: Host | None = None, **options: Any) -> Prompt:
        """Return a prompt where ``rc`` is a client and ``view`` are all engines."""
        made = Prompt(host or self.hosts.head, self.folder, self._env)
        given = "".join(f", {key}={value!r}" for key, value in options.items())
        try:
            said = made(f"rc = hpcremote.Client(profile={self.name!r}{given}); view = rc[:]")
            assert said is None, said
        except BaseException:
            made.close()
            raise
        return made

    def nothing_left(self) -> None:
        """Wait until nothing of hpcremote runs on any host: nobody tells when a killed job has ended."""
        eventually(lambda: not self.left(), 60, why=lambda: f"processes are left: {self.left()}")

    def left(self) -> list[str]:
        """Return what of hpcremote, or of what starts ranks, runs on the hosts."""
        words = ("-m hpcremote", "hydra_pmi_proxy", "prted", "srun")
        return [f"{host.name}: {one}" for host in self.hosts for word in words for one in host.commands(word)]


def _settings(keys: Mapping[str, object]) -> list[str]:
    return [word for key, value in keys.items() for word in ("--set", f"{key}={json.dumps(value)}")]
