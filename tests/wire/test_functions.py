"""Interactively defined functions, packed here and called in another process."""

from __future__ import annotations

import asyncio
import functools
import gc
import math
import os.path
import subprocess
import sys
import weakref

import numpy as np
import pytest

from hpcremote.errors import PayloadError, RemoteError
from hpcremote.wire import functions, payload
from hpcremote.wire.functions import FunctionCache, load_function, pack_function

# ------------------------------------------------------------------ where functions run, and what they see


def test_lambda_and_module_functions(engine, prompt):
    prompt("double = lambda x: x * 2")
    assert engine.apply(prompt.double, 4) == 8
    assert engine.apply(math.hypot, 3, 4) == 5
    assert engine.apply(os.path.join, "a", "b") == "a/b"
    assert engine.apply(np.linalg.norm, np.ones(4)) == 2
    assert engine.apply(dict, a=1) == {"a": 1}


def test_globals_are_the_engine_namespace(engine, prompt):
    prompt("""
def read(): return a
def write(value):
    global a, fresh
    a = value
    fresh = [value]
""")
    engine.push(a=10)
    assert engine.apply(prompt.read) == 10
    engine.apply(prompt.write, 11)
    assert engine.pull(["a", "fresh"]) == [11, [11]]
    assert not hasattr(prompt.module, "fresh")


def test_helpers_modules_and_classes_travel(engine, prompt):
    prompt("""
import math
import os.path
import xml.etree.ElementTree
import numpy as np
from math import sqrt
def inner(x): return sqrt(x) + 1
def helper(x): return inner(x) * 2
class Box:
    def __init__(self, x): self.x = helper(x)
def use(x):
    tag = xml.etree.ElementTree.fromstring("<a/>").tag
    return Box(x).x, math.floor(2.5), os.path.basename("/a/b"), tag, float(np.sum(np.ones(3)))
""")
    assert engine.apply(prompt.use, 9) == (8.0, 2, "b", "a", 3.0)
    with pytest.raises(RemoteError) as caught:
        engine.pull("helper")
    assert caught.value.ename == "NameError"


def test_the_engine_s_names_win(engine, prompt):
    prompt("""
def helper(): return "client"
def use(): return helper()
""")
    assert engine.apply(prompt.use) == "client"
    engine.execute("def helper(): return 'engine'")
    assert engine.apply(prompt.use) == "engine"
    engine.execute("del helper")
    assert engine.apply(prompt.use) == "client"


def test_data_stays_and_is_hinted_at(engine, prompt):
    prompt("""
N = 100
def inner(): return N
def use(): return inner()
""")
    with pytest.raises(
        RemoteError, match="'N' exists on the client \\(int\\); push it with view\\['N'\\] = N"
    ):
        engine.apply(prompt.use)
    engine.push(N=5)
    assert engine.apply(prompt.use) == 5


def test_attributes_are_not_globals(engine, prompt):
    prompt("""
def size(): raise AssertionError("not this one")
class A: size = 3
def use(a): return a.size
""")
    packed = pack_function(prompt.use)
    assert b"not this one" not in packed.data
    assert engine.apply(prompt.use, prompt.A()) == 3


def test_recursion_and_mutual_recursion(engine, prompt):
    prompt("""
def fact(n): return 1 if n < 2 else n * fact(n - 1)
def even(n): return True if n == 0 else odd(n - 1)
def odd(n): return False if n == 0 else even(n - 1)
def outer():
    def local(n): return 0 if n == 0 else 1 + local(n - 1)
    return local
import functools
@functools.lru_cache(maxsize=7)
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
""")
    assert engine.apply(prompt.fact, 10) == math.factorial(10)
    assert engine.apply(prompt.even, 10) is True
    assert engine.apply(prompt.outer(), 5) == 5
    assert engine.apply(prompt.fib, 60) == 1548008755920


