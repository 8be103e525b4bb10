"""``hpcremote run``: a cluster for one program."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from hpcremote import files
from tests.integration.support import PATIENCE, command, eventually, python

PROGRAM = """
import hpcremote, sys
rc = hpcremote.Client()
print(rc.ids, sys.argv[1:], flush=True)
"""


def clusters_left() -> list[Path]:
    return list((files.user_dir() / "clusters").glob("*/*/cluster.json"))


def test_the_program_finds_its_engines_and_gives_its_exit_code(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "sys.exit(7)\n")
    done = command("run", "-n", "2", "-p", "local", str(program), "--flag", "word")
    assert (done.returncode, done.stdout) == (7, "[0, 1] ['--flag', 'word']\n")
    assert "register 2/2" in done.stderr
    assert clusters_left() == []


def test_a_program_that_raises_is_its_own_to_tell(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "rc[1].execute('1 / 0', block=True)\n")
    done = command("run", "-q", "-n", "2", "-p", "local", str(program))
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert "register" not in done.stderr
    assert clusters_left() == []


def test_a_program_that_is_killed_has_the_exit_code_of_a_shell(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert command("run", "-n", "1", "-p", "local", str(program)).returncode == 128 + signal.SIGKILL


def test_a_module_is_run_as_python_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "amodule.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    done = command("run", "-n", "1", "-p", "local", "-m", "amodule", "word")
    assert (done.returncode, done.stdout) == (0, "[0] ['word']\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.py"], "there is no program nowhere.py in "),
        ([], "no program is named: hpcremote run -n 4 program.py, or -m module"),
    ],
)
def test_nothing_is_started_for_no_program(words: list[str], said: str) -> None:
    done = command("run", "-n", "2", "-p", "local", *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"hpcremote: {said}")


def test_told_to_end_it_ends_the_program_and_the_cluster(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM + f"import os, time\nopen({str(pids)!r} + '.new', 'w').write("
        f"' '.join(map(str, [os.getpid(), *rc[:].apply_sync(os.getpid)])))\n"
        f"os.rename({str(pids)!r} + '.new', {str(pids)!r})\ntime.sleep(1000)\n"
    )
    running = python("-m", "hpcremote", "run", "-q", "-n", "2", "-p", "local", str(program))
    try:
        eventually(pids.exists, why="the program did not get to its end")
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE) == 128 + signal.SIGTERM
    finally:
        running.kill()
        running.communicate()
    for pid in pids.read_text().split():
        assert not Path(f"/proc/{pid}").exists() or files.process_start(int(pid)) is None
    assert clusters_left() == []
