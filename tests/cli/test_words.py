"""What commands say: tables, spans, ranges, drafts, options."""

from __future__ import annotations

import argparse
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote import files, profile
from hpcremote.cli import engine, exits, main, options
from hpcremote.cli.list import table
from hpcremote.cli.profile import draft
from hpcremote.cli.status import lines, ranges, span
from hpcremote.clusters import Status
from hpcremote.engine import mpi
from hpcremote.errors import ClusterNotFound
from hpcremote.launch import record
from hpcremote.launch.process import of_pid


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (0.4, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3700, "1 h 1 min"), (90000, "1 d 1 h")],
)
def test_spans(seconds, words):
    assert span(seconds) == words


@pytest.mark.parametrize(
    ("ids", "words"), [([], ""), ([0], "0"), ([0, 1, 2, 5], "0-2,5"), ([3, 5, 6], "3,5-6")]
)
def test_ranges(ids, words):
    assert ranges(ids) == words


@given(st.sets(st.integers(0, 200)))
def test_ranges_say_which_ids(ids):
    said = ranges(sorted(ids))
    back = set()
    for part in said.split(",") if said else []:
        first, _, last = part.partition("-")
        back |= set(range(int(first), int(last or first) + 1))
    assert back == ids


STATUS = Status(
    *("mpi", "a", "running", 4, "mpiexec, MPICH 5", "vm", 100.0, 7, [7, 8]),
    *({"n1": [0, 1], "n2": [2, 3]}, {}, []),
)


def test_a_status_in_words():
    said = lines(STATUS, 165.0)
    assert said[0] == "cluster 'a' of profile 'mpi': running"
    assert "  started     1 min 5 s ago on vm, by mpiexec, MPICH 5" in said
    assert "  engines     4 of 4" in said
    assert "    n2           2-3" in said
    assert said[-1] == "  processes   controller 7; engines 8"


def test_a_status_tells_how_engines_ended():
    said = lines(STATUS._replace(engines={}, ended={"1": "killed by SIGKILL"}), 165.0)
    assert "    engine 1 ended: killed by SIGKILL" in said


def test_how_far_a_start_is_in_words():
    phases = {"launch": 4, "MPI_Init": 2, "register": 0}
    said = lines(STATUS._replace(condition="starting", engines={}, phases=phases), 165.0)
    assert said[2:4] == ["  engines     0 of 4", "  starting    launch 4/4, MPI_Init 2/4, register 0/4"]


def test_a_start_that_failed_in_words():
    seen = STATUS._replace(
        condition="failed", failed=150.0, failure="it did not take the job:\nno such queue"
    )
    assert lines(seen, 165.0) == [
        "there is no cluster 'a' of profile 'mpi': its last start failed 15 s ago on vm",
        "  it did not take the job:\n  no such queue",
    ]


def test_a_broken_cluster_has_a_remedy():
    said = lines(STATUS._replace(condition="broken", engines={}), 165.0)
    assert said[-1].startswith("  remedy      hpcremote stop --profile mpi --cluster-id a ")


def of_jobs(*states):
    jobs = [{"id": "7", "scheduler": "slurm", "brings": "engines", "meaning": "", "state": s} for s in states]
    return STATUS._replace(engines={}, jobs=jobs)


def test_a_cluster_whose_jobs_have_ended_has_a_remedy():
    said = lines(of_jobs("ended: it was cancelled", "ended: exit code 255"), 165.0)[-1]
    assert said.startswith("  remedy      hpcremote start --profile mpi --cluster-id a --resubmit ")


@pytest.mark.parametrize("state", ["running on n1", "queued: Resources", "unknown: squeue fails"])
def test_a_cluster_with_a_job_that_may_bring_engines_has_none(state):
    assert "remedy" not in lines(of_jobs("ended: it was cancelled", state), 165.0)[-1]


def test_engines_that_are_gone_have_a_remedy():
    gone = STATUS._replace(engines={"n1": [0]}, ended={"1": "killed by SIGKILL"})
    assert lines(gone, 165.0)[-1].startswith("  remedy      hpcremote restart --profile mpi --cluster-id a ")
    for other in (gone._replace(n=None), gone._replace(condition="starting"), STATUS):
        assert not lines(other, 165.0)[-1].startswith("  remedy")


