"""Capturing what a process writes. In processes of their own: this one's output is pytest's."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap

import pytest


def run(tmp_path, body):
    """Run *body* with ``capture`` in place; return what it says to ``say``, and what escaped the capture."""
    script = (
        "import ctypes, os, sys, threading, subprocess\n"
        "from hpcremote.engine.output import Capture\n"
        "import hpcremote.engine.output as module\n"
        f"capture = Capture({str(tmp_path)!r}, 'uid1')\n"
        "libc = ctypes.CDLL(None)\n"
        "def say(*what): os.write(capture.original_out, (' '.join(map(repr, what)) + '\\n').encode())\n"
        + textwrap.dedent(body)
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_everybody_s_output_is_collected(tmp_path):
    lines = run(
        tmp_path,
        """
        print("from print"); print("to err", file=sys.stderr)
        libc.printf(b"from C\\n")
        subprocess.run(["sh", "-c", "echo child; echo child err >&2"])
        os.system("echo shell")
        capture.flush()
        say(*capture.collect())
        say(*capture.collect())
        """,
    )
    assert lines[0] == repr("from print\nfrom C\nchild\nshell\n") + " " + repr("to err\nchild err\n")
    assert lines[1] == "'' ''"


def test_what_has_no_newline_comes_with_the_flush(tmp_path):
    lines = run(
        tmp_path,
        """
        print("a", end=""); libc.printf(b"b")
        say(capture.collect()[0]); capture.flush(); say(capture.collect()[0])
        """,
    )
    assert lines == ["''", "'ab'"]


def test_lines_are_there_at_once(tmp_path):
    lines = run(
        tmp_path,
        """
        libc.printf(b"C line\\n"); print("py line")
        say(capture.collect()[0])
        """,
    )
    assert lines == [repr("C line\npy line\n")]


def test_mark_begins_anew(tmp_path):
    assert run(tmp_path, "print('before'); capture.mark(); print('after'); say(capture.collect()[0])") == [
        repr("after\n")
    ]


def test_characters_are_never_split(tmp_path):
    lines = run(
        tmp_path,
        """
        text = "aé€😀" * 5
        os.write(1, text.encode())
        got = ""
        while True:
            piece = capture.collect(1)[0]
            got += piece
            if os.fstat(1).st_size == capture._out.at: break
        say(got == text)
        os.write(1, b"ok \\xff\\n"); print("\\ud800")
        say(capture.collect()[0])
        """,
    )
    assert lines == ["True", repr("ok \\xff\n\\ud800\n")]


def test_limit(tmp_path):
    assert run(tmp_path, "os.write(1, b'abcdef'); say(capture.collect(4)[0], capture.collect(4)[0])") == [
        "'abcd' 'ef'"
    ]


def test_another_thread_collects_while_c_code_prints(tmp_path):
    lines = run(
        tmp_path,
        """
        got = []
        done = threading.Event()
        def reader():
            while not done.is_set():
                got.append(capture.collect()[0])
        thread = threading.Thread(target=reader); thread.start()
        for i in range(20000): print(i)
        done.set(); thread.join()
        capture.flush(); got.append(capture.collect()[0])
        say("".join(got) == "".join(f"{i}\\n" for i in range(20000)))
        """,
    )
    assert lines == ["True"]


def test_space_on_disk_stays_flat(tmp_path):
    lines = run(
        tmp_path,
        """
        block = b"x" * (1 << 20)
        for _ in range(60):
            os.write(1, block)
            assert len(capture.collect()[0]) == len(block)
        usage = os.stat(capture.out_path)
        say(usage.st_size == 60 << 20, usage.st_blocks * 512 < (20 << 20))
        os.write(1, b"the end")
        say(capture.collect()[0], capture._out.tail(7))
        """,
    )
    assert lines == ["True True", "'the end' 'the end'"]


def test_tail_is_of_standard_error(tmp_path):
    assert run(
        tmp_path, "print('x' * 100 + 'last', file=sys.stderr); capture.collect(); say(capture.tail(5))"
    ) == [repr("last\n")]


def test_files_are_private_and_named_by_uid(tmp_path):
    modes = run(
        tmp_path, "say(os.stat(capture.err_path).st_mode, os.stat(capture.out_path).st_mode, os.listdir())"
    )
    assert [stat.S_IMODE(int(mode)) for mode in modes[0].split()[:2]] == [0o600, 0o600]
    assert sorted(os.listdir(tmp_path)) == ["uid1.err", "uid1.out"]


def test_close_restores_and_removes(tmp_path):
    lines = run(tmp_path, "print('inside'); capture.close(); print('outside')")
    assert lines == ["outside"]
    assert os.listdir(tmp_path) == []


def test_a_user_who_closes_or_replaces_stdout_harms_nobody(tmp_path):
    lines = run(
        tmp_path,
        """
        import io, contextlib
        with contextlib.redirect_stdout(io.StringIO()): print("not for us")
        sys.stdout.close()
        libc.printf(b"C\\n")
        capture.flush(); say(capture.collect()[0])
        """,
    )
    assert lines == [repr("C\n")]


def test_quiet_calls_cost_little(tmp_path):
    lines = run(
        tmp_path,
        """
        import timeit
        best = min(timeit.repeat(lambda: (capture.flush(), capture.collect()), number=1000, repeat=5))
        os.write(capture.original_out, str(best * 1000).encode())
        """,
    )
    assert float(lines[0]) < 50  # microseconds; about 3 on a quiet machine


def test_a_directory_that_is_not_there(tmp_path):
    script = "from hpcremote.engine.output import Capture; Capture('/nonexistent/dir', 'u')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "FileNotFoundError" in done.stderr


@pytest.mark.parametrize("stream", ["out", "err"])
def test_an_existing_file_is_not_overwritten(tmp_path, stream):
    (tmp_path / f"u.{stream}").write_text("mine")
    script = f"from hpcremote.engine.output import Capture; Capture({str(tmp_path)!r}, 'u')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert "FileExistsError" in done.stderr
    assert (tmp_path / f"u.{stream}").read_text() == "mine"


def test_of_too_much_the_beginning_and_the_end_are_kept(tmp_path):
    assert run(
        tmp_path,
        """
        capture.begin(1000)
        os.write(1, b"a" * 5000 + b"the end")
        say(capture.collect(600)[0].count("a"), capture.collect(600)[0].count("a"), *capture.collect(600))
        say(capture.end()[0].replace("a" * 1993, "A"), capture.end()[1])
        capture.begin(1000); os.write(1, b"next"); say(*capture.collect(), *capture.end())
        """,
    ) == [
        "600 400 '' ''",
        repr("\n... 2007 bytes left out (see output_limit in the profile) ...\nAthe end") + " ''",
        "'next' '' '' ''",
    ]
