"""Times and memory as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.quantities import clock, duration, megabytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2:00:00", 7200),
        ("0:30", 1800),
        ("1-12:00:00", 129600),
        ("90", 5400),
        ("90 min", 5400),
        ("1h 30min", 5400),
        ("2 hours", 7200),
        ("1.5h", 5400),
        ("45s", 45),
        ("2d", 172800),
    ],
)
def test_times(text: str, seconds: int) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0:00", "1:60", "1:00:60", "soon", "5 parsecs", "-5", "2:00:00 h", "1h2"]
)
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError):
        duration(text)


@given(st.integers(1, 10**7))
def test_a_clock_is_read_back(seconds: int) -> None:
    assert duration(clock(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4096", 4096),
        ("4G", 4096),
        ("4 GiB", 4096),
        ("512mb", 512),
        ("1T", 1048576),
        ("1k", 1),
        ("1.5g", 1536),
    ],
)
def test_memory(text: str, amount: int) -> None:
    assert megabytes(text) == amount


@pytest.mark.parametrize("text", ["", "0", "much", "4X", "-4G", "G"])
def test_no_memory(text: str) -> None:
    with pytest.raises(ValueError):
        megabytes(text)
