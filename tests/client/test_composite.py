from __future__ import annotations

from hpcremote.client.composite import composite
from hpcremote.errors import CompositeError, EngineError, NotConnected, PayloadError, RemoteError, TaskAborted


def remote(engine: int, kind: str = "ValueError", text: str = "no") -> tuple[int, RemoteError]:
    info: dict[str, object] = {"engine_id": engine, "rank": engine, "host": "node7", "method": "apply"}
    return engine, RemoteError(kind, text, "Traceback ...", info)


def test_the_first_line_sums_up() -> None:
    errors = [remote(0), remote(1), remote(2), remote(5), remote(4, "KeyError", "'a'\nmore")]
    error = composite("solve", errors, 8)
    assert isinstance(error, CompositeError)
    assert str(error).splitlines()[0] == (
        "solve failed on 5 of 8 engines: ValueError(no) on engines 0-2, 5; KeyError('a') on engine 4"
    )
    assert error.errors == [e for _, e in errors]
    assert [row[0] for row in error.elist] == ["ValueError"] * 4 + ["KeyError"]


def test_many_kinds_and_long_texts_are_cut() -> None:
    error = composite("f", [remote(i, "ValueError", str(i) * 300) for i in range(5)], 5)
    first = str(error).splitlines()[0]
    assert first.endswith("...) on engine 2; and 2 other errors")
    assert len(first) < 600


def test_tracebacks_are_limited() -> None:
    text = str(composite("f", [remote(i) for i in range(10)], 10))
    assert text.count("Traceback ...") == CompositeError.tb_limit
    assert "and 6 more" in text


def test_one_reason_for_all_is_that_reason() -> None:
    gone = NotConnected("the controller went away")
    assert composite("f", [(0, gone), (1, gone)], 2) is gone


def test_what_differs_in_the_engine_only_is_one_kind() -> None:
    aborted = [
        (i, TaskAborted(f"apply(f) was aborted before it started on engine {i} (rank {i} on n{i})"))
        for i in range(3)
    ]
    unsent = [(i, PayloadError(f"cannot pickle 'lock' [engine {i} (rank {i} on n{i})]")) for i in range(3, 6)]
    assert str(composite("f", [*aborted, *unsent], 6)).splitlines()[0] == (
        "f failed on 6 of 6 engines: TaskAborted(apply(f) was aborted before it started) on engines 0-2; "
        "PayloadError(cannot pickle 'lock') on engines 3-5"
    )


def test_errors_that_are_no_remote_errors_are_told_too() -> None:
    dead = EngineError("engine 1 ended: killed", engine_id=1)
    error = composite("f", [(1, dead)], 2)
    assert isinstance(error, CompositeError)
    assert "EngineError(engine 1 ended: killed) on engine 1" in str(error)


def test_an_engine_that_took_the_others_along_comes_first() -> None:
    after = "killed by SIGKILL, after engine 4 of the same MPI job: it called MPI_Abort(7)"
    causes = [after] * 4 + ["it called MPI_Abort(7)", after]
    errors = [
        (number, EngineError(f"engine {number} ended: {cause}", engine_id=number, cause=cause))
        for number, cause in enumerate(causes)
    ]
    error = composite("f", errors, 6)
    assert str(error).startswith(
        "f failed on 6 of 6 engines: EngineError(engine 4 ended: it called MPI_Abort(7))"
    )
    assert isinstance(error, CompositeError)
    assert error.errors == [one for _, one in errors]  # in the order of the view, as ever
