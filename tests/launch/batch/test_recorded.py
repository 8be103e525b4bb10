"""What commands of schedulers print, and what is understood of it.

The outputs have the form that the schedulers' public documentation gives, with names and numbers made up.
"""

from __future__ import annotations

import pytest

from hpcremote.launch import catalog, text
from hpcremote.launch.batch import reading
from hpcremote.launch.batch.reading import End, Seen

PBS = """\
Job Id: 71.pbs01
    Job_Name = hpcremote
    Job_Owner = ada@login1
    job_state = Q
    queue = workq
    comment = Not Running: Insufficient amount of resource: ncpus
    estimated.start_time = Tue Nov 24 18:30:00 2026
    project = _pbs_project_default

Job Id: 72.pbs01
    Job_Name = hpcremote
    resources_used.walltime = 00:00:10
    job_state = R
    exec_host = node1/0*4+node2/0*4
    exec_vnode = (node1:ncpus=4)+(node2:ncpus=4)
    comment = Job run at Tue Nov 24 at 17:00 on (node1:ncpus=4)+(node2:ncpus=4)

Job Id: 73.pbs01
    Job_Name = hpcremote
    job_state = H
    Hold_Types = u

"""
TORQUE = """\
Job Id: 71.torque1.example.org
    Job_Name = hpcremote
    job_state = Q
    queue = batch

Job Id: 72.torque1.example.org
    Job_Name = hpcremote
    job_state = R
    exec_host = node1/0-3+node2/0-3
    Variable_List = PBS_O_QUEUE=batch,PBS_O_HOME=/home/ada,
\tPBS_O_WORKDIR=/home/ada/job_state = C

Job Id: 73.torque1.example.org
    job_state = H

"""
ROWS = {
    "pbs": (
        PBS,
        {
            "71.pbs01": Seen(
                "queued",
                "Q",
                "Not Running: Insufficient amount of resource: ncpus",
                "Tue Nov 24 18:30:00 2026",
            ),
            "72.pbs01": Seen(
                "running",
                "R",
                "Job run at Tue Nov 24 at 17:00 on (node1:ncpus=4)+(node2:ncpus=4)",
                hosts="node1/0*4+node2/0*4",
            ),
            "73.pbs01": Seen("stuck", "H"),
        },
    ),
    "torque": (
        TORQUE,
        {
            "71.torque1.example.org": Seen("queued", "Q"),
            "72.torque1.example.org": Seen("running", "R", hosts="node1/0-3+node2/0-3"),
            "73.torque1.example.org": Seen("stuck", "H"),
        },
    ),
    "lsf": (
        (
            "71|PEND|-|Job's requirements for reserving resource not satisfied: 4 hosts;\n"
            "72|RUN|4*node1:4*node2|-\n"
            "73|PSUSP|-|The job was suspended by its owner while pending;\n"
            "74|EXIT|node1|-\n"
        ),
        {
            "71": Seen("queued", "PEND", "Job's requirements for reserving resource not satisfied: 4 hosts;"),
            "72": Seen("running", "RUN", hosts="4*node1:4*node2"),
            "73": Seen("stuck", "PSUSP", "The job was suspended by its owner while pending;"),
            "74": Seen("ended", "EXIT", hosts="node1"),
        },
    ),
    "flux": (
        (
            "ƒM7Zq9AKHno|SCHED||2026-11-24T18:30:00|\n"
            "ƒM7Zq9AKHnp|RUN|||node[1-2]\n"
            "ƒM7Zq9AKHnq|CLEANUP|||node3\n"
            "fM7Zq9AKHnr|INACTIVE|||node3\n"
        ),
        {
            "ƒM7Zq9AKHno": Seen("queued", "SCHED", start="2026-11-24T18:30:00"),
            "ƒM7Zq9AKHnp": Seen("running", "RUN", hosts="node[1-2]"),
            "ƒM7Zq9AKHnq": Seen("ending", "CLEANUP", hosts="node3"),
            "fM7Zq9AKHnr": Seen("ended", "INACTIVE", hosts="node3"),
        },
    ),
    "htcondor": (
        (
            "71\t1\tundefined\tundefined\n"
            "72\t2\tundefined\tslot1_1@node1.example.org\n"
            "73\t5\tvia condor_hold (by user ada)\tundefined\n"
            "74\t3\tundefined\tundefined\n"
        ),
        {
            "71": Seen("queued", "1"),
            "72": Seen("running", "2", hosts="slot1_1@node1.example.org"),
            "73": Seen("stuck", "5", "via condor_hold (by user ada)"),
            "74": Seen("ending", "3"),
        },
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_how_jobs_are(name: str) -> None:
    output, seen = ROWS[name]
    assert reading.rows(catalog.scheduler(name).status, output) == seen


IDS = [
    ("pbs", "71.pbs01\n", "71.pbs01"),
    ("torque", "71.torque1.example.org\n", "71.torque1.example.org"),
    ("torque", "71\n", "71"),
    ("lsf", "Job <71> is submitted to default queue <normal>.\n", "71"),
    ("lsf", "Your job needs 12 slots.\nJob <71> is submitted to queue <gpu>.\n", "71"),
    ("flux", "ƒM7Zq9AKHno\n", "ƒM7Zq9AKHno"),
    ("flux", "fM7Zq9AKHno\n", "fM7Zq9AKHno"),
    ("htcondor", "71.0 - 71.0\n", "71"),
]


@pytest.mark.parametrize(("name", "output", "job_id"), IDS)
def test_the_job_that_was_submitted(name: str, output: str, job_id: str) -> None:
    assert reading.job_id(catalog.scheduler(name), output) == job_id


def pbs(state: str, **attributes: object) -> str:
    lines = "".join(f"    {key} = {value}\n" for key, value in attributes.items())
    return f"Job Id: 71.pbs01\n    job_state = {state}\n{lines}"


FAILED = "Job run at Tue Nov 24 at 17:00 on (node1:ncpus=4) and failed"
ENDS = [
    ("pbs", pbs("R"), None, ""),
    ("pbs", pbs("F", substate=92, Exit_status=0), End("finished", 0), "it has ended"),
    ("pbs", pbs("F", substate=93, Exit_status=3), End("finished", 3), "exit code 3"),
    (
        "pbs",
        pbs("F", substate=91, comment="Job run and terminated", Exit_status=271),
        End("cancelled", 271, reason="Job run and terminated"),
        "it was cancelled (Job run and terminated)",
    ),
    ("pbs", pbs("F", substate=93, Exit_status=265), End("finished", 265), "killed by SIGKILL"),
    (
        "pbs",
        pbs("F", substate=93, comment=FAILED, Exit_status=-29),
        End("walltime", reason=FAILED),
        f"its walltime was over ({FAILED})",
    ),
    ("pbs", pbs("F", substate=91, Exit_status=-29), End("walltime"), "its walltime was over"),
    ("pbs", pbs("F", Exit_status=-27), End("memory"), "it used more memory than it may (out of memory)"),
    ("pbs", pbs("F", Exit_status=-20), End("node"), "a node failed"),
    ("pbs", pbs("F", Exit_status=-2), End("start"), "the scheduler could not start it"),
    ("pbs", pbs("F", substate=91), End("cancelled"), "it was cancelled"),
    ("torque", pbs("C", exit_status=0), End("finished", 0), "it has ended"),
    ("torque", pbs("C", exit_status=271), End("finished", 271), "killed by SIGTERM"),
    ("torque", pbs("C", exit_status=-11), End("walltime"), "its walltime was over"),
    ("torque", pbs("C", exit_status=-10), End("memory"), "it used more memory than it may (out of memory)"),
    ("torque", pbs("C", exit_status=-1), End("start"), "the scheduler could not start it"),
    ("torque", pbs("E"), None, ""),
    ("lsf", "71|RUN|-|-\n", None, ""),
    ("lsf", "71|DONE|-|-\n", End("finished"), "it has ended"),
    ("lsf", "71|EXIT|3|-\n", End("", 3), "exit code 3"),
    ("lsf", "71|EXIT|139|-\n", End("", 139), "killed by SIGSEGV"),
    (
        "lsf",
        "71|EXIT|140|TERM_RUNLIMIT: job killed after reaching LSF run time limit\n",
        End("walltime", 140, reason="TERM_RUNLIMIT: job killed after reaching LSF run time limit"),
        ("its walltime was over (TERM_RUNLIMIT: job killed after reaching LSF run time limit)"),
    ),
    (
        "lsf",
        "71|EXIT|137|TERM_MEMLIMIT: job killed after reaching LSF memory usage limit\n",
        End("memory", 137, reason="TERM_MEMLIMIT: job killed after reaching LSF memory usage limit"),
        (
            "it used more memory than it may (out of memory) "
            "(TERM_MEMLIMIT: job killed after reaching LSF memory usage limit)"
        ),
    ),
    (
        "lsf",
        "71|EXIT|130|TERM_OWNER: job killed by owner\n",
        End("cancelled", 130, reason="TERM_OWNER: job killed by owner"),
        "it was cancelled (TERM_OWNER: job killed by owner)",
    ),
    ("lsf", "71|ZOMBI|-|-\n", End("node"), "a node failed"),
    ("flux", "||||\n", None, ""),
    ("flux", "COMPLETED|0||\n", End("finished", 0), "it has ended"),
    ("flux", "FAILED|1||\n", End("", 1), "exit code 1"),
    ("flux", "FAILED|-9||\n", End("", None, 9), "killed by SIGKILL"),
    (
        "flux",
        "TIMEOUT|143|timeout|resource allocation expired\n",
        End("walltime", 143, reason="resource allocation expired"),
        "its walltime was over (resource allocation expired)",
    ),
    ("flux", "CANCELED|-128|cancel|\n", End("cancelled"), "it was cancelled"),
    (
        "flux",
        "FAILED|137|exec|lost contact with job shell on broker node2 (rank 1)\n",
        End("node", 137, reason="lost contact with job shell on broker node2 (rank 1)"),
        "a node failed (lost contact with job shell on broker node2 (rank 1))",
    ),
    ("htcondor", "", None, ""),
    ("htcondor", "4\t0\tundefined\tundefined\n", End("finished", 0), "it has ended"),
    ("htcondor", "4\t3\tundefined\tundefined\n", End("finished", 3), "exit code 3"),
    ("htcondor", "4\tundefined\t9\tundefined\n", End("finished", None, 9), "killed by SIGKILL"),
    (
        "htcondor",
        "3\tundefined\tundefined\tvia condor_rm (by user ada)\n",
        End("cancelled", reason="via condor_rm (by user ada)"),
        "it was cancelled (via condor_rm (by user ada))",
    ),
    (
        "htcondor",
        "3\tundefined\tundefined\tThe job attribute PeriodicRemove expression 'x' evaluated to TRUE\n",
        End("walltime", reason="The job attribute PeriodicRemove expression 'x' evaluated to TRUE"),
        "its walltime was over (The job attribute PeriodicRemove expression 'x' evaluated to TRUE)",
    ),
]


@pytest.mark.parametrize(("name", "output", "end", "said"), ENDS)
def test_how_a_job_ended(name: str, output: str, end: End | None, said: str) -> None:
    (how,) = catalog.scheduler(name).ended
    found = reading.end(how, output)
    assert found == end
    assert (str(found) if found else "") == said


REFUSALS = [
    ("pbs", "qsub: Unknown queue", "`qstat -Q` lists them"),
    ("pbs", "qsub: Job violates queue and/or server resource limits", "`qstat -Qf` lists limits"),
    ("pbs", "qsub: Unknown resource: ngpus", "ngpus"),
    ("pbs", "qsub: Invalid account", "`account:`"),
    ("pbs", "=>> PBS: job killed: walltime 72 exceeded limit 60", "`walltime:`"),
    ("torque", "qsub: submit error (Unknown queue MSG=cannot locate queue)", "`qstat -q` lists them"),
    (
        "torque",
        "qsub: submit error (Job exceeds queue resource limits MSG=cannot locate feasible nodes)",
        "pbsnodes",
    ),
    ("lsf", "nowhere: No such queue. Job not submitted.", "`bqueues -u $USER`"),
    ("lsf", "Too many processors requested. Job not submitted.", "`bhosts`"),
    (
        "lsf",
        "Project not specified.\nRequest aborted by esub. Job not submitted.",
        "`account:`",
    ),
    ("flux", "flux-batch: ERROR: [Errno 22] Invalid queue 'nowhere' specified", "`flux queue list`"),
    ("flux", "flux-batch: ERROR: [Errno 22] unsatisfiable request", "`flux resource list`"),
    ("htcondor", "ERROR: Can't find address of local schedd", "access point"),
]


@pytest.mark.parametrize(("name", "output", "remedy"), REFUSALS)
def test_refusals_have_a_remedy(name: str, output: str, remedy: str) -> None:
    assert remedy in text.explain(catalog.scheduler(name).hints, output, {"profile": "p"})


GONE = [
    ("pbs", "qstat: Unknown Job Id 71.pbs01"),
    ("pbs", "qstat: 71.pbs01 Job has finished, use -x or -H to obtain historical job information"),
    ("torque", "qstat: Unknown Job Id Error 71.torque1.example.org"),
    ("lsf", "Job <71> is not found"),
    ("flux", "flux-jobs: ERROR: JobID ƒM7Zq9AKHno unknown"),
]


@pytest.mark.parametrize(("name", "output"), GONE)
def test_a_job_that_is_not_known_any_more_is_no_trouble(name: str, output: str) -> None:
    unknown = catalog.scheduler(name).status.unknown
    assert unknown is not None
    assert unknown.search(output)
