from __future__ import annotations

import builtins
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from hpcremote.client.client import Client
from hpcremote.client.view import DirectView
from hpcremote.errors import CompositeError, RemoteError
from tests.client.support import FakeLink


def has(view: DirectView, name: str) -> list[bool]:
    found: list[bool] = view.pull(f"'{name}' in globals()", block=True)
    return found


def in_module(source: str, **names: Any) -> dict[str, Any]:
    """Run *source* as a module's top level, as a script or a prompt does."""
    names["__name__"] = "prompt"
    exec(compile(source, "<prompt>", "exec"), names)
    return names


def test_imports_happen_here_and_there(view: DirectView, capsys: pytest.CaptureFixture[str]) -> None:
    with view.sync_imports():
        import colorsys
    assert colorsys.rgb_to_hsv(0, 0, 0) == (0, 0, 0)
    assert capsys.readouterr().out == "importing colorsys on engine(s)\n"
    assert view.pull("colorsys.__name__", block=True) == ["colorsys"] * 4


def test_every_form_of_import_binds_the_same_names(
    view: DirectView, link: FakeLink, capsys: pytest.CaptureFixture[str]
) -> None:
    here = in_module(
        "with view.sync_imports():\n"
        "    import os.path\n"
        "    import xml.dom, wave\n"
        "    import xml.dom.minidom as dom\n"
        "    from collections import OrderedDict, deque as ring\n"
        "    from os import path as where\n"
        "    import json as j\n",
        view=view,
    )
    said = capsys.readouterr().out.replace("importing ", "").replace(" on engine(s)", "").splitlines()
    assert said == [
        "os.path",
        "xml.dom",
        "wave",
        "xml.dom.minidom as dom",
        "OrderedDict, deque as ring from collections",
        "path as where from os",
        "json as j",
    ]
    there = link.namespace(3)
    names = {"os", "xml", "wave", "dom", "OrderedDict", "ring", "where", "j"}
    assert {name: there[name] for name in names} == {name: here[name] for name in names}
    assert "json" not in there and "deque" not in there


def test_a_star(view: DirectView, link: FakeLink) -> None:
    here = in_module("with view.sync_imports(quiet=True):\n    from colorsys import *\n", view=view)
    assert here["rgb_to_hsv"] is link.namespace(0)["rgb_to_hsv"]


def test_at_module_level_too(view: DirectView, link: FakeLink) -> None:
    here = in_module(
        "with view.sync_imports(quiet=True):\n"
        "    import os.path as p, json\n"
        "    if True: from math import pi as PI\n",
        view=view,
    )
    there = link.namespace(2)
    assert [here["p"], here["json"], here["PI"]] == [there["p"], there["json"], there["PI"]]


def test_imports_of_imported_modules_stay_here(
    view: DirectView, link: FakeLink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "synced_outer.py").write_text("import wave\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("synced_outer", None)
    with view.sync_imports(quiet=True):
        import synced_outer  # type: ignore[import-not-found]
    assert synced_outer.wave
    assert [sent.op for sent in link.sent] == ["execute"]
    view.wait()
    assert "wave" not in link.namespace(0)


def test_imports_of_other_threads_stay_theirs(view: DirectView, link: FakeLink) -> None:
    def elsewhere() -> None:
        exec("import wave", {})

    with view.sync_imports(quiet=True):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        elsewhere()
    assert link.sent == []


def test_the_import_function_comes_back(view: DirectView) -> None:
    before = builtins.__import__
    with pytest.raises(ModuleNotFoundError), view.sync_imports(quiet=True):
        import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401
    assert builtins.__import__ is before


def test_importer_is_the_same_as_a_property(rc: Client, capsys: pytest.CaptureFixture[str]) -> None:
    with rc[0].importer:
        import colorsys  # noqa: F401
    assert "colorsys" in capsys.readouterr().out


def test_remote_only_imports_leave_nothing_here(view: DirectView, link: FakeLink) -> None:
    here = in_module(
        "json = 'mine'\n"
        "with view.sync_imports(local=False, quiet=True):\n"
        "    import colorsys\n"
        "    import json\n"
        "    import xml.dom as d\n"
        "    from math import pi, e as euler\n"
        "    from wave import *\n",
        view=view,
    )
    assert set(here) - {"__builtins__", "__name__"} == {"view", "json"}
    assert here["json"] == "mine"
    assert has(view, "colorsys") == [True] * 4
    there = link.namespace(1)
    assert there["d"].__name__ == "xml.dom" and there["euler"] > 2.7 and "Wave_read" not in here


def test_remote_only_imports_need_nothing_here(
    rc: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RemoteError, match="ModuleNotFoundError"), rc[0].sync_imports(local=False, quiet=True):
        import no_such_module_anywhere  # noqa: F401


def test_in_a_function_the_stand_in_says_what_it_is(rc: Client) -> None:
    with rc[0].sync_imports(local=False, quiet=True):
        import colorsys
    with pytest.raises(AttributeError, match="on the engines only"):
        colorsys.rgb_to_hsv  # noqa: B018


def test_what_fails_there_is_raised(
    view: DirectView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "synced_once.py"
    module.write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CompositeError, match="ImportError"), view.sync_imports(quiet=True):
        import synced_once  # type: ignore[import-not-found]

        synced_once.later = 1
        from synced_once import later  # noqa: F401

        del synced_once.later
