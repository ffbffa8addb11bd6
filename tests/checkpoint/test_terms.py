"""Licences of models by their phrases, and the data of what they ask."""

from __future__ import annotations

import pytest

from publisher import jsonio
from publisher.checkpoint import terms
from tests.builders.terms import KIMI, LLAMA, LLAMA_NOTICE, MIT, MODIFIED, QWEN

TEXTS = jsonio.data("licences/texts.json")["texts"]
DUTIES = jsonio.data("licences/duties.json")["licences"]


@pytest.mark.parametrize(
    ("text", "identifier"),
    [
        (KIMI, "modified-mit"),
        (LLAMA, "llama3.3"),
        (LLAMA.replace("**", "").replace(" ", "\r\n"), "llama3.3"),
        (QWEN, "qwen-research"),
        (MIT, "mit"),
        (f'{MIT}\nOur only modification is that you shall prominently display "MiniMax M2"', "modified-mit-minimax"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT about the Llama Materials", "llama3"),
        ("Attribution-NonCommercial-ShareAlike 4.0 International", "cc-by-nc-sa-4.0"),
        ("Attribution-NonCommercial 4.0 International", "cc-by-nc-4.0"),
        ("DEEPSEEK LICENSE AGREEMENT with Use-based restrictions", "deepseek"),
    ],
)  # fmt: skip
def test_a_licence_is_known_by_its_phrases(text: str, identifier: str) -> None:
    found = terms.recognise(text.encode())
    assert found is not None
    assert found.identifier == identifier


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe\x00" * 100, b"This model comes under the Llama 3.1 licence.", bytes(range(256)) * 400]
)
def test_anything_else_is_unknown(text: bytes) -> None:
    assert terms.recognise(text) is None


def test_what_a_text_names_is_taken_from_it() -> None:
    (kimi,) = terms.duties(["modified-mit"], [terms.readable(KIMI.encode())])
    assert kimi.display == "Kimi K2.6"
    (llama,) = terms.duties(["llama3.3", "llama3.3", "nobody-knows"], [terms.readable(LLAMA.encode())])
    assert (llama.notice, llama.prefix, llama.attribution) == (LLAMA_NOTICE, "Llama", ("Built with Llama",))
    (plain,) = terms.duties(["modified-mit"], [terms.readable(MODIFIED.encode())])
    assert plain.display == "Kimi K2", "a name with odd signs is not taken over"


@pytest.mark.parametrize(
    ("metadata", "names"),
    [
        ({"license": "MIT"}, ("mit",)),
        ({"license": ["mit", " Apache-2.0 "]}, ("mit", "apache-2.0")),
        ({"license": "other", "license_name": "Qwen Research"}, ("qwen-research",)),
        ({"license": "other"}, ()),
        ({"license": {"a": 1}}, ()),
        ({"license": [None, 3, "other"], "license_name": ["x"]}, ()),
        ({}, ()),
    ],
)
def test_what_a_card_declares(metadata: dict[str, object], names: tuple[str, ...]) -> None:
    assert terms.declared(metadata) == names


def test_a_name_means_every_licence_that_goes_by_it() -> None:
    assert terms.meant_by("modified-mit") == {"modified-mit", "modified-mit-minimax"}
    assert terms.meant_by("mnpl") == {"mistral-ai-non-production-license"}
    assert terms.meant_by("bsd") == {"bsd"}
    assert terms.meant_by("terms-of-my-own") == frozenset()


def test_licence_files_come_before_what_surrounds_them() -> None:
    names = ["docs/LICENSE", "LICENSE.txt", "NOTICE", "LICENSE.md", "COPYING", "../LICENSE", "license_check.py"]
    names += ["MODEL_LICENSE", "THIRD_PARTY_LICENSES.txt"]
    assert terms.licence_texts(names) == ["LICENSE.md", "COPYING", "LICENSE.txt", "MODEL_LICENSE", "docs/LICENSE"]
    assert terms.notices(names) == ["NOTICE"]


def test_the_data_is_whole() -> None:
    identifiers = [name for row in DUTIES for name in row["ids"]]
    assert len(set(identifiers)) == len(identifiers)
    assert len({row["id"] for row in TEXTS}) == len(TEXTS)
    for row in DUTIES:
        assert row["url"].startswith("https://")
        assert terms.duties(row["ids"])
        if "notice" in row:
            assert row["notice"]["sentence"].startswith(row["notice"]["begins"])
    for row in TEXTS:
        assert all(len(phrase) < 80 and phrase == phrase.lower() for phrase in row.get("all", ()))