def test_closures_defaults_attributes_and_signatures(engine, prompt):
    prompt(
        """
def maker(k):
    def inner(x, /, y=2, *rest, z=[3], **named) -> "int":
        '''Doc.'''
        return x + k, y, rest, z, named, inner.__name__, inner.tag
    inner.tag = "t"
    return inner
def self_aware(x: int, y: Helper = None) -> list[int]: return x
""".replace("Helper", "list")
    )
    made = prompt.maker(10)
    assert engine.apply(made, 1, 5, 6, w=7) == (11, 5, (6,), [3], {"w": 7}, "inner", "t")
    got = payload.load([pack_function(made).data])
    assert (got.__doc__, got.__module__, got.__qualname__) == ("Doc.", "__main__", "maker.<locals>.inner")
    assert got.__annotations__ == {"return": "int"}
    got = payload.load([pack_function(prompt.self_aware).data])
    assert got.__annotations__ == {"x": int, "y": list, "return": "list[int]"}


def test_an_annotation_does_not_travel_as_an_object(prompt):
    prompt("""
class Heavy:
    def secret_method(self): pass
def f(x: Heavy) -> Heavy: return x
""")
    data = pack_function(prompt.f).data
    assert b"secret_method" not in data
    assert payload.load([data]).__annotations__ == {"x": "Heavy", "return": "Heavy"}


def test_decorated_partial_and_bound(engine, prompt):
    prompt("""
import functools
def shout(f):
    @functools.wraps(f)
    def wrapper(*a): return f(*a).upper() + mark()
    return wrapper
def mark(): return "!"
@shout
def greet(name): return "hi " + name
add = functools.partial(lambda a, b: a + b, 40)
class Counter:
    step = 2
    def __init__(self, n): self.n = n
    def plus(self, k): return self.n + k * self.step + bonus()
    @classmethod
    def name(cls): return cls.__name__
    @staticmethod
    def two(): return 2
    @property
    def size(self): return bonus()
def bonus(): return 1000
""")
    assert engine.apply(prompt.greet, "bob") == "HI BOB!"
    assert engine.apply(prompt.add, 2) == 42
    assert engine.apply(prompt.Counter(5).plus, 3) == 1011
    assert engine.apply(prompt.Counter.name) == "Counter"
    assert engine.apply(prompt.Counter.two) == 2
    assert engine.apply(lambda c: c.size, prompt.Counter(1)) == 1000


def test_methods_see_the_engine_namespace(engine, prompt):
    prompt("""
class Model:
    def run(self): return [scale * x for x in range(3)]
def make(): return Model().run()
""")
    engine.push(scale=10)
    assert engine.apply(prompt.make) == [0, 10, 20]
    assert engine.apply(prompt.Model().run) == [0, 10, 20]


def test_inheritance_super_and_instances(engine, prompt):
    prompt("""
import dataclasses, enum
class A:
    def f(self): return "a"
class B(A):
    def f(self): return super().f() + "b"
@dataclasses.dataclass
class D:
    x: int
    y: list = dataclasses.field(default_factory=list)
class E(enum.Enum):
    ONE = 1
def use(d, e): return B().f(), d.x, e is E.ONE, D(5)
""")
    text, x, same, made = engine.apply(prompt.use, prompt.D(3), prompt.E.ONE)
    assert (text, x, same) == ("ab", 3, True)
    assert type(made) is prompt.D and made == prompt.D(5)


def test_generators_and_coroutines(engine, prompt):
    prompt("""
import asyncio
def h(): return 2
def gen(n):
    for i in range(n): yield i * h()
def total(n): return sum(gen(n))
async def wait(x):
    await asyncio.sleep(0)
    return x * h()
""")
    assert engine.apply(prompt.total, 4) == 12
    assert engine.apply(prompt.wait, 4) == 8
    with pytest.raises(PayloadError, match=r"the result \(a generator\) cannot be sent"):
        engine.apply(prompt.gen, 4)


def test_what_is_defined_during_the_call_sees_carried_names(engine, prompt):
    prompt("""
import math
def helper(x): return math.floor(x) + 1
def nested(n):
    def inner(x): return helper(x)
    class Local:
        value = helper(1.5)
        def get(self): return helper(2.5)
    squares = [helper(x) for x in range(n)]
    lazy = sum(helper(x) for x in range(n))
    table = {k: helper(k) for k in {helper(y) for y in range(n)}}
    last = (lambda: helper(9))(), eval("helper(3)")
    return inner(0.5), Local.value, Local().get(), squares, lazy, table, *last
""")
    expected = (1, 2, 3, [1, 2, 3], 6, {1: 2, 2: 3, 3: 4}, 10, 4)
    assert engine.apply(prompt.nested, 3) == expected
    assert engine.apply(prompt.nested, 3) == expected
    assert engine.pull("sorted(k for k in globals() if not k.startswith('__'))") == []
    assert engine.pull("type(__builtins__).__name__") == "module"


