"""The command line: dispatch, errors, exit statuses."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import hpcremote
from hpcremote.cli import exits, main
from hpcremote.errors import AlreadyRunning, ClusterNotFound, LaunchError, ProfileError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))


def test_help_names_every_command(capsys):
    assert main.main(["--help"]) == exits.OK
    said = capsys.readouterr().out
    for command in main.COMMANDS:
        assert f"  {command} " in said


def test_without_a_command_it_is_a_usage_error(capsys):
    assert main.main([]) == exits.USAGE
    assert "usage: hpcremote COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_version(word, capsys):
    assert main.main([word]) == exits.OK
    assert capsys.readouterr().out == f"hpcremote {hpcremote.__version__}\n"


def test_an_unknown_command_names_the_nearest(capsys):
    assert main.main(["strat"]) == exits.USAGE
    assert capsys.readouterr().err == "hpcremote: there is no command 'strat'; did you mean 'start'?\n"


@pytest.mark.parametrize("words", [["-n", "3"], ["--foreground"], ["--dry-run"]])
def test_what_does_not_go_with_resubmit_is_refused(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["start", "--resubmit", *words])
    assert ended.value.code == exits.USAGE
    assert "--resubmit starts the next job of a set, with as many engines" in capsys.readouterr().err


@pytest.mark.parametrize("command", sorted(main.COMMANDS))
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: hpcremote {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["start", "-n", "0"], exits.ERROR, "n is 0: a cluster needs a whole number of engines, at least 1"),
        (["start", "-n", "-2"], exits.ERROR, "n is -2: a cluster needs a whole number of engines"),
        (["start", "--profile", "mpj"], exits.ERROR, "there is no profile 'mpj'; did you mean 'mpi'?"),
        (["start", "--cluster-id", "a/b"], exits.ERROR, "cluster_id 'a/b': has to begin with a letter"),
        (
            ["start", "--set", "launcher=slrum"],
            exits.ERROR,
            "there is no launcher 'slrum'; did you mean 'slurm'?",
        ),
        (["start", "--set", "python=/no/python"], exits.NOT_LAUNCHED, "cannot start /no/python -m hpcremote"),
        (["start", "--set", "working_dir=/no/dir"], exits.NOT_LAUNCHED, "the working directory /no/dir"),
        (
            ["start", "--profile", "mpi", "--set", "mpiexec=/no/mpiexec"],
            exits.NOT_LAUNCHED,
            "mpiexec: /no/mpiexec",
        ),
        (["stop"], exits.NO_CLUSTER, "there is no cluster; hpcremote list shows those there are"),
        (["stop", "-p", "mpi", "-c", "x"], exits.NO_CLUSTER, "there is no cluster 'x' of profile 'mpi'"),
        (["status"], exits.NO_CLUSTER, "there is no cluster"),
        (["logs"], exits.NO_CLUSTER, "there are no logs"),
        (["controller", "-c", "../x"], exits.ERROR, "--cluster-id '../x'"),
        (["profile", "show", "nope"], exits.ERROR, "there is no profile 'nope'"),
        (["profile", "create", "a/b"], exits.ERROR, "'a/b' cannot name a profile"),
        (["profile", "create", "x", "--set", "lancher=1"], exits.ERROR, "lancher"),
    ],
)
def test_bad_input_is_one_sentence_and_a_status(words, code, message, capsys):
    assert main.main(words) == code
    said = capsys.readouterr().err
    assert said.startswith("hpcremote: ")
    assert message in said
    assert "Traceback" not in said


def test_what_argparse_refuses_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["start", "-n", "x"])
    assert ended.value.code == exits.USAGE
    assert "invalid int value: 'x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ClusterNotFound(""), exits.NO_CLUSTER),
        (AlreadyRunning(""), exits.ALREADY_RUNNING),
        (LaunchError(""), exits.NOT_LAUNCHED),
        (ProfileError(""), exits.ERROR),
    ],
)
def test_statuses_of_errors(error, code):
    assert exits.of_error(error) == code


def test_an_unwritable_home_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "file"))
    assert main.main(["start", "-n", "1", "--profile", "local"]) == exits.ERROR
    assert capsys.readouterr().err.count("\n") == 1


def test_it_runs_as_a_module():
    ran = subprocess.run(
        [sys.executable, "-m", "hpcremote", "--version"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    assert ran.stdout == f"hpcremote {hpcremote.__version__}\n"


def test_an_output_that_nobody_reads_is_no_traceback():
    words = f"{sys.executable} -m hpcremote profile show mpi | true; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)
    assert ran.stderr == ""


def test_an_engine_is_started_without_what_it_does_not_need():
    code = (
        "import sys, hpcremote.cli.main as m\n"
        "m.main(['engine', '--file', '/no/engine.json', '--wait', '0'])\n"
        "print(sorted({'yaml', 'argparse', 'subprocess', 'asyncio', 'numpy', 'hpcremote.launch',\n"
        "    'hpcremote.cluster', 'hpcremote.profile', 'hpcremote.client'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "/no/engine.json does not exist" in ran.stderr
    assert ran.stdout == "[]\n"