def test_a_table_has_straight_columns():
    row = {"profile": "mpi", "cluster_id": "a", "state": "running", "n": 4, "host": "vm", "started": 0.0}
    rows = [{**row, "launcher": "mpiexec"}, {**row, "state": "stale", "n": None, "launcher": "by hand"}]
    head, first, second = table(rows, 61.0)
    assert head.split() == ["PROFILE", "CLUSTER", "STATE", "N", "HOST", "UP", "LAUNCHER"]
    assert first.index("running") == second.index("stale") == head.index("STATE")
    assert "1 min 1 s" in first
    assert " - " in second


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("port=5", ("port", 5)),
        ("interface=ib0", ("interface", "ib0")),
        ("a=b=c", ("a", "b=c")),
        ("x=", ("x", "")),
    ],
)
def test_settings(text, pair):
    assert options.setting(text) == pair


def test_a_setting_without_a_value():
    with pytest.raises(argparse.ArgumentTypeError, match="'port' is not key=value"):
        options.setting("port")


def test_the_cluster_without_a_name_is_meant_where_none_is_said():
    me = of_pid(os.getpid())
    for name, cluster_id in [("mpi", "default"), ("mpi", "small"), ("local", "default")]:
        files.private_dir(files.cluster_dir(name, cluster_id))
        about = (name, cluster_id, "0" * 32, files.machine_id(), "vm", 0.0, 1, "local", "running", False, me)
        record.Record(*about, controller=me).write()
    assert options.pick("mpi", None).cluster_id == "default"
    assert options.pick("mpi", "small").cluster_id == "small"
    with pytest.raises(ClusterNotFound, match="3 clusters are there; say which: --profile local"):
        options.pick(None, None)  # nobody has been told to say nothing


def test_options_are_as_short_as_can_be():
    assert options.as_options("default", "default") == ""
    assert options.as_options("mpi", "default") == "--profile mpi"
    assert options.as_options("default", "b") == "--cluster-id b"


# ---------------------------------------------------------------- profiles


def test_a_draft_is_a_profile_of_its_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(draft("mine", "mpi", {"n": 3, "mpiexec_args": ["-bind-to", "core"]}))
    loaded = profile.load(str(path))
    assert (loaded.launcher, loaded.n, list(loaded.mpiexec_args)) == ("mpiexec", 3, ["-bind-to", "core"])


def test_create_tells_which_keys_have_no_effect(capsys):
    words = ["--from", "mpi", "--walltime", "2:00:00", "--queue", "long"]
    assert main.main(["profile", "create", "here", *words]) == exits.OK
    said = capsys.readouterr().err
    assert said.startswith("hpcremote: profile 'here' names no scheduler: walltime (")
    assert said.endswith(") have no effect; name one (scheduler: slurm), or leave them out\n")


def test_create_show_path_list(capsys):
    assert main.main(["profile", "create", "mine", "--extends", "mpi", "--set", "n=3"]) == exits.OK
    path = capsys.readouterr().out.strip()
    assert path.endswith("/home/profiles/mine.yaml")
    assert main.main(["profile", "create", "mine"]) == exits.ERROR
    assert "is there already" in capsys.readouterr().err
    assert main.main(["profile", "path", "mine"]) == exits.OK
    assert capsys.readouterr().out.strip() == path
    assert main.main(["profile", "show", "mine"]) == exits.OK
    assert "launcher: mpiexec" in capsys.readouterr().out
    assert main.main(["profile", "list"]) == exits.OK
    assert capsys.readouterr().out.count("mine") >= 1
    assert main.main(["profile", "path"]) == exits.OK
    assert capsys.readouterr().out.splitlines()[0].endswith("/home/profiles")


# ---------------------------------------------------------------- engine


@pytest.fixture
def no_launcher(monkeypatch):
    for name in ("HPCREMOTE_MPI", "HPCREMOTE_EXPECT", *mpi._RANK):
        monkeypatch.delenv(name, raising=False)


def test_what_a_launcher_writes_and_what_people_write_is_the_same():
    words = ["--file", "/x/engine.json", "--wait", "60"]
    assert engine._by_launcher(words) == engine._by_argparse(words)
    assert engine._by_launcher(["--profile", "mpi"]) is None
    assert engine._by_argparse(["-p", "mpi", "--no-mpi"]) == engine._Options(profile="mpi", mpi=False)


def test_an_engine_is_a_rank_only_if_it_was_started_as_one(no_launcher, monkeypatch):
    assert not mpi.started_as_rank()
    monkeypatch.setenv("PMI_RANK", "0")
    assert mpi.started_as_rank()
    monkeypatch.setenv("HPCREMOTE_MPI", "0")
    assert not mpi.started_as_rank()


def test_a_launcher_that_says_how_many_means_mpi(no_launcher, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_EXPECT", "4")
    assert mpi.started_as_rank()
