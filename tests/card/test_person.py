"""card.toml: a typo is named, never a sentence lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.card.person import PROSE, entries, part, read_person
from publisher.jsonio import DocumentError

GOOD = """
base_model = "org/name"
order = "nvidia"
summary = "A first release."
status = "preview"
version = "1.0"
released = "2026-11-21"
new_version = "org/next"
geography = "Global"
changelog = ["1.0: the first."]
out_of_scope = ["Medical advice."]
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
[serving.flags]
vLLM = ["--max-model-len 8192", "--no-enable-prefix-caching", '--compilation-config={"a":1}']
[[verified]]
engine = "SGLang"
version = "0.5.23"
hardware = "8x B200"
date = "2026-11-20"
by = "QA"
command = "python -m sglang.launch_server --model-path x"
[[links]]
text = "demo"
url = "https://example.org/demo"
[source]
steps = ["INT4 was dequantized to BF16 with a script, bit for bit."]
[access]
how = "Write to us."
response = "within two days"
[environmental]
watts = 8000
kg_co2_per_kwh = 0.3
region = "Sweden"
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
        ("order = 'intel'", "order"),
        ("released = 'today'", "released"),
        ("[[verified]]\nengine = 'vLLM'", "hardware"),
        ("[[verified]]\nengine = 'vllm'\nhardware = 'x'", "verified.0.engine"),
        ("[serving.flags]\nvLLM = ['--a; rm -rf /']", "serving.flags.vLLM.0"),
        ("[serving.flags]\nvLLM = ['--a $(id)']", "serving.flags.vLLM.0"),
        ("[[links]]\ntext = 'x'\nurl = 'javascript:alert(1)'", "links.0.url"),
        ("[environmental]\nwatts = 0", "environmental.watts"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DocumentError, match=r"card\.toml") as caught:
        read_person(write(tmp_path, text))
    assert says in caught.value.message


def test_a_missing_file_is_no_empty_one(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="does not exist"):
        read_person(tmp_path / "card.toml")


def test_markdown_beside_the_file_is_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "card").mkdir()
    (tmp_path / "card/limitations.md").write_text("Not *tested*.")
    person = read_person(write(tmp_path, GOOD))
    assert part(person, PROSE) == {"limitations": "Not *tested*."}
    assert entries(person, "changelog") == ("1.0: the first.",)
    assert entries(person, "nothing") == ()
    assert (tmp_path / "card/limitations.md").read_text() == "Not *tested*."
