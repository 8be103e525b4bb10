"""Scheduler files: what is wrong is said with file, line and key; those that come along are whole."""

from __future__ import annotations

import pytest

from hpcremote import files
from hpcremote.errors import LauncherError
from hpcremote.launch import catalog
from hpcremote.launch.batch.scheduler import Scheduler, parse

WHOLE = """\
kind: scheduler
about: ours
inside: OURS_JOB_ID
submit:
  command: [ours-submit, $script]
  job_id: '(?P<id>\\d+)'
status:
  command: [ours-status, $ids]
  row: '(?P<id>\\d+) (?P<state>\\w+)'
  states: {queued: WAITING, running: RUNS}
ended:
  - {command: [ours-history, $id], known: 'over', code: 'code=(?P<code>\\d+)'}
cancel: [ours-cancel, $ids]
"""

SCHEDULERS = [name for name in files.available("launchers") if isinstance(catalog.read(name), Scheduler)]


def test_a_whole_file() -> None:
    ours = parse(WHOLE, "ours", "ours.yaml")
    assert (ours.name, ours.submit.command, ours.submit.stdin) == ("ours", ("ours-submit", "$script"), False)
    assert ours.status.states["queued"].fullmatch("WAITING")
    assert ours.ended[0].outcomes == {}
    assert (ours.signal, ours.hints, ours.absent, ours.spread, ours.recognise) == ((), (), None, None, None)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("cancel: [ours-cancel, $ids]\n", "", "ours.yaml:1: the launcher lacks the key 'cancel'"),
        ("cancel:", "cancle:", "ours.yaml:13: cancle: there is no such key; did you mean 'cancel'?"),
        ("(?P<id>\\d+)'\nstatus", "\\d+'\nstatus", r"ours.yaml:6: submit.job_id: needs a group (?P<id>...)"),
        ("queued: W", "waiting: W", "ours.yaml:10: status.states.waiting: there is no such key"),
        ("known: 'over'", "known: '('", "ours.yaml:12: ended.0.known: is not a regular expression"),
        ("[ours-submit, $script]", "x", "ours.yaml:5: submit.command: is text where a list"),
    ],
)  # fmt: skip
def test_mistakes_are_named(old: str, new: str, said: str) -> None:
    assert old in WHOLE
    with pytest.raises(LauncherError) as caught:
        parse(WHOLE.replace(old, new), "ours", "ours.yaml")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_each_that_comes_along_has_a_template(name: str) -> None:
    assert "@include job.sh.in@" in catalog.template(f"{name}.sh.in")


def test_the_two_kinds_are_not_taken_for_each_other() -> None:
    with pytest.raises(LauncherError, match="slurm is a batch system: .*scheduler: slurm"):
        catalog.load("slurm")
    with pytest.raises(LauncherError, match="srun is no batch system: it says how ranks start"):
        catalog.scheduler("srun")
    with pytest.raises(LauncherError, match=r"there is no script template nix\.sh\.in \(looked in "):
        catalog.template("nix.sh.in")
