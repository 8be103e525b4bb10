"""What a job wrote, and what that means."""

from __future__ import annotations

import pytest

from hpcremote.launch import catalog
from hpcremote.launch.batch.triage import culprit, excerpt, last_run, meaning, probed
from hpcremote.launch.culprit import ended_first

SRUN = catalog.load("srun")
ABOUT = {"n": 4, "profile": "mine", "python": "python"}

UNREACHABLE = """\
hpcremote: job 13 has started on node1
hpcremote probe: cannot reach the controller of cluster 'default' (pid 2749 on head) from node1; tried
hpcremote probe:   tcp://127.0.0.1:43599: connection refused
hpcremote probe: Set `interface:` in profile 'slurm' to a name or address of head that node1 can reach
"""
SEGFAULT = """\
hpcremote: job 13 has started on node1
0: starting
2: starting
2: Fatal Python error: Segmentation fault
srun: error: node2: task 2: Segmentation fault
0: told to end
srun: error: node1: tasks 0-1: Terminated
"""


def test_the_last_run_of_a_job_that_was_queued_again() -> None:
    assert last_run(UNREACHABLE + SEGFAULT) == SEGFAULT.rstrip()
    assert last_run("no line of ours\n") == "no line of ours"


def test_the_probe_says_what_each_address_answered() -> None:
    said = probed(UNREACHABLE)
    assert said.splitlines()[1] == "  tcp://127.0.0.1:43599: connection refused"
    assert meaning(UNREACHABLE, SRUN.hints, ABOUT) == said


def test_of_a_job_that_was_queued_again_only_the_last_probe_counts() -> None:
    assert probed(UNREACHABLE + "hpcremote: job 13 has started on node2\n") == ""


def test_the_tail_is_that_of_the_rank_that_failed_first() -> None:
    assert culprit(SEGFAULT, SRUN) == "2"
    assert excerpt(SEGFAULT, SRUN) == "2: starting\n2: Fatal Python error: Segmentation fault"


HYDRA = """\
hpcremote: 4 ranks by MPICH 5.0.2 (/opt/bin/mpiexec)
[1] starting
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 1213 RUNNING AT node1
=   EXIT CODE: 9
hpcremote: the ranks have ended (exit code 255)
"""
INTEL = "=   RANK 2 PID 931 RUNNING AT node2.example.org\n=   KILLED BY SIGNAL: 9 (Killed)\n"
PRTE = "prterun noticed that process rank 2 with PID 931 on node node2 exited on signal 9 (Killed).\n"
MPIRUN = "mpirun noticed that process rank 0 with PID 0 on node node2 exited on signal 11 (Aborted).\n"
EXITED = "The first process to do so was:\n\n   Process name: [prterun-node1-1234@1,2]\n   Exit code:    3\n"
EXITED_4 = "The first process to do so was:\n\n  Process name: [[20103,1],12]\n  Exit code:    3\n"


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (HYDRA, "1213@node1"),
        (HYDRA + "hpcremote: 4 ranks by MPICH 5.0.2 (/opt/bin/mpiexec)\n", ""),  # these run
        (INTEL, "931@node2.example.org"),
        (PRTE, "2"),
        (MPIRUN, "0"),
        (EXITED, "2"),
        (EXITED_4, "12"),
        ("all is well\n", ""),
    ],
)
def test_who_ended_first_by_what_mpiexec_says(said: str, first: str) -> None:
    assert ended_first(said, catalog.load("mpiexec").culprit) == first


def test_who_ended_first_by_what_srun_says() -> None:
    said = SEGFAULT.replace("0: starting", "hpcremote: 3 ranks by MPICH 5.0.2 (srun)\n0: starting", 1)
    assert ended_first(said, SRUN.culprit) == "2"


def test_the_tail_of_a_rank_under_mpiexec() -> None:
    said = "[0] fine\n[2] Fatal Python error: Segmentation fault\n[0] told to end\n" + PRTE
    assert excerpt(said, catalog.load("mpiexec")) == "[2] Fatal Python error: Segmentation fault"
    said = "[1,0]<stdout>:fine\n[1,2]<stderr>:no memory\n" + PRTE
    assert excerpt(said, catalog.load("mpiexec")) == "[1,2]<stderr>:no memory"


def test_without_a_culprit_the_last_lines_are_shown() -> None:
    assert excerpt("a\nb\n", SRUN) == "a\nb"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("1: hpcremote: 4 ranks were started, but MPI sees 1: ... (MPICH 5.0.2)", "`srun_mpi: pmi2`"),
        ("1: hpcremote: 4 ranks were started, but MPI sees 1: ... (Open MPI v5.0.11)", "`srun_mpi: pmix`"),
        (
            "0: check(167):  Runtime environment uses unsupported PMI version PMIx. Aborting.",
            "`srun_mpi: pmi2`",
        ),
        ("srun: error: cannot find mpi plugin for mpi/pmix_v9", "`srun --mpi=list`"),
        ("/usr/bin/python: No module named hpcremote", "not installed for python"),
    ],
)
def test_the_option_that_mends_it_is_named(line: str, remedy: str) -> None:
    assert remedy in meaning(line, SRUN.hints, ABOUT)


LONELY = """\
hpcremote: job 13 has started on node1
hpcremote: 4 ranks by MPICH 4.0.2 (/old/bin/mpiexec)
hpcremote: the ranks have ended
hpcremote: job 13 has started on node2
hpcremote: 4 ranks by Open MPI 4.1.4 (/opt/openmpi/bin/mpiexec)
$ /opt/openmpi/bin/mpiexec -n 4 ...
[1,0]<stderr>:hpcremote: 4 ranks were started, but MPI sees 1: the mpiexec that started this process does \
not belong to the MPI library that mpi4py loaded (MPICH 5.0.2). Set `mpiexec:` in the profile to ...
"""


def test_lonely_ranks_of_an_mpiexec_are_told_both_sides_and_the_key() -> None:
    said = meaning(LONELY, catalog.load("mpiexec").hints, ABOUT)
    assert said.startswith(
        "mpiexec is Open MPI 4.1.4 (/opt/openmpi/bin/mpiexec), the ranks loaded MPICH 5.0.2, and the two "
    )
    assert "`mpiexec: /path/to/mpiexec` in profile mine" in said
