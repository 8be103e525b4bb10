"""The doctor: what findings mean, on data; and that it looks, on this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hpcremote import files, profile
from hpcremote.doctor import batch, crypto, limits, mpi, network, storage, trial, versions
from hpcremote.doctor.finding import OK, PROBLEM, WARNING, Finding
from hpcremote.net.addresses import Interface
from tests.integration.support import command

LO = Interface("lo", ("127.0.0.1", "::1"), loopback=True)
ETH = Interface("eth0", ("10.0.0.5",), default_route=True)
IB = Interface("ib0", ("10.1.0.5",))
DOCKER = Interface("docker0", ("172.17.0.1",))


def verdicts(found: list[Finding]) -> list[str]:
    for one in found:
        assert bool(one.remedy) == (one.verdict != OK), "what is wrong has a remedy"
    return [one.verdict for one in found]


@pytest.mark.parametrize(
    ("seen", "verdict", "words"),
    [
        (network.Seen(["10.0.0.5", "127.0.0.1"], [ETH, LO]), [OK], "10.0.0.5 (eth0), 127.0.0.1 (lo)"),
        (network.Seen(["127.0.0.1"], [LO]), [WARNING], "nothing but this machine reaches that"),
        (network.Seen(["172.17.0.1", "127.0.0.1"], [DOCKER, LO]), [WARNING], "nothing but this machine"),
        (
            network.Seen(["10.0.0.5", "10.1.0.5"], [ETH, IB]),
            [OK, WARNING],
            "try 10.0.0.5 and 10.1.0.5 in turn",
        ),
        (network.Seen(["10.9.9.9"], [ETH]), [PROBLEM], "which no interface here has"),
        (network.Seen([], [ETH], "interface: 'ib7' is neither"), [PROBLEM], "ib7"),
        (
            network.Seen(["10.0.0.5"], [ETH], "", 80, "0.0.0.0 port 80: in use"),
            [OK, PROBLEM],
            "port 80: in use",
        ),
    ],
)
def test_network(seen: network.Seen, verdict: list[str], words: str) -> None:
    found = network.judge(seen)
    assert verdicts(found) == verdict
    assert words in found[-1].said


MOUNTS = """\
overlay / overlay rw,relatime 0 0
tmpfs /tmp tmpfs rw 0 0
server:/home /home nfs4 rw,vers=4.2,hard 0 0
server:/x /home/me/with\\040space nfs rw,noac 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/etc", "overlay"), ("/tmpfoo", "overlay"), ("/tmp/a", "tmpfs"), ("/home/me", "nfs4"),
     ("/home/me/with space/x", "nfs")],
)  # fmt: skip
def test_which_mount(path: str, kind: str) -> None:
    mount = storage.mount_of(path, storage.mounts(MOUNTS))
    assert mount is not None
    assert mount.kind == kind


@pytest.mark.parametrize(
    ("kind", "options", "verdict", "words"),
    [
        ("ext4", "rw", WARNING, "other nodes may not see"),
        ("tmpfs", "rw", WARNING, "a reboot empties it"),
        ("nfs4", "rw,hard", WARNING, "attribute caching"),
        ("nfs4", "rw,noac", OK, "shared"),
        ("nfs", "rw,noac,nolock", WARNING, "locks hold on one node only"),
        ("lustre", "rw", WARNING, "mounted without locks"),
        ("lustre", "rw,flock", OK, "shared"),
        ("lustre", "rw,localflock", WARNING, "locks hold on one node only"),
        ("gpfs", "rw", OK, "shared"),
    ],
)
def test_file_systems(kind: str, options: str, verdict: str, words: str) -> None:
    first, *_ = storage.judge(storage.Seen("/home/me", storage.Mount("s", "/home", kind, options)))
    assert verdicts([first]) == [verdict]
    assert words in first.said
    assert f"/home/me is on {kind} (/home)" in first.said


