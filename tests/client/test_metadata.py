from __future__ import annotations

import pytest

from hpcremote.client.metadata import KEYS, Metadata, moment

SEED = {
    "after", "completed", "engine_id", "engine_uuid", "follow", "msg_id", "received", "started", "status",
    "stderr", "stdout", "submitted",
}  # fmt: skip
OURS = {"carrier"}
TODAY = {"data", "error", "execute_input", "execute_result", "label", "outputs"}


def test_the_keys_are_those_of_the_seed_and_of_today() -> None:
    assert set(KEYS) == SEED | TODAY | OURS
    assert set(Metadata()) == set(KEYS)


def test_keys_are_attributes_and_no_others_exist() -> None:
    told = Metadata(engine_id=3, stdout="x")
    assert told.engine_id == told["engine_id"] == 3
    told.status = "ok"
    assert told["status"] == "ok"
    assert (told.after, told.follow, told.outputs, told.data) == ([], [], [], {})
    for attempt in (lambda: told.engine, lambda: setattr(told, "engine", 1)):
        with pytest.raises(AttributeError, match="no 'engine', only after, carrier"):
            attempt()
    with pytest.raises(KeyError):
        told["engine"] = 1
    with pytest.raises(KeyError):
        Metadata(engine=1)


def test_times_are_in_utc() -> None:
    assert moment(0.0) is None
    when = moment(1_000_000_000.25)
    assert when is not None
    assert when.isoformat() == "2001-09-09T01:46:40.250000+00:00"