def test_functions_inside_arguments(engine, prompt):
    prompt("""
def helper(x): return x + base
def f(x): return [helper(y) for y in [x]]
def call(table, x): return table["f"][0](x)
""")
    engine.push(base=100)
    assert engine.apply(prompt.call, {"f": [prompt.f]}, 1) == [101]
    assert engine.apply(map_it := (lambda g, xs: list(map(g, xs))), prompt.helper, [1, 2]) == [101, 102]
    assert map_it(lambda x: x, [1]) == [1]


def test_pushed_functions_keep_what_they_need(engine, prompt):
    prompt("""
def helper(x): return x + 1
def f(n): return [helper(x) for x in range(n)]
""")
    engine.push(f=prompt.f)
    engine.execute("y = f(3)")
    assert engine.pull("y") == [1, 2, 3]
    engine.clear()
    with pytest.raises(RemoteError, match="name 'helper' is not defined"):
        engine.pull("helper")


def test_functions_of_a_library_keep_its_globals(engine):
    @functools.total_ordering
    class Version:
        def __init__(self, n):
            self.n = n

        def __eq__(self, other):
            return self.n == other.n

        def __lt__(self, other):
            return self.n < other.n

        __hash__ = None

    assert engine.apply(lambda a, b: a >= b, Version(2), Version(1)) is True


