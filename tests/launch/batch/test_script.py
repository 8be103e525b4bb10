"""Job scripts from templates: what stays of a line, and how values are written."""

from __future__ import annotations

import pytest

from hpcremote import profile
from hpcremote.errors import LaunchError
from hpcremote.launch.batch import script

LINES = [
    ("#X -n @n@", {"n": 4}, "#X -n 4\n"),
    ("#X -n @n@", {"n": None}, "\n"),
    ("#X -n @n@", {}, "\n"),
    ("#X -J @name@", {"name": "two words"}, '#X -J "two words"\n'),
    ("cd @where@", {"where": "/a b"}, "cd '/a b'\n"),
    ("@run@ &", {"run": ("py", "x y")}, "py 'x y' &\n"),
    ("@setup@", {"setup": ["a b", "c"]}, "a b\nc\n"),
    ("@setup@", {"setup": []}, "\n"),
    ("wait   @if_waits@", {"if_waits": ""}, "wait\n"),
    ("wait   @if_waits@", {"if_waits": None}, "\n"),
    ("#X s=@n@@(:mem=@mb@mb)@@(:gpus=@g@)@", {"n": 2, "mb": 512, "g": 1}, "#X s=2:mem=512mb:gpus=1\n"),
    ("#X s=@n@@(:mem=@mb@mb)@@(:gpus=@g@)@", {"n": 2, "g": 1}, "#X s=2:gpus=1\n"),
    ("#X s=@n@@(:mem=@mb@mb)@@(:gpus=@g@)@", {"n": 2}, "#X s=2\n"),
    ("#X s=@n@@(:mem=@mb@mb)@", {"mb": 512}, "\n"),
]


@pytest.mark.parametrize(("line", "values", "written"), LINES)
def test_a_line(line: str, values: dict[str, script.Value], written: str) -> None:
    assert script.render(line, values, str) == written


def test_templates_stand_for_each_other_and_leave_no_gaps() -> None:
    parts = {"b.in": "b @x@\n\n@include c.in@", "c.in": "c"}
    assert (
        script.render("a\n\n@include b.in@\n\n\n\nd\n\n", {"x": 1}, parts.__getitem__)
        == "a\n\nb 1\n\nc\n\nd\n"
    )


LAYOUTS = [
    ({"nodes": 2, "ranks_per_node": 4}, 8, {}, (2, 4)),
    ({"nodes": 2}, 8, {}, (2, 4)),
    ({"nodes": 2}, 5, {}, (2, 3)),
    ({"ranks_per_node": 4}, 6, {}, (2, 4)),
    ({}, 6, {}, (None, None)),
    ({}, 6, {"nodes": "1"}, (1, 6)),
    ({"ranks_per_node": 4}, 6, {"nodes": "1"}, (2, 4)),
]


@pytest.mark.parametrize(("keys", "n", "defaults", "layout"), LAYOUTS)
def test_nodes_and_ranks_on_each_are_known_together(
    keys: dict[str, int], n: int, defaults: dict[str, str], layout: tuple[int | None, int | None]
) -> None:
    values = script.resources(profile.Profile("p", **keys), n, defaults)
    assert (values.get("nodes"), values.get("ranks_per_node")) in (layout, tuple(map(str, layout)))


@pytest.mark.parametrize(
    ("keys", "n", "said"),
    [
        ({"nodes": 4}, 3, "3 engines on 4 nodes: some would have none"),
        ({"nodes": 2, "ranks_per_node": 2}, 5, "5 engines do not fit on 2 nodes with 2 each"),
    ],
)
def test_numbers_that_contradict_each_other(keys: dict[str, int], n: int, said: str) -> None:
    with pytest.raises(LaunchError, match=said):
        script.resources(profile.Profile("p", **keys), n, {})


def test_a_value_cannot_bring_lines_of_its_own() -> None:
    with pytest.raises(LaunchError, match="key 'queue' has more than one line"):
        script.resources(profile.Profile("p", queue="a\n#X -evil"), 1, {})


def test_a_key_may_be_taken_by_script_or_command() -> None:
    asked = profile.Profile("p", scheduler="x", memory=512)
    script.check_use(asked, "#X @memory_kb@", [])
    script.check_use(asked, "", ["mem=$memory_mb"])
    with pytest.raises(LaunchError, match="key 'memory': launcher 'x' has no place for it"):
        script.check_use(asked, "#X @n@", ["-n $n"])
