from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from hpcremote import files, profile, settings
from hpcremote.errors import ProfileError
from hpcremote.profile import Profile, keys

SHIPPED = [
    "default",
    "flux",
    "htcondor",
    "htcondor-parallel",
    "local",
    "lsf",
    "mpi",
    "pbs",
    "sge",
    "slurm",
    "torque",
]


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user's own profiles."""
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path))
    monkeypatch.setattr(files, "SITE_DIR", tmp_path / "etc")
    monkeypatch.delenv("HPCREMOTE_PROFILE_PATH", raising=False)
    folder = tmp_path / "profiles"
    folder.mkdir()
    return folder


# ---------------------------------------------------------------- keys


def test_every_key_has_a_sentence_and_a_default_of_its_kind() -> None:
    for key in keys():
        assert key.doc.endswith("."), key.name
        assert key.kind in settings._KINDS
        if key.default is not None:
            assert type(key.default).__name__ == key.kind.partition("[")[0], key.name
        assert not key.choices or key.default in key.choices


def test_defaults_are_what_the_keys_say() -> None:
    one = Profile("x")
    assert {key.name: getattr(one, key.name) for key in keys()} == {key.name: key.default for key in keys()}


def test_engines_follow_the_cores_when_n_is_unset() -> None:
    assert Profile("x").engines == min(4, len(os.sched_getaffinity(0)))
    assert Profile("x", n=7).engines == 7


# ---------------------------------------------------------------- shipped


@pytest.mark.parametrize(("name", "launcher"), [("default", "local"), ("local", "local"), ("mpi", "mpiexec")])
def test_shipped_profiles(name: str, launcher: str) -> None:
    one = profile.load(name)
    assert (one.name, one.launcher) == (name, launcher)
    assert one.description
    assert launcher in files.available("launchers")


def test_names_lists_all_and_says_which_are_wrong(mine: Path) -> None:
    (mine / "lab.yaml").write_text("extends: mpi\ndescription: ours\n")
    (mine / "bad.yaml").write_text("launcer: mpiexec\n")
    listed = {one.name: one for one in profile.names()}
    assert list(listed) == sorted([*SHIPPED, "bad", "lab"])
    assert (listed["lab"].path, listed["lab"].description) == (str(mine / "lab.yaml"), "ours")
    assert "key 'launcer' is not known; did you mean 'launcher'?" in listed["bad"].description


# ---------------------------------------------------------------- load


def test_the_child_wins_and_mappings_merge(mine: Path) -> None:
    (mine / "base.yaml").write_text("extends: mpi\nn: 2\nenvironment: {A: 1, B: 2}\nmpiexec_args: [-a, -b]\n")
    (mine / "lab.yaml").write_text("n: 3\nextends: base\nenvironment: {B: 3, C: 4}\nmpiexec_args: [-c]\n")
    one = profile.load("lab")
    assert (one.launcher, one.n, one.mpiexec_args) == ("mpiexec", 3, ("-c",))
    assert one.environment == {"A": "1", "B": "3", "C": "4"}
    assert one.sources["n"] == f"{mine}/lab.yaml:1"
    assert one.sources["launcher"] == f"{files.shipped('profiles')}/mpi.yaml:7"
    assert "port" not in one.sources


def test_overrides_win_and_none_is_not_given() -> None:
    one = profile.load("mpi", {"n": 5, "port": None, "start_timeout": "7.5", "environment": {"A": "1"}})
    assert (one.n, one.port, one.start_timeout, one.environment) == (5, 0, 7.5, {"A": "1"})
    assert one.sources["n"] == "override"
    with pytest.raises(ProfileError, match="^key 'n' has to be at least 1, not 0 engines"):
        profile.load("mpi", {"n": 0})
    with pytest.raises(ProfileError, match="^key 'engins' is not known"):
        profile.load("mpi", {"engins": 2})


def test_lists_and_mappings_may_be_written_out() -> None:
    """As ``--set`` gives them; what is text stays text."""
    given = {"mpiexec_args": "[--bind-to, core]", "environment": "{A: 1}", "controller_job": "{queue: q}"}
    one = profile.load("slurm", {**given, "constraint": "[rack1|rack2]"})
    assert one.mpiexec_args == ("--bind-to", "core")
    assert one.environment == {"A": "1"}
    assert one.controller_job == {"queue": "q"}
    assert one.constraint == "[rack1|rack2]"
    for wrong in ("core", "[core", "{a: b}"):
        with pytest.raises(ProfileError, match="key 'mpiexec_args' has to be a list of words"):
            profile.load("slurm", {"mpiexec_args": wrong})


def test_a_profile_may_extend_the_one_that_it_hides(mine: Path) -> None:
    (mine / "mpi.yaml").write_text("extends: mpi\nn: 2\n")
    one = profile.load("mpi")
    assert (one.launcher, one.n) == ("mpiexec", 2)


def test_a_path_does_as_well_and_may_extend_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: ./b.yaml\n")
    (tmp_path / "b.yaml").write_text("n: 6\n")
    one = profile.load(tmp_path / "a.yaml")
    assert (one.name, one.n) == ("a", 6)
    with pytest.raises(ProfileError, match=f"there is no profile file {tmp_path}/c.yaml"):
        profile.load(f"{tmp_path}/c.yaml")


