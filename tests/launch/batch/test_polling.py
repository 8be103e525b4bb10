"""When a scheduler is asked, and what is believed of what it says."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hpcremote.launch.batch.polling import FIRST, LAG, LONGEST, SOON, Polling
from hpcremote.launch.batch.reading import End, Seen

RUNNING = Seen("running", "R")
QUEUED = Seen("queued", "PD")


def test_one_question_for_all_and_longer_pauses_while_nothing_moves() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    polling.watch("2", 0.0)
    assert polling.due() == SOON
    assert polling.ask() == ["1", "2"]
    now, pauses = SOON, []
    for _ in range(12):
        polling.answered({"1": QUEUED, "2": QUEUED}, now)
        due = polling.due()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses[0] == FIRST
    assert all(later > 0.99 * earlier for earlier, later in pairwise(pauses))
    assert pauses[-1] == pytest.approx(LONGEST)


def test_news_of_one_job_makes_the_pause_short_again() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    for now in range(20):
        polling.answered({"1": QUEUED}, now * 100.0)
    polling.answered({"1": RUNNING}, 2000.0)
    assert polling.due() == 2000.0 + FIRST
    polling.answered({"1": RUNNING}, 2001.0)
    polling.hurry(2001.5)
    assert polling.due() == 2001.5


def test_a_scheduler_that_does_not_answer_changes_nothing_and_is_asked_more_rarely() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    polling.answered({"1": RUNNING}, 1.0)
    for number in range(10):
        polling.failed("Unable to contact slurm controller", 10.0 * number + 10)
    assert polling.seen("1") == RUNNING
    assert polling.end("1") is None
    assert polling.trouble == "Unable to contact slurm controller"
    assert polling.due() == 100.0 + LONGEST
    polling.answered({"1": RUNNING}, 200.0)
    assert polling.trouble == ""


def test_a_job_that_is_gone_is_asked_how_it_ended_until_that_is_known() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    polling.answered({"1": RUNNING}, 1.0)
    assert polling.answered({}, 2.0) == ["1"]
    polling.ended("1", None, 2.0)
    assert polling.end("1") is None
    assert polling.gone("1")
    assert polling.answered({}, 3.0) == ["1"]
    polling.ended("1", End("memory"), 3.0)
    assert polling.end("1") == End("memory")
    assert polling.due() is None


def test_what_accounting_never_tells_is_not_waited_for() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    polling.answered({"1": RUNNING}, 1.0)
    polling.answered({}, 2.0)
    polling.ended("1", None, 2.0 + LAG)
    assert polling.end("1") == End()


def test_a_job_that_is_not_shown_yet_has_not_ended() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    polling.answered({}, 0.3)
    polling.ended("1", None, 0.3)
    assert polling.end("1") is None
    assert not polling.gone("1")
    polling.answered({"1": QUEUED}, 1.3)
    assert polling.seen("1") == QUEUED
    assert not polling.gone("1")


def test_who_was_seen_being_cancelled_was_cancelled() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    polling.answered({"1": Seen("cancelling", "dr")}, 1.0)
    polling.answered({}, 2.0)
    polling.ended("1", End("", 137, reason="assumedly after job"), 2.0)
    assert str(polling.end("1")) == "it was cancelled (assumedly after job)"


def test_a_requeued_job_waits_again() -> None:
    polling = Polling()
    polling.watch("1", 0.0)
    polling.answered({"1": RUNNING}, 1.0)
    polling.answered({}, 2.0)
    polling.answered({"1": QUEUED}, 3.0)
    assert polling.seen("1") == QUEUED
    assert not polling.gone("1")
