from __future__ import annotations

import importlib.util
import pathlib
import sys

import pytest


def _pipe_engine():
    path = pathlib.Path(__file__).with_name("pipe_engine.py")
    spec = importlib.util.spec_from_file_location("pipe_engine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def engine_process():
    """One engine process for all tests of a module."""
    process = _pipe_engine().PipeEngine()
    yield process
    process.close()


@pytest.fixture
def engine(engine_process):
    """The engine process with a namespace that is as good as new."""
    engine_process.clear()
    return engine_process


@pytest.fixture
def prompt(monkeypatch):
    """A fresh ``__main__`` in this process: ``prompt(code)`` runs code as a user would type it."""
    made = _pipe_engine().Prompt()
    monkeypatch.setitem(sys.modules, "__main__", made.module)
    return made
