"""Many engine ids in few numbers. Pure.

A call on all of 65,536 engines is handed on to each of their nodes, so its targets must not take 65,536
numbers. In the compact form ``-n`` behind an id stands for the next *n* ids: ``[0, -3, 7]`` is 0, 1, 2, 3, 7.
Ids are not negative, and a short list stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

#: Up to so many ids are not worth it.
SHORT = 16


def compact(ids: Sequence[int]) -> list[int]:
    """Return *ids* in the compact form."""
    if len(ids) <= SHORT:
        return list(ids)
    first, last = ids[0], ids[-1]
    if last - first == len(ids) - 1 and list(ids) == list(range(first, last + 1)):
        return [first, first - last]
    found: list[int] = []
    run = 0
    before = -2
    for one in ids:
        if one == before + 1:
            run += 1
        else:
            if run:
                found.append(-run)
            found.append(one)
            run = 0
        before = one
    if run:
        found.append(-run)
    return found


def expand(ids: list[int], most: int = 1 << 24) -> list[int]:
    """Return the ids that a compact form stands for (of one id, the very list).

    Raises:
        ValueError: they are more than *most*, or it begins with a number that is no id.
    """
    if len(ids) == 1 and ids[0] >= 0:
        return ids
    found: list[int] = []
    for one in ids:
        if one >= 0:
            found.append(one)
        elif not found or len(found) - one > most:
            raise ValueError(f"{one} behind {len(found)} engine ids")
        else:
            found += range(found[-1] + 1, found[-1] + 1 - one)
    return found
