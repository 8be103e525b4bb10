"""Jobs that are written down: what is said of them, and how they are ended."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from hpcremote import clusters, files, profile
from hpcremote.ids import new_uid
from hpcremote.launch import process, record
from hpcremote.launch.again import Again
from hpcremote.launch.batch import commands, inquest, jobs, more, submission
from hpcremote.launch.batch.reading import End, Seen
from hpcremote.launch.process import Process
from hpcremote.launch.record import Submitted

DEAD = Process(2**22 + 1, 1)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCREMOTE_DIR", str(tmp_path / "home"))


def a_job(key: str, scheduler: str = "slurm", ended: str = "") -> Submitted:
    return Submitted(key, scheduler, key, 2, time.time(), "/x/job.sh", "/x/log", "mpiexec", ended)


def a_record(*submitted: Submitted) -> record.Record:
    made = record.Record(
        profile="p", cluster_id="a", mark=new_uid(), machine=files.machine_id(), host="here", started=0.0,
        n=2, launcher="mpiexec", state="running", temporary=False, owner=DEAD, controller=DEAD, cwd="/",
        jobs=submitted,
    )  # fmt: skip
    record.claim(made)
    return made


def test_of_an_ended_job_whose_schedulers_file_is_gone_nothing_is_explained() -> None:
    (state,) = jobs.look([a_job("1", "gone-with-the-site", ended="exit code 1")])
    assert jobs.explain(state) == ""


class Asked:
    """A scheduler: how it says that jobs are, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen, self.about = Seen("running"), list[list[str]]()
        monkeypatch.setattr(commands, "status", self._status)
        monkeypatch.setattr(commands, "how_ended", lambda scheduler, job: End(code=3))
        monkeypatch.setattr(commands, "cancel", lambda scheduler, ids: self._end())

    def _status(self, scheduler: object, ids: list[str]) -> dict[str, Seen]:
        self.about.append(list(ids))
        return dict.fromkeys(ids, self.seen)

    def _end(self) -> None:
        self.seen = Seen("ended")


def test_what_was_seen_just_now_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, first, second = Asked(monkeypatch), a_job("1"), a_job("2")
    assert [str(state) for state in jobs.look([first], 60)] == ["running"]
    asked.seen = Seen("queued")
    told = jobs.look([second, a_job("3", ended="exit code 1"), first], 60)
    assert [str(state) for state in told] == ["queued", "ended: exit code 1", "running"]
    assert asked.about == [["1"], ["2"]]
    assert str(jobs.look([first], 1e-9)[0]) == "queued"  # that was longer ago
    assert asked.about[2:] == [["1"]]


def test_who_acts_on_it_is_not_told_what_was_seen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, made = Asked(monkeypatch), a_record(a_job("1"))
    jobs.look(made.jobs, 60)
    asked.seen = Seen("ended")
    assert jobs.condition(made) == "stale"
    assert [state.over for state in jobs.look(made.jobs, 60)] == [True]  # the latest is what is known

    asked.seen = Seen("running")
    jobs.look(made.jobs)
    began = time.monotonic()
    jobs.cancel(made.jobs)
    jobs._recent.learn(
        {job: jobs.State(job, Seen("running")) for job in made.jobs}, began
    )  # told before, heard after
    before = len(asked.about)
    assert [state.over for state in jobs.look(made.jobs, 60)] == [True]
    assert len(asked.about) == before + 1


def test_a_loop_over_a_clusters_status_asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    monkeypatch.setattr(jobs, "RECENT", 60.0)  # however slow this machine is
    a_record(a_job("1"))
    assert {clusters.status("p", "a").jobs[0]["state"] for _ in range(10)} == {"running"}
    assert asked.about == [["1"]]
    assert clusters.time_left("p", "a") is None
    assert asked.about == [["1"]]


