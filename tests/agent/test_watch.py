from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from hpcremote import files
from hpcremote.agent.watch import Watched, last_words, memory_events
from hpcremote.ids import new_uid
from hpcremote.net.nodes import Rank


@pytest.fixture
def waiting(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", "raise SystemExit(len(input()))"], stdin=subprocess.PIPE
    )
    rank = Rank(new_uid(), process.pid, files.process_start(process.pid) or 0, str(tmp_path))
    yield process, rank
    process.kill()
    process.communicate()


def ended(watched: Watched) -> bool:
    ready = select.poll()
    ready.register(watched.fd, select.POLLIN)
    return bool(ready.poll(20_000))


def test_the_end_of_another_process_is_seen(waiting):
    process, rank = waiting
    watched = Watched(rank)
    assert not watched.has_ended()
    process.communicate(b"abcd\n", timeout=20)
    assert ended(watched)
    assert watched.has_ended()
    # Linux tells it since 6.15; before, nobody but the parent knows.
    assert watched.cause() in ("it ended with exit status 4", "")
    watched.close()
    assert watched.fd == -1


def test_by_which_signal(waiting):
    process, rank = waiting
    watched = Watched(rank)
    process.send_signal(signal.SIGUSR1)
    process.wait(20)
    assert ended(watched)
    assert watched.cause() in ("killed by SIGUSR1", "")
    watched.close()


def test_one_that_has_ended_before(waiting):
    process, rank = waiting
    process.kill()
    process.wait(20)
    watched = Watched(rank)
    assert watched.has_ended()
    watched.close()


def test_last_words_are_read_and_taken_away(tmp_path):
    rank = Rank(new_uid(), 1, 0, str(tmp_path))
    rank.file("out").write_text("step 7\n")
    rank.file("err").write_text("oh\nFatal Python error: Segmentation fault\n\n")
    rank.file("stacks").write_text("")
    cause, output = last_words(rank, "killed by SIGSEGV")
    assert cause == "segmentation fault (SIGSEGV)"
    assert output.startswith("step 7\noh")
    assert list(tmp_path.iterdir()) == []


def test_without_last_words_the_kernel_is_believed(tmp_path):
    rank = Rank(new_uid(), 1, 0, str(tmp_path))
    rank.file("err").write_text("hello\n")
    assert last_words(rank, "killed by SIGUSR1") == ("killed by SIGUSR1", "hello")
    assert last_words(rank, "") == ("", "")  # it never had a file: it ended in MPI_Init


@pytest.mark.parametrize(
    ("groups", "file"),
    [
        ("0::/job/step\n", "job/step/memory.events"),
        ("0::/job/step\n", "memory.events"),
        ("4:memory:/job\n0::/\n", "memory/job/memory.oom_control"),
        ("4:cpu,memory:/host/x\n", "memory/memory.oom_control"),
    ],
)
def test_where_the_kernel_counts_whom_it_killed(tmp_path, groups, file):
    proc, root = tmp_path / "proc" / "7", tmp_path / "cgroup"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_text(groups)
    assert memory_events(7, root, tmp_path / "proc") is None
    (root / file).parent.mkdir(parents=True)
    (root / file).write_text("low 0\noom 1\noom_kill 1\n")
    assert memory_events(7, root, tmp_path / "proc") == root / file


def test_an_end_for_want_of_memory(waiting, tmp_path):
    process, rank = waiting
    watched = Watched(rank)
    watched._events = tmp_path / "memory.events"  # a group that nobody has to be killed in
    watched._events.write_text("oom_kill 3\n")
    watched._killed_before = 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    assert watched.cause().startswith("killed by the kernel: its memory group (cgroup)")
    watched.close()
