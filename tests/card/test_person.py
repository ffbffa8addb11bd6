"""card.toml: a typo is named, never a sentence lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.card.person import part, read_person
from publisher.jsonio import DocumentError

GOOD = """
base_model = "org/name"
intended_use = ["Chat."]
notes = ["One.", "Two."]
limitations = ["Not tested."]
[publisher]
name = "Example Lab"
contact = "models@example.org"
affiliation = "Independent of org."
[gate]
heading = "Before you ask"
description = "Why we ask."
prompt = "Accept the terms."
button = "Ask"
[gate.fields]
Company = "text"
"Date of birth" = "date_picker"
Country = "country"
"I agree" = "checkbox"
Purpose = {type = "select", options = ["Research", {label = "Other", value = "other"}]}
[serving]
verified = ["vLLM 0.33.0 on 8x B200"]
[citation]
bibtex = "@misc{x}"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "card.toml"
    path.write_text(text)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    person = read_person(write(tmp_path, GOOD))
    assert person["base_model"] == "org/name"
    assert part(person, "gate")["fields"]["Purpose"]["type"] == "select"
    assert part(person, "nothing") == {}
    assert read_person(None) == {}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("basemodel = 'a/b'", "unknown key 'basemodel'"),
        ("base_model = './folder'", "base_model"),
        ("base_model = 'no-owner'", "base_model"),
        ("[gate.fields]\nAge = 'number'", "gate.fields.Age"),
        ("[gate.fields]\nWhy = {type = 'select'}", "gate.fields.Why"),
        ("[publisher]\nname = ''", "publisher.name"),
        ("[publisher]\nname = ' '", "publisher.name"),
        ('[publisher]\nname = "two\\nlines"', "publisher.name"),
        ("notes = 'one'", "notes"),
        ("[serving]\nverified = [1]", "serving.verified.0"),
        ("= broken", "not TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DocumentError, match=r"card\.toml") as caught:
        read_person(write(tmp_path, text))
    assert says in caught.value.message


def test_a_missing_file_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        read_person(tmp_path / "card.toml")