def test_files_that_are_wrong() -> None:
    mount = storage.Mount("s", "/", "gpfs", "rw")
    assert verdicts(storage.judge(storage.Seen("/x", mount, "mode 0755"))) == [PROBLEM]
    found = storage.judge(storage.Seen("/x", mount, "", "flock does not work", "taken", False, 5))
    assert verdicts(found) == [OK, PROBLEM, PROBLEM, PROBLEM, WARNING]


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (None, [OK]),
        (mpi.Seen("MPICH 5 (/x)", "", "MPICH 5 (/lib)"), [OK, OK]),
        (mpi.Seen("MPICH 5 (/x)", "", "Open MPI 5", "", "mpiexec is MPICH but"), [OK, PROBLEM]),
        (mpi.Seen("", "no mpiexec found", "", "cannot load MPI"), [PROBLEM, PROBLEM]),
    ],
)
def test_mpi(seen: mpi.Seen | None, verdict: list[str]) -> None:
    assert verdicts(mpi.judge(seen)) == verdict


def test_encryption() -> None:
    assert verdicts(crypto.judge(30e6)) == [WARNING]
    assert verdicts(crypto.judge(2e9)) == [OK]
    assert verdicts(crypto.judge("no CURVE")) == [PROBLEM]
    measured = crypto.probe()
    assert isinstance(measured, float)
    assert measured > 0


HERE = {
    "python": "3.11.7",
    "hpcremote": "1",
    "pyzmq": "27",
    "mpi4py": "4",
    "msgspec": "1",
    "cloudpickle": "3",
}


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, [OK, OK]),
        ({"hpcremote": "2"}, [OK, OK, PROBLEM]),
        ({"python": "3.12.1"}, [OK, OK, WARNING]),
        ({"python": "3.11.9"}, [OK, OK]),
        ({"pyzmq": ""}, [OK, OK, PROBLEM]),
    ],
)
def test_versions(changes: dict[str, str], verdict: list[str]) -> None:
    assert verdicts(versions.judge(versions.Seen(HERE, "node1", {**HERE, **changes}))) == verdict


def test_versions_that_nobody_told() -> None:
    assert verdicts(versions.judge(versions.Seen({**HERE, "mpi4py": ""}))) == [PROBLEM]
    seen = versions.Seen(HERE, "node1", *versions.read("no such file: python3\n", ""))
    assert verdicts(versions.judge(seen)) == [OK, PROBLEM]
    assert "no such file: python3" in versions.judge(seen)[1].said


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (limits.Seen(1024, -1, 4, 8), [OK]),
        (limits.Seen(1024, -1, 2000, 8, True), [PROBLEM]),
        (limits.Seen(-1, 100, 4, 8), [PROBLEM]),
        (limits.Seen(-1, -1, 9, 8), [WARNING]),
        (limits.Seen(-1, -1, 9, 8, True), [OK]),
    ],
)
def test_limits(seen: limits.Seen, verdict: list[str]) -> None:
    assert verdicts(limits.judge(seen)) == verdict


def test_batch() -> None:
    whole = batch.Seen("slurm", {"slurm": ["sbatch"]}, {"slurm": []}, "slurm")
    assert verdicts(batch.judge(whole)) == [OK, OK]
    lacking = batch.Seen("slurm", {"slurm": []}, {"slurm": ["sbatch"]})
    assert verdicts(batch.judge(lacking)) == [PROBLEM]
    assert "no batch system here" in batch.judge(lacking._replace(wanted=""))[0].said


#: What commands that several batch systems have say of themselves.
QSUB = {
    "pbs": 'echo "pbs_version = 22.05.11"',
    "torque": 'echo "Version: 6.1.3" >&2; echo "Commit: unknown" >&2',
    "slurm-wlm-torque": 'echo "Unknown option: version" >&2; echo Usage: >&2; exit 2',
    "sge": """echo 'qsub: invalid option argument "--version"' >&2; exit 2""",
    "nobody": "exit 1",
}
QSTAT = {
    "pbs": "echo \"qstat: invalid option -- 'h'\" >&2; echo usage: >&2; exit 2",
    "torque": "echo usage: >&2; exit 2",
    "slurm-wlm-torque": "echo Usage: >&2; exit 2",
    "sge": "echo SGE 8.1.9; echo 'usage: qstat [options]'",
    "nobody": "exit 1",
}
SGE_THAT_IS_NOT_SET_UP = 'echo "error: unable to read qmaster name" >&2; exit 1'


