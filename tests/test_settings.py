from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcremote.errors import ProfileError
from hpcremote.settings import Entry, Key, convert, entries

KEYS = [
    Key("word", "str", "", "", "", (), None),
    Key("size", "int", 0, "", "bytes", (), 1),
    Key("wait", "float", 0.0, "", "seconds", (), 0),
    Key("fast", "bool", False, "", "", (), None),
    Key("args", "tuple[str, ...]", (), "", "", (), None),
    Key("vars", "dict[str, str]", {}, "", "", (), None),
    Key("kind", "str", "a", "", "", ("auto", "mpich"), None),
]


def read(tmp_path: Path, text: str) -> dict[str, object]:
    file = tmp_path / "it.yaml"
    file.write_text(text)
    return {entry.key: convert(entry, KEYS) for entry in entries(file)}


def test_a_value_is_what_its_key_says(tmp_path: Path) -> None:
    text = "word: on\nsize: 10\nwait: 2\nfast: yes\nargs: [-x, 1, no]\nvars: {A: 1, B: off}\nkind: mpich\n"
    assert read(tmp_path, text) == {
        "word": "on",
        "size": 10,
        "wait": 2.0,
        "fast": True,
        "args": ("-x", "1", "no"),
        "vars": {"A": "1", "B": "off"},
        "kind": "mpich",
    }


def test_null_is_as_if_the_key_were_not_there_but_quoted_it_is_text(tmp_path: Path) -> None:
    assert read(tmp_path, "word:\nsize: ~\nwait: null\n") == {"word": None, "size": None, "wait": None}
    assert read(tmp_path, "word: 'null'\n") == {"word": "null"}
    assert read(tmp_path, "# nothing\n") == {}


def test_variables_and_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("RANKS", "8")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    assert read(tmp_path, "word: $SCRATCH/a${RANKS}\nsize: $RANKS\n") == {"word": "/scratch/me/a8", "size": 8}
    assert read(tmp_path, "size: ${UNSET:-3}\nword: ~/x\n") == {"size": 3, "word": "/home/me/x"}
    assert read(tmp_path, "word: 'a${EMPTY}b${EMPTY:-c}$$d$'\n") == {"word": "abc$d$"}
    assert read(tmp_path, "args: ['$RANKS']\nvars: {A: $SCRATCH}\n") == {
        "args": ("8",),
        "vars": {"A": "/scratch/me"},
    }
    with pytest.raises(
        ProfileError, match=r"it.yaml:3: key 'args': the environment variable UNSET is not set"
    ):
        read(tmp_path, "args:\n  - a\n  - $UNSET\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("size: 1\nsizes: 2\n", "it.yaml:2: key 'sizes' is not known; did you mean 'size'?"),
        ("extnds: a\n", "it.yaml:1: key 'extnds' is not known; did you mean 'extends'?"),
        ("zzz: 1\n", "it.yaml:1: key 'zzz' is not known$"),
        ("\n\nsize: ten\n", "it.yaml:3: key 'size' has to be a whole number, not 'ten'"),
        ("size: 1.5\n", "key 'size' has to be a whole number, not '1.5'"),
        ("size: 0\n", "key 'size' has to be at least 1, not 0 bytes"),
        ("wait: -1\n", "key 'wait' has to be at least 0, not -1.0 seconds"),
        ("wait: nan\n", "key 'wait' has to be at least 0, not nan seconds"),
        ("fast: maybe\n", "key 'fast' has to be true or false, not 'maybe'"),
        ("args: --bind-to core\n", "key 'args' has to be a list of words"),
        ("args: [[a]]\n", "key 'args' has to be a list of words"),
        ("vars: [A]\n", "key 'vars' has to be a mapping"),
        ("vars: {A: }\n", "key 'vars' has to be a mapping"),
        ("word: [a]\n", "key 'word' has to be text"),
        ("kind: mpic\n", "key 'kind' has to be one of auto, mpich, not 'mpic'; did you mean 'mpich'?"),
        ("size: 1\nsize: 2\n", "it.yaml:2: key 'size' is there twice .first at .*it.yaml:1"),
        ("- a\n", "it.yaml:1: a profile is lines of `key: value`"),
        ("word: a\n  size: 1\n", "it.yaml:2: not YAML: mapping values are not allowed here"),
        ("word: 'a\n", "it.yaml:2: not YAML: found unexpected end of stream"),
        ("word: [a\n", "not YAML"),
        ("word: &a [*a]\n", "key 'word' is nested too deeply|not YAML"),
        ("? [a]\n: b\n", "it.yaml:1: key .* is not known"),
        ("word: a\x00\n", "it.yaml: not YAML"),
    ],
)
def test_mistakes_are_named_by_file_line_and_key(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        read(tmp_path, text)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"word: \xe9\n")
    with pytest.raises(ProfileError, match=r"cannot read .*latin.yaml"):
        list(entries(tmp_path / "latin.yaml"))
    with pytest.raises(ProfileError, match=r"cannot read .*: No such file"):
        list(entries(tmp_path / "none.yaml"))


@given(st.text(max_size=60))
def test_any_text_is_entries_or_a_profile_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        found = list(entries(file))
    except ProfileError as error:
        assert str(file) in str(error)
    else:
        assert all(isinstance(entry, Entry) for entry in found)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("size", 4, 4), ("size", "4", 4), ("wait", 1, 1.0), ("wait", "0.5", 0.5), ("fast", False, False),
        ("word", Path("/a"), "/a"), ("args", ("a",), ("a",)), ("vars", {"A": "1"}, {"A": "1"}),
    ],
)  # fmt: skip
def test_python_values_do_as_well(key: str, value: object, expected: object) -> None:
    assert convert(Entry(key, value, "override"), KEYS) == expected


@pytest.mark.parametrize(
    ("key", "value"), [("size", True), ("size", 1.5), ("wait", True), ("fast", 1), ("word", 5)]
)
def test_python_values_of_the_wrong_type(key: str, value: object) -> None:
    with pytest.raises(ProfileError, match=f"^key '{key}' has to be"):
        convert(Entry(key, value, "override"), KEYS)
