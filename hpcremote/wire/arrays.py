"""How numpy arrays are pickled, so that they arrive as they are and writable. numpy is never imported here.

Pickle protocol 5 hands out the memory of a contiguous array without a copy; the rest of what numpy does
is not good enough: a read-only array stays read-only, and one with gaps is copied into the stream, and
loses its byte order.
"""

from __future__ import annotations

import copyreg
import sys
from pickle import PickleBuffer
from typing import Any


def ndarray() -> Any:
    """Return the class of arrays, or None while nobody has imported numpy (then there is no array)."""
    return getattr(sys.modules.get("numpy"), "ndarray", None)


def dispatch_table(kind: Any) -> dict[Any, Any]:
    """Return pickle's table of reducers, with ours for arrays (of class *kind*)."""
    return {**copyreg.dispatch_table, kind: reduce_array}


def reduce_array(array: Any) -> Any:
    """Reduce a numpy array (pickle's protocol: what to call to make it again, and with what)."""
    flags = array.flags
    if not flags.forc and not array.dtype.hasobject:
        return array.copy(order="C").__reduce_ex__(5)
    reduced = array.__reduce_ex__(5)
    if flags.writeable:
        return reduced
    maker, arguments, *rest = reduced
    if not arguments or type(arguments[0]) is not PickleBuffer:
        return reduced
    return (maker, (_writable(arguments[0].raw()), *arguments[1:]), *rest)


class _Alias:
    """A buffer as numpy is to see it: writable, whatever it says itself. It is only ever read."""

    def __init__(self, raw: memoryview, address: int) -> None:
        self.raw = raw  # keeps the memory alive
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (raw.nbytes,),
            "data": (address, False),
        }


def _writable(raw: memoryview) -> PickleBuffer:
    if not raw.nbytes:
        return PickleBuffer(bytearray())
    numpy = sys.modules["numpy"]
    address = numpy.frombuffer(raw, "u1").__array_interface__["data"][0]
    return PickleBuffer(numpy.asarray(_Alias(raw, address)))
