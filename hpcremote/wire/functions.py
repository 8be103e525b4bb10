"""Functions on their way to engines, and what engines keep of them.

::

    client: f ──pack_function──▶ digest, data ──▶ Define(digest, data) once, then Call(digest)
    engine: FunctionCache: digest ──▶ data ──load──▶ function, scopes ──▶ called with scopes active

The client packs a function again only when it changed (:mod:`hpcremote.wire.fingerprint`). The engine
rebuilds it for every call, so that no call leaves state to the next, unless it has no state.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import ref

from hpcremote.errors import PayloadError
from hpcremote.wire import culprit, fingerprint, scope
from hpcremote.wire.pickler import CallPickler, by_reference, fast_dumps
from hpcremote.wire.scope import Scope

#: A packed function up to this size travels in the call itself.
INLINE = 256


class PackedFunction(NamedTuple):
    """A function's definition and its digest; the digest is empty when the definition goes with each call."""

    digest: bytes
    data: bytes


class _Entry(NamedTuple):
    function: Callable[[], Any]
    packed: PackedFunction
    fingerprint: fingerprint.Fingerprint


_packed: dict[int, _Entry] = {}


def pack_function(function: Callable[..., Any]) -> PackedFunction:
    """Return *function* packed; the same again while it, and all that it uses, stays the same.

    Raises:
        PayloadError: it cannot be pickled; the message says which part of it.
    """
    entry = _packed.get(id(function))
    if entry is not None and entry.function() is function and entry.fingerprint.holds():
        return entry.packed
    packed = _pack(function)
    if packed.digest and type(function) is FunctionType:
        _remember(function, packed)
    return packed


def _pack(function: Callable[..., Any]) -> PackedFunction:
    data = fast_dumps(function)
    if data is None:
        try:
            data = _dumps(function)
        except Exception as error:
            raise _refusal(function, error) from error
    if len(data) <= INLINE:
        return PackedFunction(b"", data)
    from hashlib import blake2b  # only clients need it

    return PackedFunction(blake2b(data, digest_size=16).digest(), data)


def _dumps(function: Any) -> bytes:
    file = io.BytesIO()
    CallPickler(file).dump(function)
    return file.getvalue()


def _remember(function: FunctionType, packed: PackedFunction) -> None:
    key = id(function)
    print_ = fingerprint.take(function)
    if print_ is None:
        _packed.pop(key, None)
        return

    def forget(gone: ref[FunctionType]) -> None:
        entry = _packed.get(key)
        if entry is not None and entry.function is gone:
            del _packed[key]

    _packed[key] = _Entry(ref(function, forget), packed, print_)


def _refusal(function: Any, error: Exception) -> PayloadError:
    if isinstance(error, PayloadError):
        return error
    path, _, cause = culprit.blame(function, _dumps, error)
    inside = path if path[:1] in ("", " ") else f" at {path}"
    return PayloadError(f"the function {name_of(function)} cannot be sent{inside}: {culprit.reason(cause)}")


def name_of(function: Any) -> str:
    """Return what to call *function* in messages."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", None)
    return name if isinstance(name, str) else repr(function)[:80]


# ------------------------------------------------------------------ engine


class Loaded(NamedTuple):
    """A function ready to be called, and the scopes to be active while it runs."""

    function: Callable[..., Any]
    scopes: tuple[Scope, ...]


def load_function(data: bytes, namespace: dict[str, Any]) -> Callable[..., Any]:
    """Return the function that *data* defines, with *namespace* as its globals."""
    if scope.engine_namespace() is not namespace:
        scope.set_namespace(namespace)
    return _load(data)[0].function


def _load(data: bytes) -> tuple[Loaded, bool]:
    """Return the function and whether it may be called again without being rebuilt."""
    loading = scope.begin_loading()
    function = pickle.loads(data)
    if not callable(function):
        raise TypeError(f"{type(function).__name__!r} object is not callable")
    loaded = Loaded(function, scope.carrying(loading.scopes))
    return loaded, not loading.volatile and _stateless(function, loading)


def _stateless(function: Any, loading: scope.Loading) -> bool:
    if not loading.functions:
        return isinstance(function, (FunctionType, BuiltinFunctionType, type))
    return (
        type(function) is FunctionType
        and all(map(_keeps_nothing, loading.functions))
        and all(_is_fixed(value, loading) for made in loading.scopes for value in made.carried.values())
    )


def _keeps_nothing(function: FunctionType) -> bool:
    return (
        function.__closure__ is None
        and not function.__dict__
        and all(map(_immutable, function.__defaults__ or ()))
        and all(map(_immutable, (function.__kwdefaults__ or {}).values()))
    )


_IMMUTABLE = (type(None), bool, int, float, complex, str, bytes)


def _immutable(value: Any) -> bool:
    return type(value) in _IMMUTABLE or (type(value) is tuple and all(map(_immutable, value)))


def _is_fixed(value: Any, loading: scope.Loading) -> bool:
    if isinstance(value, (ModuleType, BuiltinFunctionType)) or type(value).__name__ == "ufunc":
        return True
    if type(value) is FunctionType:
        return value in loading.functions or by_reference(value)
    return isinstance(value, type) and by_reference(value)


class FunctionCache:
    """Definitions that an engine keeps, the least recently used ones leaving first.

    The two threads of an engine may use it at once: each step on the dict is atomic, and losing an entry
    only means that the client sends it again.
    """

    def __init__(self, limit: int = 1024, size: int = 64 << 20) -> None:
        self._limit = limit
        self._size = size
        self._held = 0
        self._data: OrderedDict[bytes, bytes] = OrderedDict()
        self._loaded: dict[bytes, Loaded] = {}

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._data

    def __len__(self) -> int:
        return len(self._data)

    def define(self, digest: bytes, data: bytes) -> None:
        """Keep a definition. The newest one stays however big it is."""
        if digest in self._data:
            return
        self._data[digest] = data
        self._held += len(data)
        while len(self._data) > 1 and (len(self._data) > self._limit or self._held > self._size):
            old, gone = self._data.popitem(last=False)
            self._held -= len(gone)
            self._loaded.pop(old, None)

    def load(self, digest: bytes) -> Loaded:
        """Return the function with this digest.

        Raises:
            KeyError: it is not here (any more).
        """
        self._data.move_to_end(digest)
        return self._loaded.get(digest) or self._load(digest, self._data[digest])

    def load_inline(self, data: bytes) -> Loaded:
        """Return the function that *data*, out of a call, defines."""
        self.define(data, data)
        return self.load(data)

    def _load(self, key: bytes, data: bytes) -> Loaded:
        loaded, reusable = _load(data)
        if reusable and key in self._data:
            self._loaded[key] = loaded
        return loaded
