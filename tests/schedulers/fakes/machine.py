"""A batch system of one machine, in a folder: what the fake commands beside this file share.

::

    qsub job.sh ──submit()──▶ FOLDER/7/  job.json  script      what was asked for
                                 │       began                 it runs
                                 ▼       told                  "cancel", "walltime", "memory": it is to end
                              keep(7)    ended                 how, as JSON

The keeper is a process of its own: it waits in the queue, runs the script, and ends all of its processes.

The folder is named by FAKE_BATCH. While it has a file ``closed``, jobs stay in the queue, for the reason that
stands in there. The commands speak the language of their scheduler; this file knows nothing of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

MARK = "FAKE_BATCH_JOB"
QUEUES = ("batch", "debug")
_TICK = 0.02
#: Seconds between SIGTERM and SIGKILL.
_KILL_WAIT = 2.0


def folder() -> Path:
    return Path(os.environ["FAKE_BATCH"])


class Job:
    def __init__(self, number: int | str) -> None:
        self.number = int(number)
        self.path = folder() / str(self.number)

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "job.json").read_text()))

    @property
    def exists(self) -> bool:
        return (self.path / "job.json").exists()

    @property
    def state(self) -> str:
        if (self.path / "ended").exists():
            return "ended"
        return "running" if (self.path / "began").exists() else "queued"

    @property
    def end(self) -> dict[str, Any]:
        """``how`` ("exit" or what was told), ``code`` as Popen has it, None if it never began."""
        return dict(json.loads((self.path / "ended").read_text()))

    def tell(self, what: str) -> None:
        _write(self.path / "told", what)


def reason() -> str:
    closed = folder() / "closed"
    return closed.read_text().strip() if closed.exists() else "no reason given"


def submit(script: str, environment: dict[str, str], **facts: Any) -> Job:
    """Take a job; ``{id}`` in the values of *environment* stands for its number."""
    number = os.getpid()  # another one in every folder: who watches several never mixes them up
    while True:
        try:
            (folder() / str(number)).mkdir(parents=True)
            break
        except FileExistsError:
            number += 1
    job = Job(number)
    (job.path / "script").write_text(script)
    filled = {name: value.format(id=number) for name, value in environment.items()}
    _write(job.path / "job.json", json.dumps({**facts, "environment": filled}))
    subprocess.Popen(
        [sys.executable, __file__, str(number)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return job


def fail(words: str, code: int = 1) -> NoReturn:
    print(words, file=sys.stderr)
    sys.exit(code)


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


# ---------------------------------------------------------------- the keeper


def keep(job: Job) -> None:
    """Hold a job in the queue, run it, and end it."""
    told = job.path / "told"
    while (folder() / "closed").exists() and not told.exists():
        time.sleep(_TICK)
    if told.exists():
        _write(job.path / "ended", json.dumps({"how": told.read_text(), "code": None}))
        return
    facts = job.facts
    env = {**os.environ, **facts["environment"], MARK: str(job.path)}
    with open(facts.get("output") or job.path / "output", "ab") as output:
        process = subprocess.Popen(
            ["/bin/bash", str(job.path / "script")],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )
    _write(job.path / "began", "")
    while process.poll() is None and not told.exists():
        time.sleep(_TICK)
    how = "exit" if process.poll() is not None else told.read_text()
    _end_all(job, process)
    _write(job.path / "ended", json.dumps({"how": how, "code": process.returncode}))


def _end_all(job: Job, process: subprocess.Popen[bytes]) -> None:
    """End all processes of a job, wherever they have gone: no scheduler leaves any."""
    deadline = time.monotonic() + _KILL_WAIT
    number = signal.SIGTERM
    while pids := _marked(f"{MARK}={job.path}".encode()):
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(_TICK)
        time.sleep(_TICK)
        number = signal.SIGKILL if time.monotonic() > deadline else signal.SIGTERM
    process.wait()


def _marked(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    keep(Job(sys.argv[1]))
