"""What engines print, in Python, C and child processes: whose it is, when it is seen, and how much of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

import hpcremote
from tests.integration.support import PATIENCE, Notebook, Running, open_gate

pytestmark = pytest.mark.mpi


@pytest.fixture
def gate(tmp_path: Path) -> tuple[str, Callable[[], None]]:
    """A pipe's name, for engines to wait at by opening it, and what lets one of them go on."""
    os.mkfifo(tmp_path / "gate")
    return str(tmp_path / "gate"), lambda: open_gate(tmp_path / "gate")


def run(rc: hpcremote.Client, code: str, engine: int = 0) -> hpcremote.AsyncResult:
    ar = rc[engine].execute(code)
    ar.get(PATIENCE)
    return ar


# ---------------------------------------------------------------- who prints


@pytest.mark.parametrize(
    ("code", "out", "err"),
    [
        ("print('a', 1)", "a 1\n", ""),
        ("print('a', end='')", "a", ""),
        ("import sys; print('a', file=sys.stderr)", "", "a\n"),
        ("import sys; sys.stdout.write('a'); sys.stderr.write('b')", "a", "b"),
        ("import os; os.write(1, b'a'); os.write(2, b'b')", "a", "b"),
        ("import ctypes; ctypes.CDLL(None).puts(b'a')", "a\n", ""),
        ("import ctypes; ctypes.CDLL(None).printf(b'%d', 5)", "5", ""),
        ("import os; status = os.system('echo a; echo b >&2')", "a\n", "b\n"),
        ("import subprocess; subprocess.run(['echo', 'a'])", "a\n", ""),
        ("import sys, subprocess; subprocess.run([sys.executable, '-c', 'print(5)'])", "5\n", ""),
        ("import threading; t = threading.Thread(target=print, args=('a',)); t.start(); t.join()", "a\n", ""),
        ("import warnings; warnings.warn('careful')", "", "<execute 1>:1: UserWarning: careful\n"),
        ("import logging; logging.warning('careful')", "", "WARNING:root:careful\n"),
        ("print('ä語😀')", "ä語😀\n", ""),
        (r"print('\udc80')", "\\udc80\n", ""),
        (r"import os; os.write(1, b'a\xff\xfeb')", "a\\xff\\xfeb", ""),
        (r"print('a\0b\rc')", "a\0b\rc\n", ""),
        ("1 + 1", "", ""),
    ],
)
def test_whoever_prints(rc4: hpcremote.Client, code: str, out: str, err: str) -> None:
    ar = run(rc4, code)
    said = ar.stderr.replace(f"<execute {ar.stderr[9:].partition('>')[0]}>", "<execute 1>")
    if "warn(" in code:
        said = said.splitlines(keepends=True)[0]
    assert (ar.stdout, said) == (out, err)


def test_python_and_c_keep_their_order(rc4: hpcremote.Client) -> None:
    code = "import ctypes\nfor i in range(3):\n  print('py', i)\n  ctypes.CDLL(None).printf(b'c %d\\n', i)"
    assert run(rc4, code).stdout == "".join(f"py {i}\nc {i}\n" for i in range(3))


def test_each_call_and_each_engine_has_its_own(rc4: hpcremote.Client, notebook: Notebook) -> None:
    notebook("""
    def speak(word):
        import sys
        from mpi4py import MPI
        print(word, MPI.COMM_WORLD.rank)
        print(word.upper(), MPI.COMM_WORLD.rank, file=sys.stderr)
    """)
    ars = [rc4[:].apply_async(notebook.speak, f"word{count}") for count in range(20)]
    for count, ar in enumerate(ars):
        ar.get(PATIENCE)
        assert ar.stdout == [f"word{count} {rank}\n" for rank in range(4)]
        assert ar.stderr == [f"WORD{count} {rank}\n" for rank in range(4)]


def test_what_is_printed_between_calls_belongs_to_none(
    rc4: hpcremote.Client, gate: tuple[str, Callable]
) -> None:
    path, go = gate
    run(rc4, f"""
import threading
def later():
    open({path!r}).close()
    print("from behind")
    done.set()
done = threading.Event()
threading.Thread(target=later).start()
""")  # fmt: skip
    assert run(rc4, "print('mine')").stdout == "mine\n"
    go()
    assert run(rc4, "done.wait(30); print('mine')").stdout.endswith("mine\n")
    assert run(rc4, "print('mine')").stdout == "mine\n"


def test_a_call_that_fails_keeps_what_it_printed(rc4: hpcremote.Client) -> None:
    ar = rc4[0].execute("print('so far'); 1/0")
    with pytest.raises(hpcremote.RemoteError):
        ar.get(PATIENCE)
    assert ar.stdout == "so far\n"
    assert ar.metadata.stdout == "so far\n"
    assert ar.metadata["status"] == "error"


def test_nobody_answers_input(rc4: hpcremote.Client) -> None:
    with pytest.raises(hpcremote.RemoteError, match="^EOFError"):
        run(rc4, "input('name? ')")


