"""What schedulers print, recorded, and what it means."""

from __future__ import annotations

import pytest

from hpcremote.launch import catalog, text
from hpcremote.launch.batch.reading import End, Seen, end, job_id, rows, waits_why, written

SLURM = catalog.scheduler("slurm")
SGE = catalog.scheduler("sge")

SQUEUE = """\
1|RUNNING|None|2026-11-24T17:35:20|node[1-2]
2|PENDING|Resources|2027-11-24T17:35:20|
3|PENDING|JobHeldUser|N/A|
4|COMPLETING|None|2026-11-24T17:35:20|node1
5|CANCELLED|None|2026-11-24T17:35:22|
6|A_NEW_WORD|None|N/A|node3
"""
QSTAT = """\
job-ID  prior   name       user         state submit/start at     queue                          master
-------------------------------------------------------------------------------------------------------
      1 0.50500 myjob      root         r     11/24/2026 17:35:47 all.q@node1                    SLAVE
                                                                  all.q@node1                    SLAVE
      5 0.50500 going      root         dr    11/24/2026 17:35:47 all.q@node2                    MASTER
      8 0.50000 rerun      root         Rr    11/29/2026 17:28:09 all.q@node1                    MASTER
      1 0.50500 myjob      root         r     11/24/2026 17:35:47 all.q@node3                    MASTER
                                                                  all.q@node3                    SLAVE
                                                                  all.q@node3                    SLAVE
      2 0.60500 big        root         qw    11/24/2026 17:35:47
      4 0.50500 eqw        root         Eqw   11/24/2026 17:35:48
      3 0.00000 held       root         hqw   11/24/2026 17:35:47
      6 0.50000 again      root         Rq    11/29/2026 17:28:09
      7 0.00000 heldagain  root         hRq   11/29/2026 17:28:09
"""
SCONTROL = """\
JobId=1 JobName=wrap
   JobState={state} Reason={reason} Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode={code}
"""
QACCT = """\
==============================================================
qname        all.q
jobnumber    1
failed       {failed}
exit_status  {code}
category     -l h_rt=1200 -pe mpi 2
"""


def test_ids() -> None:
    assert job_id(SLURM, "12\n") == "12"
    assert job_id(SLURM, "12;cluster\n") == "12"
    assert job_id(SLURM, "sbatch: a word of the site\n12\n") == "12"
    assert job_id(SGE, "13\n") == "13"
    assert job_id(SGE, "Unable to run job\n") is None


def test_rows_of_slurm() -> None:
    found = rows(SLURM.status, SQUEUE)
    assert found["1"] == Seen("running", "RUNNING", start="2026-11-24T17:35:20", hosts="node[1-2]")
    assert [found[key].state for key in "123456"] == [
        "running", "queued", "queued", "ending", "ended", "running"
    ]  # fmt: skip
    assert str(found["2"]) == "queued: Resources, start estimated for 2027-11-24 17:35:20"
    assert str(found["3"]) == "queued: JobHeldUser"
    assert str(found["1"]) == "running on node[1-2]"


def test_rows_of_grid_engine() -> None:
    found = rows(SGE.status, QSTAT)
    assert {key: seen.state for key, seen in found.items()} == {
        "1": "running", "2": "queued", "3": "queued", "4": "stuck", "5": "cancelling",
        "6": "queued", "7": "queued", "8": "running",
    }  # fmt: skip
    assert [found[key].hosts for key in "15872"] == ["node1,node3", "node2", "node1", "", ""]
    assert "will not start by itself" in str(found["4"])


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ("node[1-500]", "node[1-500]"),
        ("a[1-4,7,9,11,13,15,17,19,21],b[3-4]", "a[1-4,7,9,11,13,15,17,19,21],b[3-4]"),
        ("n1,n2,n3", "n1,n2,n3"),
        (",".join(f"n{i}" for i in range(500)), "n0, n1, n2 and 497 more"),
        ("+".join(f"n{i}/0*4" for i in range(9)), "n0/0*4, n1/0*4, n2/0*4 and 6 more"),
    ],
)
def test_many_hosts_are_not_all_shown(hosts: str, words: str) -> None:
    assert str(Seen("running", "R", hosts=hosts)) == f"running on {words}"


def test_the_exit_code_of_a_job_on_several_hosts_is_that_of_its_script() -> None:
    said = "".join(QACCT.format(failed="0", code=code) for code in (7, 0, 255))
    assert end(SGE.ended[0], said) == End("finished", 255)


def test_why_a_job_waits() -> None:
    assert SGE.status.why is not None
    said = 'job_type:  binary\nscheduling info:      cannot run in PE "mpi" because it only offers 8 slots\n'
    assert waits_why(SGE.status.why.reason, said) == 'cannot run in PE "mpi" because it only offers 8 slots'
    error = "error reason          1:      11/24/2026 17:35:48 [0:204]: can't open output file\n" + said
    assert "can't open output file" in waits_why(SGE.status.why.reason, error)


