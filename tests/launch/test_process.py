"""Processes are known for sure and end for sure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpcremote.errors import LaunchError
from hpcremote.ids import new_uid
from hpcremote.launch import process
from hpcremote.launch.process import MARK, Child, Process, of_pid

LIVE = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {LIVE}"
#: Starts a child in a session of its own, as mpiexec does with ranks.
PARENT = f"""
import subprocess, sys
subprocess.Popen([sys.executable, '-c', {LIVE!r}], start_new_session=True)
{LIVE}
"""


@pytest.fixture
def mark():
    return new_uid()


@pytest.fixture
def launch(tmp_path, mark):
    children = []

    def start(code: str, *, ups: int = 1, leash: bool = False) -> Child:
        log = tmp_path / f"{len(children)}.log"
        words = [sys.executable, "-c", code]
        child = Child(words, env={**os.environ, MARK: mark}, cwd=str(tmp_path), log=log, leash=leash)
        children.append(child)
        wait_for(lambda: log.read_text().count("up") == ups)
        return child

    yield start
    for child in children:
        child.drop_leash()
    process.end([child.process for child in children], mark, children, polite=0.0, firm=0.2)
    for child in children:
        child.wait()


def wait_for(done, seconds: float = 10.0) -> None:
    import time

    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def test_a_child_has_a_session_of_its_own(launch):
    child = launch(LIVE)
    assert os.getsid(child.process.pid) == child.process.pid != os.getsid(0)
    assert child.process.alive()
    assert child.exit_code() is None


def test_a_pid_with_another_start_is_another_process(launch):
    child = launch(LIVE)
    other = Process(child.process.pid, (child.process.started or 0) + 1)
    assert not other.alive()
    process.send([other], signal.SIGKILL)
    assert child.process.alive()
    assert not Process(child.process.pid, None).alive()


def test_the_marked_are_found_in_any_session(launch, mark):
    launch(PARENT, ups=2)
    assert len(process.marked(mark)) == 2
    assert process.marked(new_uid()) == []
    assert os.getpid() not in [one.pid for one in process.marked(mark)]


def test_end_reaches_orphans_in_sessions_of_their_own(launch, mark):
    parent = launch(PARENT, ups=2)
    parent.process.alive()
    os.kill(parent.process.pid, signal.SIGKILL)
    parent.wait()
    orphan = process.marked(mark)
    assert len(orphan) == 1
    process.end([parent.process], mark, [parent], polite=0.0)
    assert not orphan[0].alive()
    assert process.marked(mark) == []


def test_end_kills_what_ignores_sigterm(launch, mark):
    child = launch(STUBBORN)
    process.end([child.process], mark, [child], polite=0.0, firm=0.2)
    assert child.exit_code() == -signal.SIGKILL


def test_end_waits_for_what_ends_by_itself(launch, mark):
    child = launch("import time; print('up', flush=True); time.sleep(0.1)")
    process.end([child.process], mark, [child], polite=10.0)
    assert child.exit_code() == 0


def test_the_leash(launch):
    code = "import os; print('up', flush=True); print(repr(os.read(0, 64)), flush=True)"
    left = launch(code, leash=True)
    left.drop_leash()
    left.wait()
    assert left.log.read_text() == "up\nb''\n"
    free = launch(code, leash=True)
    free.release()
    free.wait()
    assert free.log.read_text() == "up\nb'live on\\n'\n"


def test_a_program_or_folder_that_is_not_there(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(LaunchError, match=r"cannot start /no/such: /no/such: No such file"):
        Child(["/no/such"], env={}, cwd=str(tmp_path), log=log, leash=False)
    with pytest.raises(LaunchError, match="the working directory /no/where: No such file"):
        Child([sys.executable], env={}, cwd="/no/where", log=log, leash=False)


def test_a_zombie_does_not_live():
    child = subprocess.Popen([sys.executable, "-c", ""])
    known = of_pid(child.pid)
    wait_for(lambda: not known.alive())
    child.wait()
    assert not known.alive()


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-64, "killed by SIG")],
)
def test_exit_codes_in_words(code, words):
    assert process.how_it_ended(code).startswith(words)


def test_a_log_is_private(launch):
    child = launch(LIVE)
    assert Path(child.log).stat().st_mode & 0o077 == 0