def test_nested_function_of_a_module_that_the_engine_has(engine, tmp_path, monkeypatch):
    (tmp_path / "client_lib.py").write_text(
        "K = 7\ndef make(n):\n    def f(x): return x * n + K\n    return f\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import client_lib

    engine.execute(f"import sys; sys.path.insert(0, {str(tmp_path)!r})")
    assert engine.apply(client_lib.make(2), 10) == 27
    engine.execute("import client_lib; client_lib.K = 100; sys.path.pop(0)")
    assert engine.apply(client_lib.make(2), 10) == 120


def test_nested_function_of_a_module_that_the_engine_lacks(engine, tmp_path, monkeypatch):
    source = "import math\ndef make(n):\n    def f(x): return math.floor(x) * n\n    return f\n"
    (tmp_path / "nowhere_else.py").write_text(source + "def direct(): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import nowhere_else

    assert engine.apply(nowhere_else.make(2), 1.5) == 2
    with pytest.raises(RemoteError, match="No module named 'nowhere_else'"):
        engine.apply(nowhere_else.direct)


def test_a_module_that_the_engine_lacks_is_named(engine, prompt, tmp_path, monkeypatch):
    (tmp_path / "absent_there.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    prompt("import absent_there\ndef f(): return absent_there.x")
    with pytest.raises(RemoteError, match="ModuleNotFoundError\\(No module named 'absent_there'\\)"):
        engine.apply(prompt.f)
    engine.execute("import types; absent_there = types.SimpleNamespace(x=5)")
    assert engine.apply(prompt.f) == 5


def test_tracebacks_show_the_client_s_source(engine, prompt):
    prompt("""
def helper(x):
    return 1 / x  # the culprit

def f(x):
    return helper(x)
""")
    with pytest.raises(RemoteError) as caught:
        engine.apply(prompt.f, 0)
    error = caught.value
    assert "return 1 / x  # the culprit" in error.traceback
    assert "return helper(x)" in error.traceback
    assert "hpcremote/" not in error.traceback
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_results_take_along_what_they_need(engine, prompt):
    prompt("""
def helper(x): return x + 1
def make(n):
    def f(x): return helper(x) * n
    return f
""")
    made = engine.apply(prompt.make, 3)
    assert made(1) == 6
    engine.execute("K = 4\ndef g(x): return x * K")
    assert engine.pull("g")(2) == 8


# ------------------------------------------------------------------ packing again only what changed


def changes(prompt, before, after, name="f"):
    prompt(before)
    first = pack_function(getattr(prompt, name))
    assert pack_function(getattr(prompt, name)) is first
    prompt(after)
    return pack_function(getattr(prompt, name)).data != first.data


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def h(): return 1\ndef f(): return h()", "def h(): return 2"),
        ("def g(): return 1\ndef h(): return g()\ndef f(): return h()", "def g(): return 2"),
        ("def f(x=1): return x", "f.__defaults__ = (2,)"),
        ("def f(x=[1]): return x", "f.__defaults__[0].append(2)"),
        ("def f(x=[1]): return x", "f.__defaults__[0][0] = True"),
        ("def f(x={'a': [1]}): return x", "f.__defaults__[0]['a'].append(2)"),
        ("def f(*, x=1): return x", "f.__kwdefaults__['x'] = 2"),
        ("def f(): return 1", "f.tag = 1"),
        ("def f(): return 1\nf.tag = [1]", "f.tag.append(2)"),
        ("def f(): return 1\ndef g(): return 2", "f.__code__ = g.__code__"),
        (
            "def m():\n    k = 1\n    def f(): return k\n    return f\nf = m()",
            "f.__closure__[0].cell_contents = 2",
        ),
        (
            "def m():\n    k = [1]\n    def f(): return k\n    return f\nf = m()",
            "f.__closure__[0].cell_contents.append(2)",
        ),
        ("import math as m\ndef f(): return m.pi", "import cmath as m"),
        ("def h(): return 1\nh.k = 1\ndef f(): return h()", "h.k = 2"),
        ("def h(x=[1]): return x\ndef f(): return h()", "h.__defaults__[0].append(3)"),
        ("def f(): return late()", "def late(): return 1"),
        ("h = 5\ndef f(): return h()", "def h(): return 1"),
        ("def h(): return 1\ndef f(): return h()", "del h"),
        ("class C:\n    k = 1\ndef f(): return C.k", "C.k = 2"),
        ("class C:\n    def m(self): return 1\ndef f(): return C().m()", "C.m = lambda self: 2"),
        (
            "class C:\n    def m(self): return h()\ndef h(): return 1\ndef f(): return C().m()",
            "def h(): return 2",
        ),
        ("class B:\n    k = 1\nclass C(B): pass\ndef f(): return C.k", "B.k = 2"),
        (
            "import functools\ndef h(a): return a\np = functools.partial(h, [1])\ndef f(): return p()",
            "p.args[0].append(2)",
        ),
        ("from math import sin as s\ndef f(): return s(1)", "from math import cos as s"),
    ],
)
def test_a_change_makes_a_new_pack(prompt, before, after):
    assert changes(prompt, before, after)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("N = 1\ndef f(): return N", "N = 2"),
        ("def f(): return 1", "unrelated = 3"),
        ("def h(): return 1\ndef f(): return 1", "def h(): return 2"),
    ],
)
def test_what_does_not_matter_does_not(prompt, before, after):
    assert not changes(prompt, before, after)


def test_state_that_cannot_be_checked_is_packed_again(prompt):
    prompt("""
class State: pass
def make():
    state = State()
    state.x = 1
    def f(): return state.x
    return f, state
f, state = make()
import numpy as np
def g(a=np.zeros(2)): return a
""")
    first = pack_function(prompt.f)
    prompt("state.x = 2")
    assert pack_function(prompt.f).digest != first.digest
    first = pack_function(prompt.g)
    prompt("g.__defaults__[0][0] = 5")
    assert pack_function(prompt.g).digest != first.digest


def test_redefined_helpers_are_never_stale(engine, prompt):
    prompt("def h(): return 1\ndef f(): return [h() for _ in 'a']")
    assert engine.apply(prompt.f) == [1]
    prompt("def h(): return 2")
    assert engine.apply(prompt.f) == [2]
    prompt("class C:\n    def m(self): return 1\ndef g(): return C().m()")
    assert engine.apply(prompt.g) == 1
    prompt("C.m = lambda self: 2")
    assert engine.apply(prompt.g) == 2
    prompt("class C:\n    def m(self): return 3")
    assert engine.apply(prompt.g) == 3


