"""The engine's namespace."""

from __future__ import annotations

import sys

import pytest

from hpcremote.engine.namespace import Namespace
from hpcremote.wire import scope


@pytest.fixture
def namespace():
    made = Namespace()
    made.keep()
    return made


def test_it_is_a_module_main(namespace, monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    namespace.install()
    try:
        assert sys.modules["__main__"] is namespace.module
        assert namespace.dict["__name__"] == "__main__"
        assert scope.engine_namespace() is namespace.dict
    finally:
        scope.set_namespace(None)


def test_push_and_pull(namespace):
    namespace.push({"a": 1, "b": [2, {"k": 3}]})
    assert namespace.pull("a") == 1
    assert namespace.pull(["a", "b"]) == [1, [2, {"k": 3}]]
    assert namespace.pull(("b",)) == [[2, {"k": 3}]]
    assert namespace.pull("b[1]['k'] + a") == 4
    assert namespace.pull([]) == []


def test_push_to_expressions(namespace):
    namespace.push({"b": [0, {}], "e": ValueError("x")})
    namespace.push({"b[0]": 5, "b[1]['k']": 6, "e.tag": "t"})
    assert namespace.pull(["b", "e.tag"]) == [[5, {"k": 6}], "t"]
    assert "_hpcremote_value" not in namespace.dict


def test_push_to_what_is_nothing(namespace):
    for key in ("1x", "f()", "", "a b", 3):
        with pytest.raises(ValueError, match="cannot be assigned to: push names"):
            namespace.push({key: 1})


def test_missing_names_are_told_alike_on_all_engines(namespace):
    # A client that hears the same from many engines says it once, with the ids.
    with pytest.raises(NameError, match="name 'nope' is not defined$") as caught:
        namespace.pull("nope")
    assert caught.value.name == "nope"
    with pytest.raises(NameError, match="^name 'nope' is not defined$"):
        namespace.pull("nope.x[0]")
    with pytest.raises(TypeError, match="names are pulled by text"):
        namespace.pull([3])


def test_clear_keeps_what_start_up_put_there(namespace):
    namespace.push({"MPI": "the mpi module"})
    namespace.keep()
    namespace.push({"a": 1, "MPI": None})
    namespace.dict["__builtins__"] = {}
    del namespace.dict["__name__"]
    namespace.clear()
    assert namespace.pull("MPI") == "the mpi module"
    assert namespace.pull("__name__") == "__main__"
    assert namespace.pull("len([1])") == 1
    assert "a" not in namespace.dict


def test_clear_survives_destructors(namespace):
    class Meddler:
        def __del__(self):
            namespace.dict.pop("z", None)

    namespace.push({"a": Meddler(), "z": 1, "y": 2})
    namespace.clear()
    assert not {"a", "y", "z"} & set(namespace.dict)
