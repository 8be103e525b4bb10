"""How processes ended, told from what they wrote."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.wire.lastwords import SILENT, cause_of, for_people

PRELUDE = """
import ctypes, os, signal, sys, time
from hpcremote.engine.lastwords import LastWords
words = LastWords(2)
words.install()
"""


def err_of(body):
    command = [sys.executable, "-c", PRELUDE + body]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stderr


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("import faulthandler; faulthandler._sigsegv()", "segmentation fault (SIGSEGV)"),
        ("ctypes.string_at(0)", "segmentation fault (SIGSEGV)"),
        ("ctypes.CDLL(None).abort()", "aborted (SIGABRT)"),
        ("os.kill(os.getpid(), signal.SIGBUS)", "bus error (SIGBUS)"),
        ("os._exit(3)", "os._exit(3)"),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", "terminated by SIGTERM"),
        ("os.kill(os.getpid(), signal.SIGKILL); time.sleep(30)", SILENT),
        ("print('some output', file=sys.stderr); os.kill(os.getpid(), signal.SIGKILL)", SILENT),
        ("sys.exit(0)", "it ended by itself (sys.exit, or the end of its program)"),
        ("words.say('lost its controller'); sys.exit(0)", "lost its controller"),
        ("words.uninstall(); os._exit(3)", SILENT),
    ],
)
def test_cause(body, cause):
    assert cause_of(err_of(body)) == cause


def test_sigterm_ends_a_process_that_is_stuck_in_c():
    body = """
import threading
threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
ctypes.PyDLL(None).usleep(200_000)  # holds the GIL
ctypes.CDLL(None).pause()
"""
    assert cause_of(err_of(body)) == "terminated by SIGTERM"


def test_children_of_the_user_end_on_their_own_account():
    body = """
for how in ("os._exit(4)", "os.kill(os.getpid(), signal.SIGTERM)", "ctypes.string_at(0)"):
    child = os.fork()
    if child == 0:
        exec(how)
        time.sleep(30)
    print(os.waitpid(child, 0)[1] != 0, file=sys.stderr, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    text = err_of(body)
    assert text == "True\nTrue\nTrue\n"
    assert cause_of(text) == SILENT


def test_reports_further_up_are_output_like_any_other():
    text = err_of("os._exit(3)")
    assert cause_of(text + "later output\n") == SILENT
    assert for_people("a\n" + text.lstrip("\n") + "b") == "a\nb"


@given(st.text())
def test_any_text_has_a_cause(text):
    assert cause_of(text)


CRASH = """
import threading
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
source = "def crash():\\n  ctypes.string_at(0)"
exec(compile(source, "users.py", "exec"))
ours = compile("crash()", "/somewhere/hpcremote/engine/operations.py", "exec")
print("written before", file=sys.stderr)
"""


def test_of_a_crash_the_users_frames_are_shown_and_nothing_else():
    lines = for_people(err_of(CRASH + "exec(ours)")).splitlines()
    assert lines[:2] == ["written before", "Fatal Python error: Segmentation fault"]
    assert lines[2] == "Stack (most recent call first):"
    assert lines[-1] == '  File "users.py", line 2 in crash'
    assert not any("operations" in line or "Thread" in line or "Extension" in line for line in lines)


def test_a_process_that_was_terminated_shows_where_it_was():
    body = CRASH + 'source = "def stay():\\n  os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"\n'
    body += 'exec(compile(source, "users.py", "exec"))\n'
    text = err_of(body + 'exec(compile("stay()", "/x/hpcremote/engine/source.py", "exec"))')
    assert for_people(text).splitlines()[-2:] == [
        "Stack (most recent call first):",
        '  File "users.py", line 2 in stay',
    ]
    waits = "os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)"
    idle = f"exec(compile({waits!r}, '/x/hpcremote/net/wait.py', 'exec'))"
    assert for_people(err_of(CRASH + idle)) == "written before\n"


def test_a_report_with_a_long_list_of_modules_is_told_all_the_same():
    text = err_of("ctypes.string_at(0)") + "Extension modules: " + ", ".join(["numpy.core"] * 2000) + "\n"
    assert cause_of(text) == "segmentation fault (SIGSEGV)"
    assert "numpy" not in for_people(text)


OPEN_MPI = """[node7:28077] *** Process received signal ***
[node7:28077] Signal: Segmentation fault (11)
[node7:28077] [ 0] /lib/x86_64-linux-gnu/libc.so.6(+0x3c050)[0x7f26f205a050]
[node7:28077] *** End of error message ***
"""


def test_what_open_mpi_writes_after_a_crash_hides_no_cause():
    text = err_of(CRASH + "exec(ours)")
    assert cause_of(text + OPEN_MPI) == "segmentation fault (SIGSEGV)"
    lines = for_people(text + OPEN_MPI).splitlines(keepends=True)
    assert lines[0] == "written before\n"
    assert "".join(lines[1:5]) == OPEN_MPI
    assert lines[5:] == for_people(text).splitlines(keepends=True)[1:]
    assert cause_of(text + OPEN_MPI + "later output\n") == SILENT
    assert cause_of(OPEN_MPI) == SILENT
    assert for_people(OPEN_MPI) == OPEN_MPI


@given(st.text())
def test_any_text_is_shown_as_it_is_or_without_a_report(text):
    assert len(for_people(text)) <= len(text) + len("Stack (most recent call first):\n\n")