def test_a_user_who_closes_or_replaces_stdout(rc4: hpcremote.Client) -> None:
    code = (
        "import io, sys, contextlib\nwith contextlib.redirect_stdout(io.StringIO()) as kept: print('inside')"
    )
    assert run(rc4, code).stdout == ""
    assert rc4[0]["kept.getvalue()"] == "inside\n"
    run(rc4, "import sys; former, sys.stdout = sys.stdout, None")
    run(rc4, "sys.stdout = former")
    assert run(rc4, "print('again')").stdout == "again\n"


# ---------------------------------------------------------------- while the call runs


def test_output_is_there_while_the_call_runs(rc4: hpcremote.Client, gate: tuple[str, Callable]) -> None:
    path, go = gate
    code = f"import sys\nprint('first')\nprint('oh', file=sys.stderr)\nopen({path!r}).close()\nprint('last')"
    ar = rc4[2].execute(code)
    assert rc4.link.wait(lambda: (ar.stdout, ar.stderr) == ("first\n", "oh\n"), PATIENCE)
    assert not ar.ready()
    assert ar.metadata.stdout == "first\n"
    go()
    ar.get(PATIENCE)
    assert (ar.stdout, ar.stderr) == ("first\nlast\n", "oh\n")


def test_output_of_c_that_holds_the_gil(rc4: hpcremote.Client) -> None:
    """More than a pipe holds, while no other thread of the engine can run."""
    code = "import ctypes\nlibc = ctypes.PyDLL(None)\nfor i in range(3000): libc.printf(b'%099d\\n', i)"
    out = run(rc4, code).stdout
    assert out == "".join(f"{i:099d}\n" for i in range(3000))


def test_stream_output(
    rc4: hpcremote.Client, gate: tuple[str, Callable], capsys: pytest.CaptureFixture[str]
) -> None:
    path, go = gate
    ar = rc4[1].execute(f"import sys\nprint('first')\nopen({path!r}).close()\nprint('oops', file=sys.stderr)")
    with ar.stream_output():
        assert rc4.link.wait(lambda: ar.stdout == "first\n", PATIENCE)
        assert capsys.readouterr().out == "[stdout:1]\nfirst\n"
        go()
        ar.get(PATIENCE)
    assert capsys.readouterr() == ("", "[stderr:1]\noops\n")


def test_display_outputs(rc4: hpcremote.Client, capsys: pytest.CaptureFixture[str]) -> None:
    ar = rc4[:2].execute("import sys; print('out'); print('err', file=sys.stderr)")
    ar.display_outputs()
    assert capsys.readouterr() == ("[stdout:0]\nout\n[stdout:1]\nout\n", "[stderr:0]\nerr\n[stderr:1]\nerr\n")
    ar.display_outputs(groupby="engine")
    assert capsys.readouterr().out == "[stdout:0]\nout\n[stdout:1]\nout\n"
    ar = rc4[0].execute("print('alone')")
    ar.display_outputs()
    assert capsys.readouterr().out == "alone\n"


# ---------------------------------------------------------------- how much


@pytest.mark.parametrize("limit", [10_000_000, 1000], ids=["default", "small"])
def test_a_flood_is_bounded(start: Callable[..., Running], limit: int) -> None:
    running = start(n=1, profile="mpi", output_limit=limit)
    rc = running.rc
    run(rc, "print('warm')")
    processes = [psutil.Process(), running.controller, running.engines[0]]
    before = [process.memory_info().rss for process in processes]
    ar = rc[0].execute(
        "line = '語' * 333 + '\\n'\nfor i in range(60_000): print(line, end='')\nprint('the end')"
    )
    ar.get(PATIENCE * 2)
    out = ar.stdout
    assert len(out.encode()) <= limit * 1.1 + 2000
    assert out.startswith("語" * 300)
    assert "�" not in out and "\\x" not in out  # no half characters
    grown = [process.memory_info().rss - old for process, old in zip(processes, before, strict=True)]
    print(f"60 MB printed: {len(out)} characters kept, grown by {[size >> 20 for size in grown]} MiB")
    assert max(grown) < 80 << 20
    assert run(rc, "print('after')").stdout == "after\n"


def test_a_flood_leaves_no_large_file(start: Callable[..., Running]) -> None:
    running = start(n=1, profile="mpi")
    folder = Path(running.rc.link.welcome.shm)
    for _ in range(3):
        run(running.rc, "line = 'x' * 999 + '\\n'\nfor i in range(30_000): print(line, end='')")
    used = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    print(f"90 MB printed; {used >> 20} MiB of files left")
    assert used < 40 << 20


def test_large_output_within_the_limit_is_whole(rc4: hpcremote.Client) -> None:
    out = run(rc4, "for i in range(200_000): print(i, 'ä')").stdout
    assert out == "".join(f"{i} ä\n" for i in range(200_000))
