"""From a launcher and a profile to processes."""

from __future__ import annotations

import os
import sys

import pytest

from hpcremote import profile
from hpcremote.errors import LaunchError
from hpcremote.launch import catalog, job, process
from hpcremote.launch.process import MARK
from hpcremote.wire import walltime

ENGINE = ["py", "-m", "engine"]
SAYS = {
    "mpich": "HYDRA build details:\n    Version:   5.0.2",
    "openmpi": "mpiexec (Open MPI) 5.0.11",
    "intel": "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 2026",
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))
    for name in walltime.BATCH:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plan(tmp_path):
    """Plan 3 ranks by a fake mpiexec of one flavour."""

    def make(key: str, **overrides) -> job.Plan:
        path = tmp_path / "mpiexec"
        path.write_text(f"#!/bin/sh\necho '{SAYS[key]}'\n")
        path.chmod(0o755)
        chosen = profile.load("mpi", {"mpiexec": str(path), **overrides})
        return job.plan(catalog.load("mpiexec"), chosen, 3, ENGINE, "a-mark")

    return make


def test_local_engines_are_plain_processes(tmp_path):
    made = job.plan(
        catalog.load("local"), profile.load("local", {"working_dir": str(tmp_path)}), 3, ENGINE, "m"
    )
    assert (made.words, made.times, made.starter) == (ENGINE, 3, None)
    assert made.env["HPCREMOTE_MPI"] == "0"
    assert "HPCREMOTE_EXPECT" not in made.env
    assert made.env[MARK] == "m"
    assert made.cwd == str(tmp_path)


def test_engines_start_where_the_cluster_is_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = job.plan(catalog.load("local"), profile.load("local"), 1, ENGINE, "m")
    assert made.cwd == str(tmp_path)


def test_mpich(plan):
    made = plan("mpich", mpiexec_args=["-bind-to", "core"])
    assert made.words[1:] == ["-n", "3", "-prepend-rank", "-bind-to", "core", *ENGINE]
    assert made.times == 1
    assert made.env["HPCREMOTE_EXPECT"] == "3"
    assert "HPCREMOTE_MPI" not in made.env


def test_intel_mpi(plan):
    assert plan("intel").words[1:] == ["-n", "3", "-prepend-rank", *ENGINE]


def test_open_mpi_passes_variables_on_by_name(plan):
    made = plan("openmpi", environment={"OMP_NUM_THREADS": "1"})
    words = " ".join(made.words[1:])
    assert words.startswith("-n 3 --tag-output -x ")
    for name in ("HPCREMOTE_EXPECT", MARK, "OMP_NUM_THREADS"):
        assert f"-x {name} " in words
    assert made.env["OMP_NUM_THREADS"] == "1"


def test_open_mpi_may_share_cores_unless_a_batch_system_counts_them(plan, monkeypatch):
    assert plan("openmpi").env["PRTE_MCA_rmaps_default_mapping_policy"] == ":oversubscribe"
    assert plan("openmpi").env["OMPI_MCA_rmaps_base_oversubscribe"] == "1"
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert "PRTE_MCA_rmaps_default_mapping_policy" not in plan("openmpi").env
    assert "OMPI_MCA_rmaps_base_oversubscribe" not in plan("openmpi").env


def test_the_users_own_setting_wins(plan):
    made = plan("openmpi", environment={"OMPI_MCA_rmaps_base_oversubscribe": "0"})
    assert made.env["OMPI_MCA_rmaps_base_oversubscribe"] == "0"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root is asked")
def test_open_mpi_as_root_is_allowed(plan):
    assert plan("openmpi").env["OMPI_ALLOW_RUN_AS_ROOT"] == "1"


def test_no_secret_is_in_words_or_environment(plan):
    made = plan("mpich")
    assert not [name for name in made.env if "KEY" in name and name.startswith("HPCREMOTE")]
    assert not [word for word in made.words if "key" in word.lower()]


def test_a_job_says_what_ended_and_how(tmp_path):
    code = "import sys; print('libmpi.so: cannot open shared object file'); sys.exit(3)"
    made = job.plan(catalog.load("local"), profile.load("local"), 2, [sys.executable, "-c", code], "m")
    running = job.Job(made, tmp_path / "log")
    for child in running.children:
        child.wait()
    assert running.ended() == "engine 0 ended before all engines were there (exit code 3)"
    assert not any(one.alive() for one in running.processes)
    said = job.quote(tmp_path / "log", tmp_path / "no-such-log")
    assert said.startswith(f"--- {tmp_path / 'log'}\n$ {sys.executable} -c ")
    assert said.count("cannot open shared object file") == 3