def test_group_profiles_are_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "lab.yaml").write_text("extends: mpi\nn: 16\n")
    monkeypatch.setenv("HPCREMOTE_PROFILE_PATH", str(tmp_path / "group"))
    assert profile.load("lab").n == 16


def test_circles_are_shown(mine: Path) -> None:
    (mine / "a.yaml").write_text("n: 1\nextends: b\n")
    (mine / "b.yaml").write_text("extends: a\n")
    with pytest.raises(ProfileError, match=r"b.yaml:1: key 'extends' goes in a circle: a → b → a"):
        profile.load("a")
    (mine / "c.yaml").write_text("extends: c\n")
    with pytest.raises(ProfileError, match=r"c.yaml:1: key 'extends' goes in a circle: c → c"):
        profile.load("c")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("extends: mpii\n", "lab.yaml:1: key 'extends': there is no profile 'mpii'; did you mean 'mpi'"),
        ("n: 1\nextends: [mpi]\n", "lab.yaml:2: key 'extends' has to be one name"),
        ("extends: ./no.yaml\n", "there is no profile './no.yaml'"),
        ("mpixec: /bin/mpiexec\n", "lab.yaml:1: key 'mpixec' is not known; did you mean 'mpiexec'?"),
        ("mpi: openmp\n", "one of auto, mpich, openmpi, intel, not 'openmp'; did you mean 'openmpi'?"),
        ("n: 1\nport: 65536\n", "lab.yaml:2: key 'port' has to be at most 65535, not 65536"),
        ("extends: mpi\nn: none\n", "lab.yaml:2: key 'n' has to be a whole number, not 'none'"),
    ],
)
def test_mistakes(mine: Path, text: str, words: str) -> None:
    (mine / "lab.yaml").write_text(text)
    with pytest.raises(ProfileError, match=words):
        profile.load("lab")


def test_no_such_profile(mine: Path) -> None:
    with pytest.raises(
        ProfileError, match=f"there is no profile 'mpi4'; did you mean 'mpi'. .looked in {mine}, "
    ):
        profile.load("mpi4")
    with pytest.raises(ProfileError, match=f"there are: {', '.join(SHIPPED)} "):
        profile.load("zzzz")


# ---------------------------------------------------------------- to_yaml


def test_to_yaml_is_a_profile_that_says_where_values_came_from(mine: Path) -> None:
    (mine / "lab.yaml").write_text(
        "extends: mpi\nenvironment: {A: 'x$$y: #', B: 'true'}\nmpiexec_args: ['a b', '$$']\n"
    )
    one = profile.load("lab", {"n": 3, "controller_timeout": 1234567.5, "working_dir": "/a: b", "shm": False})
    text = one.to_yaml()
    assert f"# {mine}/lab.yaml:2" in text
    assert "n: 3 " in text
    (mine / "again.yaml").write_text(text)
    again = profile.load("again")
    assert dataclasses.replace(again, name="lab") == one


@pytest.mark.parametrize("word", ["null", "on", "a#b", "- x", "é", "{a}", " a ", "a: b", "'", "$HOME"])
def test_to_yaml_quotes_what_has_to_be(mine: Path, word: str) -> None:
    (mine / "again.yaml").write_text(Profile("x", description=word).to_yaml())
    assert profile.load("again").description == word


# ---------------------------------------------------------------- a job of the controller's own


def test_the_controllers_job_has_keys_of_its_own_and_shares_account_and_setup(mine: Path) -> None:
    (mine / "lab.yaml").write_text(
        "extends: slurm\nwalltime: 2:00:00\nqueue: big\naccount: ice\nsetup: [module load x]\n"
        "controller: own-job\ncontroller_job: {partition: service, memory: 2G}\n"
    )
    (mine / "mine.yaml").write_text("extends: lab\ncontroller_job: {walltime: 30:00:00, setup: []}\n")
    chosen = profile.load("mine")
    own = chosen.of_controller()
    assert (own.queue, own.memory, own.walltime) == ("service", 2048, 30 * 3600)
    assert (own.account, own.setup, own.nodes, own.engines) == ("ice", (), 1, 1)
    assert profile.load("lab").of_controller().setup == ("module load x",)
    assert (chosen.queue, chosen.walltime) == ("big", 2 * 3600)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("{quue: x}", "lab.yaml:1: controller_job: key 'quue' is not known; did you mean 'queue'"),
        ("{walltime: soon}", "lab.yaml:1: controller_job: key 'walltime' has to be a time"),
        ("{nodes: 2}", "lab.yaml:1: controller_job: key 'nodes' is not known"),
        ("service", "lab.yaml:1: key 'controller_job' has to be a mapping of keys to values"),
    ],
)
def test_what_is_wrong_with_the_controllers_job_is_named(mine: Path, part: str, said: str) -> None:
    (mine / "lab.yaml").write_text(f"controller_job: {part}\n")
    with pytest.raises(ProfileError, match=re.escape(said)):
        profile.load("lab")


def test_a_folder_is_no_profile(mine: Path) -> None:
    (mine / "odd.yaml").mkdir()
    with pytest.raises(ProfileError, match=r"there is no profile 'odd'; there are: "):
        profile.load("odd")
    with pytest.raises(ProfileError, match=r"odd.yaml is a folder, and no profile"):
        profile.load(mine / "odd.yaml")