@pytest.mark.parametrize(
    ("state", "reason", "code", "words"),
    [
        ("COMPLETED", "None", "0:0", "it has ended"),
        ("FAILED", "NonZeroExitCode", "3:0", "exit code 3 (NonZeroExitCode)"),
        ("FAILED", "None", "0:11", "killed by SIGSEGV"),
        ("FAILED", "None", "137:0", "killed by SIGKILL"),
        ("CANCELLED", "None", "0:15", "it was cancelled"),
        ("OUT_OF_MEMORY", "None", "0:125", "it used more memory than it may (out of memory)"),
        ("TIMEOUT", "TimeLimit", "0:15", "its walltime was over (TimeLimit)"),
        ("NODE_FAIL", "NodeDown", "0:0", "a node failed (NodeDown)"),
        ("PREEMPTED", "None", "0:0", "it was preempted by another job"),
        ("FAILED", "JobLaunchFailure", "1:0",
         "the scheduler could not start it, exit code 1 (JobLaunchFailure)"),
    ],
)  # fmt: skip
def test_ends_by_scontrol(state: str, reason: str, code: str, words: str) -> None:
    found = end(SLURM.ended[1], SCONTROL.format(state=state, reason=reason, code=code))
    assert str(found) == words


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("CANCELLED by 0|0:0|None", "it was cancelled"),
        ("OUT_OF_MEMORY|0:125|None", "it used more memory than it may (out of memory)"),
        ("FAILED|7:0|None", "exit code 7"),
    ],
)
def test_ends_by_sacct(row: str, words: str) -> None:
    assert str(end(SLURM.ended[0], row + "\n")) == words


def test_ends_by_what_slurm_writes_into_the_output() -> None:
    line = "slurmstepd-node1: error: *** STEP 1.0 ON node1 CANCELLED AT 2026-11-29 DUE TO {}, ... ***\n"
    assert written(SLURM, "0: " + line.format("NODE FAILURE")) == "a node failed"
    assert written(SLURM, line.format("PREEMPTION")) == "it was preempted by another job"
    assert written(SLURM, "my step was CANCELLED AT noon DUE TO NODE FAILURE\n") == ""


def test_a_slurm_without_accounting_says_nothing() -> None:
    assert end(SLURM.ended[0], "Slurm accounting storage is disabled\n") is None
    assert end(SLURM.ended[1], "slurm_load_jobs error: Invalid job id specified\n") is None
    assert end(SLURM.ended[1], SCONTROL.format(state="RUNNING", reason="None", code="0:0")) is None


@pytest.mark.parametrize(
    ("failed", "code", "words"),
    [
        ("0", 0, "it has ended"),
        ("0", 3, "exit code 3"),
        ("100 : assumedly after job", 137, "killed by SIGKILL (assumedly after job)"),
        ("37  : qmaster enforced h_rt limit", 137, "its walltime was over (qmaster enforced h_rt limit)"),
    ],
)
def test_ends_by_qacct(failed: str, code: int, words: str) -> None:
    assert str(end(SGE.ended[0], QACCT.format(failed=failed, code=code))) == words


def test_nothing_known_is_said_plainly() -> None:
    assert str(End()) == "it has ended"
    assert End().after("job 7 (torque) has ended") == "job 7 (torque) has ended"
    assert End(code=3).after("job 7 (torque) has ended") == "job 7 (torque) has ended: exit code 3"
    assert end(SGE.ended[0], "error: job id 2 not found\n") is None


@pytest.mark.parametrize(
    ("scheduler", "said", "remedy"),
    [
        (SLURM, "sbatch: error: invalid partition specified: nosuch", "`sinfo -s` lists them"),
        (SLURM, "sbatch: error: Batch job submission failed: Invalid feature specification", "`constraint:`"),
        (SLURM, "sbatch: error: Memory specification can not be satisfied", "`memory:`"),
        (SLURM, "sbatch: error: Invalid generic resource (gres) specification", "`gpus_per_node:`"),
        (SGE, 'job rejected: the requested parallel environment "x" does not exist', "`qconf -spl`"),
        (SGE, 'Job was rejected because job requests unknown queue "x"', "`qconf -sql`"),
        (SGE, 'job rejected: the requested project "x" does not exist', "`qconf -sprjl`"),
    ],
)
def test_refusals_have_a_remedy(scheduler, said: str, remedy: str) -> None:
    assert remedy in text.explain(scheduler.hints, said, {"profile": "mine"})


def test_a_path_in_the_output_is_no_refusal() -> None:
    said = "cannot open /project/ice/parallel environment/input.nc"
    assert text.explain(SGE.hints, said, {"profile": "mine"}) == ""