def test_packed_functions_are_not_kept_alive(prompt):
    prompt("def f(): return f\ndef m():\n    def inner(): return inner\n    return inner\ng = m()")
    for name in ("f", "g"):
        function = getattr(prompt, name)
        pack_function(function)
        watcher, key = weakref.ref(function), id(function)
        delattr(prompt.module, name)
        del function
        gc.collect()
        assert watcher() is None and key not in functions._packed


def test_small_references_travel_inline_and_definitions_by_digest(prompt):
    prompt("def f(): pass")
    assert pack_function(math.sqrt).digest == b""
    packed = pack_function(prompt.f)
    assert len(packed.digest) == 16 and len(packed.data) > functions.INLINE


def test_a_function_that_cannot_be_packed_is_named(prompt):
    prompt("""
import threading
def make():
    lock = threading.Lock()
    def f(): return lock
    return f
f = make()
""")
    with pytest.raises(
        PayloadError, match=r"function make.<locals>.f cannot be sent \(its variable 'lock'\)"
    ):
        pack_function(prompt.f)


def test_of_a_method_that_cannot_be_packed_its_object_is_named(prompt):
    prompt("""
import threading
class Guard:
    def __init__(self): self.lock = threading.Lock()
    def work(self): return 1
guard = Guard()
""")
    with pytest.raises(PayloadError, match=r"function Guard.work cannot be sent at \.__self__"):
        pack_function(prompt.guard.work)


# ------------------------------------------------------------------ the engine's cache


def test_calls_do_not_leak_state_into_each_other(engine, prompt):
    prompt("""
def collect(x, seen=[]):
    seen.append(x)
    return seen
def make():
    n = 0
    def count():
        nonlocal n
        n += 1
        return n
    return count
count = make()
def tag():
    tag.n = getattr(tag, "n", 0) + 1
    return tag.n
def through(): return collect(1)
""")
    for _ in range(2):
        assert engine.apply(prompt.collect, 1) == [1]
        assert engine.apply(prompt.count) == 1
        assert engine.apply(prompt.through) == [1]


def test_stateless_functions_are_rebuilt_once():
    namespace = {"__builtins__": __builtins__}
    script = """
import math
from hpcremote.wire.functions import pack_function
import sys
def h(x): return math.sqrt(x)
def plain(x, y=2): return x + y
def helped(x): return h(x)
def mutable(x, y=[]): return y
for f in (plain, helped, mutable): sys.stdout.write(pack_function(f).data.hex() + "\\n")
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    plain, helped, mutable = map(bytes.fromhex, out.split())
    assert load_function(plain, namespace)(1) == 3
    try:
        cache = FunctionCache()
        for name, data, once in ((b"p", plain, True), (b"h", helped, True), (b"m", mutable, False)):
            cache.define(name, data)
            again = cache.load(name).function is cache.load(name).function
            assert again is once
        assert cache.load(b"h").function(4) == 2
    finally:
        from hpcremote.wire import scope

        scope.set_namespace(None)


def test_cache_is_bounded_by_count_and_bytes():
    cache = FunctionCache(limit=3, size=100)
    for name in b"abcd":
        cache.define(bytes([name]), b"x")
    assert b"a" not in cache and len(cache) == 3
    cache.define(b"big", b"x" * 200)
    assert b"big" in cache and len(cache) == 1
    cache.define(b"e", b"x")
    assert b"big" not in cache and b"e" in cache
    with pytest.raises(KeyError):
        cache.load(b"a")


def test_recently_used_definitions_stay():
    data = pack_function(math.sqrt).data
    cache = FunctionCache(limit=2)
    cache.define(b"a", data)
    cache.define(b"b", data)
    cache.load(b"a")
    cache.define(b"c", data)
    assert b"a" in cache and b"b" not in cache


def test_another_python_is_a_clear_error(prompt):
    prompt("def f(): pass")
    from hpcremote.wire import codes

    real = codes.VERSION
    codes.VERSION = (3, 1)
    try:
        data = functions._pack(prompt.f).data
    finally:
        codes.VERSION = real
    with pytest.raises(
        PayloadError, match=r"the function f was defined under Python 3\.1 and cannot run here"
    ):
        payload.load([data])


def test_coroutine_is_not_awaited_here(prompt):
    prompt("async def f(): return 1")
    got = payload.load([pack_function(prompt.f).data])
    assert asyncio.run(got()) == 1
