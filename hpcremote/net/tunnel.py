"""A way to a controller through ``ssh``: watched, and made again when it breaks.

::

    client ──ZeroMQ, CURVE──▶ Unix socket in a private folder ══ssh══▶ controller's TCP port, from the server
                                   ▲ made again when ssh has ended
    we hold ssh's standard input: when that closes, however we end, ssh ends, and what it runs there as well

One ``ssh`` does everything, so that a user is asked for a password once: it prints the connection files,
stays, and is then told to forward. The sockets keep their names when another one takes its place. The keys of
the cluster come by its output and are in no argument and no file; a tunnel adds nothing to what they protect.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from hpcremote import connection as connections
from hpcremote import files
from hpcremote.connection import Connection
from hpcremote.errors import ClusterNotFound, NotConnected
from hpcremote.net import sshwords
from hpcremote.net.sshwords import Listed, Server

#: Where the command is named, as in "ssh -F other_config".
COMMAND = "HPCREMOTE_SSH"
#: Seconds for a first connection, during which a user may be asked, and for one that is made again.
FIRST, AGAIN = 60.0, 20.0
#: Pauses between attempts to make it again, in seconds; the last one is repeated.
PAUSES = (0.2, 1.0, 2.0, 5.0, 10.0)
#: How long an ssh that holds may take to do what it is told.
_ORDER = 10.0
#: How long one may take to end once nothing holds it.
_END = 3.0
_FOLDERS = "tun."
#: Ctrl-C in the terminal is for whoever uses the tunnel.
_DEAF = ("sh", "-c", 'trap "" INT; exec "$@"', "sh")


def server_of(text: str, key: str = "", command: str | Sequence[str] = ()) -> Server:
    """Return the server that *text* names; the ssh command is *command*, ``$HPCREMOTE_SSH`` or ``ssh``.

    Raises:
        ConfigError: it names none.
    """
    return sshwords.server(text, os.path.expanduser(key), command or os.environ.get(COMMAND, ""))


class _Holder:
    """The ssh that holds the connection."""

    def __init__(self, where: Server, folder: Path, *, ask: bool, patience: float) -> None:
        """Start it.

        Raises:
            NotConnected: there is no ssh here.
        """
        self._where = where
        self._patience = patience
        self._control = str(folder / "ctl")
        self._errors = folder / "ssh.log"
        Path(self._control).unlink(missing_ok=True)
        words = sshwords.stay(where, self._control, ask=ask, patience=patience)
        if shutil.which(words[0]) is None:
            raise NotConnected(
                f"there is no program {words[0]!r} here, which is needed to reach {where.destination}"
            )
        with open(
            os.open(self._errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb"
        ) as log:
            self._ssh = subprocess.Popen(
                [*_DEAF, *words] if ask else words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=not ask,  # with a terminal of its own it could not ask at ours
            )

    def talk(self, script: str) -> str:
        """Have the other side run *script*; return what that prints.

        Raises:
            NotConnected: ssh fails, with its words, or it takes too long.
        """
        deadline = time.monotonic() + self._patience
        assert self._ssh.stdin is not None  # noqa: S101 - for the type checker
        assert self._ssh.stdout is not None  # noqa: S101
        with contextlib.suppress(BrokenPipeError):  # it has ended: the end of its output says so
            self._ssh.stdin.write(script.encode())
            self._ssh.stdin.flush()
        out = self._ssh.stdout.fileno()
        readable = select.poll()
        readable.register(out, select.POLLIN)
        said = b""
        while not sshwords.is_whole(said.decode(errors="replace")):
            left = deadline - time.monotonic()
            if left <= 0 or not readable.poll(left * 1000):
                raise NotConnected(sshwords.why(self._where, None, self.errors))
            piece = os.read(out, 65536)
            if not piece:
                raise NotConnected(sshwords.why(self._where, self._ssh.wait(_ORDER), self.errors))
            said += piece
        return said.decode(errors="replace")

    @property
    def errors(self) -> str:
        """What ssh has complained of."""
        try:
            return self._errors.read_text(errors="replace")
        except OSError:
            return ""

    def forward(self, ways: Sequence[tuple[str, str]]) -> None:
        """Have sockets forwarded.

        Raises:
            NotConnected: it will not.
        """
        for socket, _ in ways:
            Path(socket).unlink(missing_ok=True)
        words = sshwords.forward(self._where, self._control, ways)
        try:
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_ORDER, check=False, text=True
            )
        except subprocess.TimeoutExpired:
            raise NotConnected(sshwords.why(self._where, None, self.errors)) from None
        if done.returncode:
            raise NotConnected(sshwords.why(self._where, done.returncode, done.stderr + self.errors))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._ssh.pid

    def wait(self) -> int:
        """Wait until it has ended."""
        return self._ssh.wait()

    def let_go(self) -> None:
        """Close its standard input: the other side ends, and with it ssh. Waits for nothing."""
        if self._ssh.stdin is not None:
            with contextlib.suppress(OSError):
                self._ssh.stdin.close()

    def end(self) -> None:
        """End it."""
        self.let_go()
        for stop in (self._ssh.terminate, self._ssh.kill):
            try:
                # With a client still connected, ssh waits for it: it is told, after a moment.
                self._ssh.wait(0.2 if stop == self._ssh.terminate else _END)
                break
            except subprocess.TimeoutExpired:
                stop()
        self._ssh.wait()
        if self._ssh.stdout is not None:
            self._ssh.stdout.close()


class Tunnel:
    """A tunnel to one cluster.

    Args:
        where: the ssh server.
        patience: seconds for a first connection.
        told: called with a sentence when the tunnel breaks and when it is back, in a thread of its own.
    """

    def __init__(
        self, where: Server, told: Callable[[str], None] | None = None, *, patience: float = FIRST
    ) -> None:
        self.where = where
        self._patience = patience
        self._told = told or _nobody
        self._pid = os.getpid()
        self._ways: list[tuple[str, str]] = []
        self._closing = threading.Event()
        self._lock = threading.Lock()  # held while ssh is started, so that none is after the end
        self._holder: _Holder | None = None
        self._thread: threading.Thread | None = None
        self._folder = _make_folder()
        atexit.register(self.close)

    def open(
        self,
        profile: str | None = None,
        cluster_id: str | None = None,
        *,
        known: Connection | None = None,
    ) -> Connection:
        """Return how to connect through the tunnel, having made it.

        Args:
            profile: whose cluster to look for on the server (default: as ``connection.find`` has it).
            cluster_id: which of its clusters.
            known: the cluster's connection file, if it is at hand.

        Raises:
            NotConnected: the server cannot be reached, or forwards nothing.
            ClusterNotFound: no such cluster runs there, or it is not said which.
        """
        try:
            script = sshwords.staying() if known else sshwords.listing()
            holder = self._begin(ask=_may_ask(), patience=self._patience)
            there = sshwords.listed(holder.talk(script))
            found = known or _pick(there, self.where, profile, cluster_id)
            connection, self._ways = sshwords.through(found, str(self._folder), there.host)
            holder.forward(self._ways)
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._watch, name="hpcremote-tunnel", daemon=True)
        self._thread.start()
        return connection

    def _begin(self, *, ask: bool, patience: float) -> _Holder:
        with self._lock:
            if self._closing.is_set():
                raise NotConnected("the tunnel was closed")
            self._holder = _Holder(self.where, self._folder, ask=ask, patience=patience)
            return self._holder

    @property
    def pid(self) -> int:
        """The process of the ssh that holds it now."""
        return self._holder.pid if self._holder is not None else 0

    @property
    def refusals(self) -> str:
        """What the server said of connections that it could not make, or nothing."""
        return sshwords.refused(self._holder.errors) if self._holder is not None else ""

    def _watch(self) -> None:
        """Make it again whenever ssh has ended, until it is closed."""
        while self._holder is not None:
            code = self._holder.wait()
            if self._closing.is_set():
                return
            reason = sshwords.why(self.where, code, self._holder.errors)
            self._told(f"the tunnel to {self.where.destination} broke: {reason}; making it again")
            self._holder.end()
            if not self._make_again():
                return
            self._told(f"the tunnel to {self.where.destination} is back")

    def _make_again(self) -> bool:
        """Make it again, however long it takes; return False if it is closed meanwhile."""
        attempt = 0
        last = ""
        while not self._closing.wait(PAUSES[min(attempt, len(PAUSES) - 1)]):
            attempt += 1
            try:
                holder = self._begin(ask=False, patience=AGAIN)
                holder.talk(sshwords.staying())
                holder.forward(self._ways)
                return True
            except NotConnected as error:
                if self._holder is not None:
                    self._holder.end()
                if str(error) != last and not self._closing.is_set():
                    last = str(error)
                    self._told(f"not yet: {last}")
        return False

    def abandon(self) -> None:
        """Let it end soon. For the garbage collector: waits for nothing."""
        if self._pid == os.getpid():
            threading.Thread(target=self.close, name="hpcremote-tunnel-end", daemon=True).start()

    def close(self) -> None:
        """End it; nothing is left. Closed already: fine."""
        if self._pid != os.getpid():
            return
        atexit.unregister(self.close)
        with self._lock:
            self._closing.set()
        if self._holder is not None:
            self._holder.end()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_ORDER)
        shutil.rmtree(self._folder, ignore_errors=True)


def _nobody(_text: str) -> None:
    """Nobody is told."""


def _may_ask() -> bool:
    try:
        return sys.stdin.isatty() and threading.current_thread() is threading.main_thread()
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _pick(there: Listed, where: Server, profile: str | None, cluster_id: str | None) -> Connection:
    living = [one for _, one, alive in there.found if alive is not False]
    found = connections.choose(living, profile, cluster_id)
    if found is not None:
        return found
    what = f"cluster {cluster_id!r}" if cluster_id else "cluster"
    of = f" of profile {profile!r}" if profile else ""
    dead = [f"{path} is of a controller that has ended" for path, _, alive in there.found if alive is False]
    said = "; ".join([*there.wrong, *dead][:3])
    others = sorted({f"{one.profile}/{one.cluster_id}" for one in living})
    running = f"; running there: {', '.join(others)}" if others else ""
    raise ClusterNotFound(
        f"no {what}{of} runs on {where.destination}, as far as its files say"
        f" ($HPCREMOTE_DIR or ~/.hpcremote there){f': {said}' if said else ''}{running}"
    )


def _make_folder() -> Path:
    """Return a private folder for sockets, having removed those of processes that have ended."""
    top = files.runtime_dir()
    for path in top.glob(f"{_FOLDERS}*"):
        pid, _, rest = path.name.removeprefix(_FOLDERS).partition(".")
        started = rest.partition(".")[0]
        if not pid.isdigit() or str(files.process_start(int(pid))) != started:
            shutil.rmtree(path, ignore_errors=True)
    mine = os.getpid()
    name = f"{_FOLDERS}{mine}.{files.process_start(mine)}.{os.urandom(3).hex()}"
    return files.private_dir(top / name)
