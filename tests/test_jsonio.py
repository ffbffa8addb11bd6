"""Documents from strangers are refused with a sentence; what is written is complete or absent."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from publisher import jsonio
from publisher.jsonio import DocumentError

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(json_values)
def test_canonical_json_reads_back_with_the_standard_library(value: object) -> None:
    assert json.loads(jsonio.dump_json(value)) == value
    assert jsonio.loads_json(jsonio.dump_line(value), "x") == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_key_order_does_not_change_the_digest(value: dict[str, int]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert jsonio.digest(value) == jsonio.digest(backwards)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b'{"a": 1, "a": 2}', "'a' twice"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b"\xef\xbb\xbf{}", "byte-order mark"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": }', "line 1, column 7"),
        (b"[" * 100_000, "deeper"),
        (b"", "not JSON"),
    ],
)
def test_bad_json_is_named(document: bytes, says: str) -> None:
    with pytest.raises(DocumentError, match=says) as caught:
        jsonio.loads_json(document, "config.json")
    assert "config.json" in caught.value.message


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("a: 1\na: 2\n", "occurs twice at line 2"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        (
            "a: !!python/object/apply:os.system [ls]\n",
            "the tag 'tag:yaml.org,2002:python/object/apply:os.system' is not",
        ),
        ("a: !!bool perhaps\n", "tag.*is not read at line 1"),
        ('a: !!int ""\n', "tag.*is not read"),
        ("a: !!timestamp never\n", "tag.*is not read"),
        ('a: "\\ud800"\n', "half a character.*line 1"),
        (f"a: {'1:' * 200}1.5\n", "too large"),
        ("a: 2026-13-01\n", "month"),
        ("a: [1\n", "line"),
    ],
)
def test_bad_yaml_is_named(document: str, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        jsonio.loads_yaml(document, "recipe.yaml")


def test_bad_toml_is_named() -> None:
    with pytest.raises(DocumentError, match=r"card\.toml is not TOML"):
        jsonio.loads_toml(b"a = \n", "card.toml")


def test_a_missing_and_an_oversized_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        jsonio.load_json(tmp_path / "none.json")
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(DocumentError, match="longer than 10 bytes"):
        jsonio.read_bytes(tmp_path / "big", limit=10)


def test_nan_is_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        jsonio.dump_json({"a": math.nan})


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.json"
    jsonio.write_atomic(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        jsonio.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1e999}', "larger than a number"),
        ('{"a": ' + "9" * 5000 + "}", "thousands of digits"),
        ('{"a": ' + "[" * 300 + "]" * 300 + "}", "nested deeper"),
        ("[" * 100_000, "nested deeper"),
    ],
)
def test_json_that_could_not_be_written_again_is_refused(text: str, says: str) -> None:
    with pytest.raises(DocumentError, match=says):
        jsonio.loads_json(text, "config.json")
    assert jsonio.loads_json("[" * 150 + "]" * 150, "config.json")


def test_leftovers_of_killed_writes_are_swept(tmp_path: Path) -> None:
    jsonio.write_atomic(tmp_path / "sub/kept.json", "{}")
    (tmp_path / "sub/.kept.json.x1.partial").write_text("{")
    jsonio.sweep(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept.json"]