def test_how_a_job_ended_is_told_even_if_it_cannot_be_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_record(a_job("job"))
    monkeypatch.setattr(inquest, "_PATIENCE", 0.1)
    monkeypatch.setattr(commands, "status", lambda scheduler, ids: {"job": Seen("ended", "FAILED")})
    monkeypatch.setattr(commands, "how_ended", lambda scheduler, job: End(code=3))
    with record.locked(made.folder):
        said, _ = inquest.Inquirer(profile.Profile("p"), "a")("job", over=False)
    assert said.startswith("job job (slurm) has ended: ")


def test_a_command_of_the_scheduler_carries_nothing_of_a_set(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HPCREMOTE_MARK", "HPCREMOTE_JOB", "HPCREMOTE_REPLACES")
    for name in (*names, "HPCREMOTE_DIR"):
        monkeypatch.setenv(name, "x")
    said = commands.run([sys.executable, "-c", "import os; print(*os.environ)"])
    assert "HPCREMOTE_DIR" in said.out.split()
    assert not set(names) & set(said.out.split())


def test_to_end_a_job_that_is_gone_is_fine(tmp_path: Path) -> None:
    more.end(tmp_path / "no-cluster", "job-2")
    assert not (tmp_path / "no-cluster").exists()
    more.end(a_record().folder, "job-2")


def test_a_job_is_abandoned_even_if_who_submits_it_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = a_record()
    cancelled: list[str] = []
    monkeypatch.setattr(submission, "_submit", lambda draft: a_job(draft.set))
    monkeypatch.setattr(jobs, "cancel", lambda which, **_: cancelled.extend(one.id for one in which))

    def interrupted(draft: object, note: object) -> Submitted:
        submit(draft, note)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    submit = submission.submit
    monkeypatch.setattr(submission, "submit", interrupted)
    begun = more.More(profile.Profile("p", launcher="mpiexec", scheduler="slurm"), "a", 2)
    with pytest.raises(KeyboardInterrupt):
        begun.launch()
    begun.abandon()
    assert cancelled == ["job-2"]
    found = record.read(made.folder)
    assert found is not None and found.jobs == ()


def test_who_gives_up_has_every_job_that_was_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A restart is at the scheduler when the cluster ends: that waits, finds the job, and has the lock."""
    made = a_record(a_job("job"))
    at_it, go_on = threading.Event(), threading.Event()

    def slow(draft: object) -> Submitted:
        at_it.set()
        assert go_on.wait(30)
        return a_job("job-2")

    monkeypatch.setattr(submission, "_submit", slow)
    monkeypatch.setattr(jobs, "cancel", lambda which, **_: None)
    again = Again(profile.Profile("p", launcher="mpiexec", scheduler="slurm"), "a")
    errors: list[Exception] = []

    def restart() -> None:
        try:
            again.submitted("s", "job", 2, 30.0, threading.Event())
        except Exception as error:
            errors.append(error)

    worker = threading.Thread(target=restart)
    worker.start()
    assert at_it.wait(30)
    found: list[record.Record | None] = []

    def give_up() -> None:
        again.give_up()
        with record.locked(made.folder):
            found.append(record.read(made.folder))

    end = threading.Thread(target=give_up)
    end.start()
    end.join(0.2)
    assert end.is_alive()
    go_on.set()
    end.join(30)
    worker.join(30)
    assert found[0] is not None and [one.id for one in found[0].jobs] == ["job-2"]
    assert [str(error) for error in errors] == ["the cluster is ending"]


def test_a_script_that_still_waits_for_its_ranks_keeps_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """They end later than a restart has time for: that shall not be the cluster's end."""
    made = a_record()
    again = Again(profile.Profile("p"), "a")
    old = again.ask_script("s")
    assert old == process.marked(f"{made.mark}.1") == []
    with pytest.raises(Exception, match=r"did not end within 0\.1 s"):
        again.by_script(old, 0.1, threading.Event())
    assert (made.folder / record.AGAIN).read_text() == "s"
    again.give_up()
    with pytest.raises(Exception, match="the cluster is ending"):
        again.by_script(old, 0.1, threading.Event())
    assert not (made.folder / record.AGAIN).exists()
