"""Launcher files, and what is said about wrong ones."""

from __future__ import annotations

import pytest

from hpcremote import files
from hpcremote.errors import LauncherError
from hpcremote.launch import catalog
from hpcremote.launch.spec import parse

PLAIN = "about: plain\nmpi: false\nranks: each\ncommand:\n  - $engine\n"
FLAVOURED = """\
about: mpi
mpi: true
ranks: together
program:
  names: [mpiexec]
  version: [$program, --version]
  missing: none
flavours:
  - name: MPICH
    key: mpich
    recognise: 'HYDRA (?P<version>.*)'
    library: 'MPICH (.*)'
    command: [$program, -n $n, $engine]
"""


def test_a_plain_launcher():
    launcher = parse(PLAIN, "plain", "plain.yaml")
    assert launcher.command == ("$engine",)
    assert (launcher.name, launcher.mpi, launcher.ranks, launcher.flavours) == ("plain", False, "each", ())


@pytest.mark.parametrize(
    ("line", "needs"),
    [
        ("culprit: 'task (\\d+)'", "culprit: needs a group (?P<rank>...), or (?P<pid>...) and (?P<host>...)"),
        ("culprit: 'PID (?P<pid>\\d+)'", "culprit: needs a group"),
        ("label: '(\\d+):'", "label: needs a group (?P<rank>...)"),
    ],
)
def test_patterns_that_find_ranks_need_their_groups(line, needs):
    with pytest.raises(LauncherError) as caught:
        parse(f"{PLAIN}{line}\n", "plain", "plain.yaml")
    assert str(caught.value).startswith(f"plain.yaml:6: {needs}")


def test_a_launcher_with_flavours():
    launcher = parse(FLAVOURED, "mpi", "mpi.yaml")
    assert launcher.program is not None
    assert launcher.program.names == ("mpiexec",)
    assert [one.key for one in launcher.flavours] == ["mpich"]
    assert launcher.flavours[0].command == ("$program", "-n $n", "$engine")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PLAIN + "comand: [x]\n", "x.yaml:6: comand: there is no such key; did you mean 'command'?"),
        (PLAIN + "zzz: 1\n", "x.yaml:6: zzz: there is no such key; it can be: about, mpi, ranks"),
        ("about: a\nmpi: true\n", "x.yaml:1: the launcher lacks the key 'ranks'"),
        (PLAIN.replace("false", "maybe"), "x.yaml:2: mpi: is text where true or false is needed"),
        (PLAIN.replace("each", "every"), "x.yaml:3: ranks: is 'every'; it can be: each, together"),
        (
            PLAIN.replace("\n  - $engine", " $engine"),
            "x.yaml:4: command: is text where a list of words is needed",
        ),
        (PLAIN.replace("plain", "[a]"), "x.yaml:1: about: is a list where text is needed"),
        ("- a\n", "x.yaml:1: the launcher is a list where a mapping (key: value) is needed"),
        ("", "x.yaml:1: the launcher is nothing where a mapping (key: value) is needed"),
        ("a: [", "x.yaml:1: not YAML:"),
        (FLAVOURED.replace("(.*)", "(.*"), "x.yaml:12: flavours.0.library: is not a regular expression"),
        (
            FLAVOURED.replace("    key:", "    kee:"),
            "x.yaml:10: flavours.0.kee: there is no such key; did you mean 'key'?",
        ),
        (FLAVOURED + "command: [a]\n", "x.yaml:1: the launcher needs either a command, or flavours"),
        (PLAIN + "hints: 3\n", "x.yaml:6: hints: is a number where a list is needed"),
        (PLAIN + "environment: [A]\n", "x.yaml:6: environment: is a list where names with texts are needed"),
    ],
)
def test_what_is_wrong_is_said_with_file_line_and_key(text, message):
    with pytest.raises(LauncherError) as caught:
        parse(text, "x", "x.yaml")
    assert str(caught.value).startswith(message)


def test_every_shipped_launcher_can_be_loaded():
    names = list(files.available("launchers"))
    assert {"local", "mpiexec"} <= set(names)
    for name in names:
        assert catalog.read(name).name == name


def test_an_unknown_launcher_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path))
    with pytest.raises(LauncherError, match="there is no launcher 'mpiexek'; did you mean 'mpiexec'"):
        catalog.load("mpiexek")
    with pytest.raises(LauncherError, match=r"there is no launcher '\.\./x'; there are: .*local, .*mpiexec"):
        catalog.load("../x")


def test_a_kind_that_there_is_not_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path))
    folder = files.private_dir(tmp_path / "launchers")
    (folder / "mine.yaml").write_text("kind: schedulr\nabout: mine\n")
    with pytest.raises(LauncherError, match="mine.yaml: kind: is 'schedulr'; it can be scheduler"):
        catalog.read("mine")


def test_a_users_own_launcher_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path))
    (tmp_path / "launchers").mkdir()
    (tmp_path / "launchers" / "local.yaml").write_text(PLAIN.replace("plain", "mine"))
    assert catalog.load("local").about == "mine"
    (tmp_path / "launchers" / "local.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(LauncherError, match=r"cannot read .*local\.yaml"):
        catalog.load("local")
