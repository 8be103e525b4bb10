"""Stacks of real processes, which hold the GIL in C code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hpcremote import files
from hpcremote.agent import look
from hpcremote.ids import new_uid
from hpcremote.net.nodes import Rank
from hpcremote.wire import stacks
from tests.integration.support import eventually

CODE = """
import ctypes, faulthandler, os, sys
from hpcremote.net.nodes import STACKS_SIGNAL
if sys.argv[1]:
    file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_APPEND)
    faulthandler.register(STACKS_SIGNAL, file, all_threads=False, chain=False)
def holds_the_gil(depth):
    if depth:
        return holds_the_gil(depth - 1)
    os.write(1, b"!")
    ctypes.PyDLL(None).read(0, ctypes.create_string_buffer(1), 1)
holds_the_gil(int(sys.argv[2]))
"""


class Stuck:
    def __init__(self, folder: Path, depth: int = 0, *, watched: bool = True) -> None:
        self.uid = new_uid()
        path = folder / f"{self.uid}.stacks"
        words = [sys.executable, "-c", CODE, str(path) if watched else "", str(depth)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        assert self.process.stdout.read(1) == b"!"
        pid = self.process.pid
        self.rank = Rank(self.uid, pid, files.process_start(pid) or 0, str(folder))

    def end(self) -> int:
        """Let it go on, to its end, and return its exit status."""
        self.process.communicate(b"x", timeout=20)
        return self.process.returncode


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Stuck]]:
    made: list[Stuck] = []
    yield made
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate(timeout=20)


def test_the_stack_of_one_that_holds_the_gil(tmp_path, started):
    one, other = Stuck(tmp_path), Stuck(tmp_path, 3)
    started += [one, other]
    for _ in range(3):  # again and again: each look begins with an empty file
        seen = look.look([one.rank, other.rank], 10.0)
        assert [len(stacks.parse(seen[each.uid])[0].frames) for each in (one, other)] == [2, 5]
        assert stacks.parse(seen[one.uid])[0].frames[-1].function == "holds_the_gil"
    assert one.end() == other.end() == 0  # and none has come to harm


def test_a_hundred_calls_are_read_to_their_end(tmp_path, started):
    one = Stuck(tmp_path, 95)
    started.append(one)
    for _ in range(20):
        assert len(stacks.parse(look.look([one.rank], 10.0)[one.uid])[0].frames) == 97


def test_between_pending_and_blocked_nothing_is_taken_for_the_end(tmp_path, started, monkeypatch):
    """The kernel is asked in that moment, and its answer comes when a part of the stack is written."""
    one = Stuck(tmp_path, 95)
    started.append(one)
    path = one.rank.file("stacks")
    ask = look._status

    def slow(pid: int) -> look._Status | None:
        early = path.stat().st_size == 0
        status = ask(pid)
        if not early or status is None or not status.busy:
            return status
        eventually(lambda: path.stat().st_size > 0)
        return status._replace(busy=False)

    monkeypatch.setattr(look, "_status", slow)
    for _ in range(20):
        assert len(stacks.parse(look.look([one.rank], 10.0)[one.uid])[0].frames) == 97


def test_one_without_a_handler_is_not_killed(tmp_path, started):
    one = Stuck(tmp_path, watched=False)
    started.append(one)
    assert look.look([one.rank], 10.0) == {one.uid: ""}
    assert one.end() == 0


def test_a_stopped_one_is_not_waited_for(tmp_path, started):
    one = Stuck(tmp_path)
    started.append(one)
    one.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, one.process.pid, os.WSTOPPED)
    assert look.look([one.rank], 60.0) == {one.uid: ""}
    assert look.describe(one.process.pid).startswith("stopped by a signal (T)")
    one.process.send_signal(signal.SIGCONT)
    assert one.end() == 0


def test_memory_is_seen_until_the_process_has_ended(tmp_path, started):
    one = Stuck(tmp_path)
    started.append(one)
    # It is about to sleep and takes no more then.
    eventually(
        lambda: look.memory(one.process.pid) == psutil.Process(one.process.pid).memory_info().rss > 1 << 20
    )
    one.end()
    assert look.memory(one.process.pid) == 0


def test_another_process_with_that_pid_is_left_alone(tmp_path, started):
    one = Stuck(tmp_path)
    started.append(one)
    assert look.look([one.rank._replace(started=one.rank.started - 1)], 10.0) == {one.uid: ""}
    assert (tmp_path / f"{one.uid}.stacks").read_text() == ""


def test_what_the_kernel_says(tmp_path, started):
    one = Stuck(tmp_path)
    started.append(one)
    # It has said that it is there, and is about to sleep.
    eventually(lambda: look.describe(one.process.pid).startswith("sleeping"))
    assert look.state_letter(one.process.pid) == "S"
    one.end()
    assert look.describe(one.process.pid) == "ended"


def test_c_stacks_by_a_tool(tmp_path, started, monkeypatch):
    one = Stuck(tmp_path)
    started.append(one)
    tool = tmp_path / "eu-stack"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look.native(one.process.pid, 5.0).startswith("no C stack: none of py-spy, eu-stack, gdb is on")
    tool.write_text('#!/bin/sh\necho "TID $2:"\necho "#0 read"\necho "a remark"\n')
    tool.chmod(0o700)
    assert look.native(one.process.pid, 20.0) == "#0 read"
    tool.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    assert look.native(one.process.pid, 0.2) == "no C stack: eu-stack wrote nothing within 0.2 s"
