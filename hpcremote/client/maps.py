"""Parts of sequences: how they are dealt to engines, and how parts become one again.

::

    'b', blocks       0 1 2 3 4 5 6  on 3 engines:   0 1 2 | 3 4 | 5 6      (longer parts first)
    'r', round robin  0 1 2 3 4 5 6  on 3 engines:   0 3 6 | 1 4 | 2 5

numpy is only looked at where the program has imported it already.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Sequence
from itertools import chain, islice
from typing import Any


def as_sequence(items: Any, most: int | None = None) -> Any:
    """Return *items* if it can be sliced, else a list of what it yields, of *most* items at most."""
    sized = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    if sized and not isinstance(items, dict) and getattr(items, "shape", None) != ():
        return items
    try:
        return list(islice(items, most))
    except TypeError:
        raise TypeError(
            f"what is dealt to engines has to be a sequence or an iterator, not {items!r:.80}"
        ) from None


def as_sequences(sequences: Sequence[Any]) -> list[Any]:
    """Return all of them as sequences. An iterator without an end is fine beside something that has one."""
    sizes = [len(items) for items in sequences if hasattr(items, "__len__")]
    return [as_sequence(items, min(sizes, default=None)) for items in sequences]


class Blocks:
    """Contiguous parts."""

    def part(self, items: Any, index: int, parts: int, length: int) -> Any:
        """Return part *index* of *parts* of the first *length* of *items*."""
        size, longer = divmod(length, parts)
        start = index * size + min(index, longer)
        return _cut(items, start, start + size + (index < longer), 1)

    def join(self, parts: Sequence[Any]) -> Any:
        """Return the whole; parts that are no sequences of one kind come back as a list of them."""
        if not parts:
            return []
        if (numpy := _numpy_of(parts)) is not None:
            return _concatenate(numpy, parts)
        if all(isinstance(part, array.array) for part in parts):
            return array.array(parts[0].typecode, chain.from_iterable(parts))
        if _are_sequences(parts):
            return list(chain.from_iterable(parts))
        return list(parts)


class RoundRobin(Blocks):
    """Every engine gets every n-th item."""

    def part(self, items: Any, index: int, parts: int, length: int) -> Any:
        """Return part *index* of *parts* of the first *length* of *items*."""
        return _cut(items, index, length, parts)

    def join(self, parts: Sequence[Any]) -> Any:
        """Return the whole: the first of each part, the second of each, ... as long as a part has one."""
        if not parts:
            return []
        if (numpy := _numpy_of(parts)) is not None:
            turn = numpy.concatenate([numpy.arange(len(part)) for part in parts])
            return _concatenate(numpy, parts)[numpy.argsort(turn, kind="stable")]
        if all(isinstance(part, array.array) for part in parts):
            return array.array(parts[0].typecode, _interleave(parts))
        return _interleave(parts) if _are_sequences(parts) else list(parts)


_MAPS: dict[str, Blocks] = {"b": Blocks(), "r": RoundRobin()}


def map_of(dist: str) -> Blocks:
    """Return the way of dealing that *dist* names.

    Raises:
        ValueError: there is no such way.
    """
    try:
        return _MAPS[dist]
    except (KeyError, TypeError):
        raise ValueError(f"dist is 'b' (blocks) or 'r' (round robin), not {dist!r}") from None


def _cut(items: Any, start: int, stop: int, step: int) -> Any:
    try:
        return items[start:stop:step]
    except (TypeError, KeyError):  # has a length and items, and no slices: deque
        return list(islice(items, start, stop, step))


def _interleave(parts: Sequence[Any]) -> list[Any]:
    longest = max(len(part) for part in parts)
    return [part[turn] for turn in range(longest) for part in parts if turn < len(part)]


def _are_sequences(parts: Sequence[Any]) -> bool:
    return all(isinstance(part, (list, tuple, range)) for part in parts)


def _numpy_of(parts: Sequence[Any]) -> Any:
    """Return numpy if every part is an array with a first axis."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not all(isinstance(part, numpy.ndarray) and part.ndim for part in parts):
        return None
    return numpy


def _concatenate(numpy: Any, parts: Sequence[Any]) -> Any:
    if (whole := _of_one_memory(numpy, parts)) is not None:
        return whole
    if any(isinstance(part, numpy.ma.MaskedArray) for part in parts):
        return numpy.ma.concatenate(parts)  # numpy.concatenate would lose the mask
    # Of parts whose numbers have another byte order than the machine's it would make its own.
    kind = parts[0].dtype
    return numpy.concatenate(parts, dtype=kind if all(part.dtype == kind for part in parts) else None)


def _of_one_memory(numpy: Any, parts: Sequence[Any]) -> Any:
    """Return the whole, not copied, if its parts lie one behind the other in one memory, as they may come."""
    first = parts[0]
    memory = _memory_of(numpy, first)
    if memory is None or len(parts) < 2:
        return None
    start = at = _address(first)
    for part in parts:
        alike = (
            type(part) is numpy.ndarray and part.dtype == first.dtype and part.shape[1:] == first.shape[1:]
        )
        if not (alike and part.flags.c_contiguous and part.flags.writeable and _address(part) == at):
            return None
        if _memory_of(numpy, part) is not memory:
            return None
        at += part.nbytes
    bytes_of = numpy.frombuffer(memory, "u1")
    low = start - _address(bytes_of)
    return bytes_of[low : low + at - start].view(first.dtype).reshape(-1, *first.shape[1:])


def _memory_of(numpy: Any, array: Any) -> Any:
    """Return what owns the memory of an array that came from elsewhere; None if it is its own."""
    while isinstance(array, numpy.ndarray):
        array = array.base
    return array.obj if isinstance(array, memoryview) and array.obj is not None else None


def _address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])