def test_what_mpiexec_refuses_is_explained(tmp_path, plan):
    made = plan("openmpi")
    (tmp_path / "mpiexec").write_text(
        "#!/bin/sh\necho There are not enough slots available in the system\nexit 1\n"
    )
    running = job.Job(made, tmp_path / "log")
    running.children[0].wait()
    assert running.ended() == "mpiexec ended before all engines were there (exit code 1)"
    assert running.meaning().startswith("Open MPI has fewer slots than the 3 ranks asked for")


def test_a_log_that_is_not_there_says_nothing(tmp_path):
    assert job.read_tail(tmp_path / "none") == ""
    (tmp_path / "long").write_text("x" * 100 + "end")
    assert job.read_tail(tmp_path / "long", 3) == "end"


def test_the_log_of_a_job_is_private(tmp_path):
    made = job.plan(catalog.load("local"), profile.load("local"), 1, [sys.executable, "-c", ""], "m")
    running = job.Job(made, tmp_path / "log")
    running.children[0].wait()
    assert (tmp_path / "log").stat().st_mode & 0o077 == 0
    assert process.marked("m") == []


def test_more_engines_than_the_machine_can_carry_are_refused():
    cores = len(os.sched_getaffinity(0))
    chosen = profile.load("local", {"max_ranks_per_core": 3})
    job.check_room(chosen, 3 * cores)
    with pytest.raises(LaunchError, match=rf"{3 * cores + 1} engines are too many.*max_ranks_per_core"):
        job.check_room(chosen, 3 * cores + 1)


def test_other_hosts_and_batch_jobs_count_their_own_slots(monkeypatch):
    job.check_room(profile.load("mpi", {"mpiexec_args": ["-hosts", "a,b"]}), 100_000)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    job.check_room(profile.load("mpi", {}), 100_000)


def test_hosts_and_the_ssh_to_them(plan, monkeypatch):
    given = {"hosts": ["node1:2", "node2"], "ssh": "ssh -F x", "ssh_args": ["-4"]}
    made = plan("mpich", **given)
    assert made.words[3:9] == ["-launcher", "ssh", "-launcher-exec", "ssh", "-hosts", "node1:2,node2:1"]
    assert made.env["HYDRA_LAUNCHER_EXTRA_ARGS"] == "-F x -4"
    made = plan("openmpi", **given)
    assert made.words[3:5] == ["--host", "node1:2,node2:1"]
    assert made.env["PRTE_MCA_plm_ssh_agent"] == made.env["OMPI_MCA_plm_rsh_agent"] == "ssh -F x -4"
    assert "-hosts" not in plan("mpich").words
    chosen = profile.load("local", {"hosts": ["node1", "node2:2"], "launcher": "ssh"})
    assert chosen.engines == 3
    made = job.plan(catalog.load("ssh"), chosen, 3, ENGINE, "a-mark", cwd="/w")
    assert [words[-4:] for words, _ in made.runs] == [
        [host, "exec", "sh", "-s"] for host in ("node1", "node2")
    ]
    scripts = [script for _, script in made.runs]
    assert [script.count("py -m engine </dev/null &\n") for script in scripts] == [1, 2]
    assert "export HPCREMOTE_MARK=a-mark\n" in scripts[0]
    assert scripts[0].startswith("cd /w || exit 1\n")
    with pytest.raises(LaunchError, match="launcher ssh needs hosts: in profile local"):
        job.plan(catalog.load("ssh"), profile.load("local", {"launcher": "ssh"}), 1, ENGINE, "a-mark")


@pytest.mark.parametrize("name", ["CONDOR_JOB_ID", "FLUX_BATCH_JOB_ID", "PBS_JOBID"])
def test_every_batch_system_is_one_for_slots_and_for_the_end_of_the_job(name, monkeypatch):
    assert walltime.in_job({name: "7"})
    assert walltime.job_of({name: "7"}) == f"{name}=7"
    monkeypatch.setenv(name, "7")
    job.check_room(profile.Profile("p", max_ranks_per_core=1), 100_000)
