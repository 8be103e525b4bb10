"""References, requirements and conditions."""

from __future__ import annotations

import copy
import re

import pytest

from hpcremote.errors import RemoteError, UnmetDependency
from hpcremote.wire import payload
from hpcremote.wire.depend import Reference, depend, dependent, interactive, require
from hpcremote.wire.functions import pack_function


def test_reference_is_evaluated_on_the_engine(engine):
    engine.push(a=10, box={"k": [1, 2]})
    assert engine.apply(lambda x: x * 2, Reference("a")) == 20
    assert engine.apply(lambda x: x["deep"][0], {"deep": [Reference("box['k'][1] + a")]}) == 12
    assert engine.apply(lambda *, y: y, y=Reference("a")) == 10
    engine.push(a=5)
    assert engine.apply(lambda x: x * 2, Reference("a")) == 10


def test_reference_is_the_object_itself(engine):
    engine.push(items=[])
    engine.apply(list.append, Reference("items"), 3)
    assert engine.pull("items") == [3]


def test_reference_as_the_function_is_looked_up_at_every_call(engine):
    engine.execute("def f(x): return x + 1")
    assert engine.apply(Reference("f"), 1) == 2
    engine.execute("def f(x): return x + 2")
    assert engine.apply(Reference("f"), 1) == 3


def test_reference_to_nothing(engine):
    with pytest.raises(
        RemoteError, match=r"name 'nope' is not defined on this engine, asked for by Reference"
    ):
        engine.apply(abs, Reference("nope"))


@pytest.mark.parametrize(
    "use",
    [
        lambda r: r + 1, lambda r: 1 + r, lambda r: r * 2, lambda r: -r, lambda r: r(1), lambda r: r[0],
        len, list, lambda r: r < 1, lambda r: 2**r, float, lambda r: 1 in r,
    ],
)  # fmt: skip
def test_reference_used_here_says_what_to_do(use):
    with pytest.raises(
        TypeError, match=re.escape("Reference('a') lives on the engines: pass it to view.apply")
    ):
        use(Reference("a"))


def test_reference_is_itself_where_no_engine_is():
    reference = Reference("a")
    assert repr(reference) == "Reference('a')"
    assert copy.deepcopy(reference) is reference and copy.copy(reference) is reference
    got = payload.load(payload.dump([reference]))[0]
    assert type(got) is Reference and got.name == "a"
    with pytest.raises(TypeError, match="name or an expression in text"):
        Reference(3)


def test_required_modules_are_imported_and_bound(engine, prompt):
    prompt("""
from hpcremote.wire.depend import require
import time
@require('re', 'xml.etree.ElementTree', time)
def use(pat, x):
    '''Doc.'''
    return re.findall(pat, x), xml.etree.ElementTree.__name__, time.time() > 0
""")
    assert engine.apply(prompt.use, "a+", "caat") == (["aa"], "xml.etree.ElementTree", True)
    assert engine.pull("re.__name__") == "re"
    assert isinstance(prompt.use, dependent)
    assert (prompt.use.__name__, prompt.use.__doc__) == ("use", "Doc.")
    assert prompt.use("a", "banana")[0] == ["a", "a", "a"]


def test_required_functions_and_objects_are_pushed(engine, prompt):
    prompt("""
from hpcremote.wire.depend import require
def helper(x): return x * scale
@require(helper, scale=3)
def use(x): return helper(x) + scale
""")
    assert engine.apply(prompt.use, 2) == 9
    assert engine.pull("scale") == 3


def test_unmet_requirement(engine, prompt):
    prompt("""
from hpcremote.wire.depend import require
@require('no_such_module_anywhere')
def use():
    global ran
    ran = True
""")
    with pytest.raises(
        UnmetDependency,
        match=r"use requires 'no_such_module_anywhere': No module named .*; it did not run \[engine 1",
    ):
        engine.apply(prompt.use)
    with pytest.raises(RemoteError):
        engine.pull("ran")
    with pytest.raises(TypeError, match="@require takes modules"):
        require(3)


def test_conditions(engine, prompt):
    prompt("""
from hpcremote.wire.depend import depend
def is_(wanted): return host == wanted
@depend(is_, "node7")
def use(x): return x + 1
@depend(is_, wanted="other")
def other(): return "ran"
""")
    engine.push(host="node7")
    assert engine.apply(prompt.use, 1) == 2
    with pytest.raises(UnmetDependency, match="other depends on is_, which returned False; it did not run"):
        engine.apply(prompt.other)
    with pytest.raises(TypeError, match="a function has to be asked"):
        depend("re")


def test_dependent_functions_as_helpers_and_recursive(engine, prompt):
    prompt("""
from hpcremote.wire.depend import require
@require('math')
def down(n): return 0 if n == 0 else math.floor(1.5) + down(n - 1)
def use(n): return down(n)
""")
    assert engine.apply(prompt.down, 4) == 4
    assert engine.apply(prompt.use, 4) == 4


def test_interactive_functions_use_the_engine_namespace(engine, tmp_path, monkeypatch):
    (tmp_path / "some_lib.py").write_text("x = 'module'\ndef f(k=1, *, j=2): return x, k, j\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import some_lib

    made = interactive(some_lib.f)
    engine.push(x="engine")
    assert engine.apply(made, 5) == ("engine", 5, 2)
    assert some_lib.f() == ("module", 1, 2)
    assert pack_function(made).digest