def qsubs(folder: Path, name: str, qstat: str = "") -> None:
    for command_, code in (("qsub", QSUB[name]), ("qstat", qstat or QSTAT[name]), ("qdel", "exit 1")):
        (folder / command_).write_text(f"#!/bin/sh\n{code}\n")
        (folder / command_).chmod(0o755)


@pytest.mark.parametrize(
    ("whose", "qstat", "found"),
    [
        ("pbs", "", "pbs"),
        ("torque", "", "torque"),
        ("slurm-wlm-torque", "", "torque"),
        ("sge", "", "sge"),
        ("sge", SGE_THAT_IS_NOT_SET_UP, "sge"),
    ],
)
def test_whose_commands_they_are_is_asked(
    whose: str, qstat: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three batch systems have qsub, qstat and qdel."""
    qsubs(tmp_path, whose, qstat)
    monkeypatch.setenv("PATH", str(tmp_path))
    (only,) = batch.judge(batch.probe(profile.load("local")))
    assert only.said.startswith(f"found: {found} (")
    for wanted in ("pbs", "torque", "sge"):
        (only,) = batch.judge(batch.probe(profile.load(wanted)))
        if wanted == found:
            assert only.said == f"qsub, qstat, qdel: the commands of {wanted} are here"
        else:
            assert verdicts([only]) == [PROBLEM]
            assert only.said == f"qsub, qstat, qdel are here, but not those of {wanted}: they are of {found}"
            assert only.remedy == f"scheduler: {found} in the profile"


def test_commands_that_nobody_is_known_by_are_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qsubs(tmp_path, "nobody")
    monkeypatch.setenv("PATH", str(tmp_path))
    (only,) = batch.judge(batch.probe(profile.load("pbs")))
    assert verdicts([only]) == [WARNING]
    assert only.said.endswith("but not those of pbs, by what `qsub --version` says")


def test_trial() -> None:
    assert verdicts(trial.judge(trial.Seen(1.0, ("a", "b")))) == [OK]
    assert verdicts(trial.judge(trial.Seen(trouble="no"))) == [PROBLEM]


def test_it_finds_the_commands_of_a_scheduler(tmp_path, monkeypatch) -> None:
    for name in ("sbatch", "squeue", "scancel"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    seen = batch.probe(profile.load("local"))
    assert set(seen.present["slurm"]) == {"sbatch", "squeue", "scancel"}
    assert seen.missing["slurm"] == []


def test_it_looks_at_this_machine_and_leaves_nothing(session_home) -> None:
    clusters = files.private_dir(session_home / "clusters")
    before = set(clusters.iterdir())
    done = command("doctor", "--profile", "local", "--trial", "--json", seconds=120)
    found = [Finding(**one) for one in json.loads(done.stdout)]
    assert done.returncode == 0, done.stdout + done.stderr
    assert {one.group for one in found} == {
        "versions", "MPI", "network", "encryption", "files", "limits", "batch", "trial",
    }  # fmt: skip
    assert found[-1].said.startswith(f"a rank answered from {os.uname().nodename}")
    assert {path for path in clusters.iterdir() if path.name.startswith(".doctor")} - before == set()


def test_it_says_what_is_wrong_and_what_to_do(tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o755)  # as `hpcremote profile create` makes it: only what is in clusters/ is secret
    (home / "clusters").mkdir(mode=0o755)
    words = ("doctor", "--profile", "local", "--set", "interface=ib7")
    done = command(*words, HPCREMOTE_DIR=str(home), HPCREMOTE_SSH="ssh -F none")
    assert done.returncode == 1
    assert "PROBLEM  files" in done.stdout
    assert f"run `chmod 700 {home}/clusters`" in done.stdout
    assert "PROBLEM  network     interface: 'ib7' is neither" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("2 problems")
