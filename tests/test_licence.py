"""Terms of a source: bytes kept whatever they are, names the Hub accepts, nothing invented."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from publisher import licence
from publisher.checkpoint.files import LocalFiles
from publisher.errors import CheckpointError
from tests.builders.terms import KIMI, LLAMA, LLAMA_NOTICE, MIT, QWEN, QWEN_NOTICE, STANDARD

HOSTILE = b"\xff\xfe\r\nterms\x00\r\n" + bytes(range(256)) + b"no newline at the end"


def folder(root: Path, files: dict[str, bytes | str], card: str | None = None) -> LocalFiles:
    root.mkdir(exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    if card is not None:
        (root / "README.md").write_text(f"---\n{card}\n---\n# Model\n")
    return LocalFiles(root)


def test_every_kind_of_terms_is_found_in_any_folder_and_code_is_not() -> None:
    names = ["LICENSE", "license.txt", "docs/LICENCE.md", "NOTICE", "COPYING.LESSER", "USE_POLICY.md",
             "THIRD_PARTY_NOTICES.md", "third-party/a/LICENSE-MIT", "MODEL_LICENSE",
             "Tongyi Qianwen LICENSE AGREEMENT.txt", "acceptable_use_policy.md"]  # fmt: skip
    others = ["license_check.py", "README.md", "config.json", "unlicensed.txt", "model.safetensors"]
    assert licence.licence_paths([*names, *others]) == sorted(names)


def test_copies_are_the_same_bytes_with_the_right_digests(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"LICENSE": HOSTILE, "legal/NOTICE": b"a\r\nb\r\n"}, "license: mit")
    result = tmp_path / "r"
    result.mkdir()
    found = licence.copy(source, result)
    assert (result / "LICENSE").read_bytes() == HOSTILE
    assert (result / "legal/NOTICE").read_bytes() == b"a\r\nb\r\n"
    assert {f.path: (f.size, f.sha256) for f in found.files} == {
        "LICENSE": (len(HOSTILE), hashlib.sha256(HOSTILE).hexdigest()),
        "legal/NOTICE": (6, hashlib.sha256(b"a\r\nb\r\n").hexdigest()),
    }
    assert licence.compare(source, result) == []
    assert licence.copy(source, result) == found
    assert sorted(p.name for p in result.rglob("*") if p.is_file()) == ["LICENSE", "NOTICE"]


def test_every_difference_is_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"LICENSE": "one\n", "NOTICE": "two\n", "USE_POLICY.md": "three\n"})
    result = tmp_path / "r"
    result.mkdir()
    licence.copy(source, result)
    (result / "LICENSE").write_bytes(b"one\r\n")
    (result / "NOTICE").unlink()
    (result / "COPYING").write_text("new")
    assert [str(d) for d in licence.compare(source, result)] == [
        "COPYING is not in the source",
        "LICENSE differs from the source",
        "NOTICE is missing",
    ]


@pytest.mark.parametrize(
    ("card", "files", "metadata"),
    [
        ("license: Apache-2.0", {"LICENSE": "x"}, {"license": "apache-2.0"}),
        ("license: [mit, apache-2.0]", {}, {"license": ["mit", "apache-2.0"]}),
        (
            "license: other\nlicense_name: modified-mit\nlicense_link: LICENSE",
            {"LICENSE": KIMI},
            {"license": "other", "license_name": "modified-mit", "license_link": "LICENSE"},
        ),
        (
            "license: modified-mit",
            {"LICENSE": KIMI},
            {"license": "other", "license_name": "modified-mit", "license_link": "LICENSE"},
        ),
        (
            "license: other\nlicense_name: Kimi Terms & Conditions!\nlicense_link: https://example.org/terms",
            {},
            {
                "license": "other",
                "license_name": "kimi-terms-conditions",
                "license_link": "https://example.org/terms",
            },
        ),
        ("title: none", {"LICENSE": MIT}, {"license": "mit"}),
        (
            "title: none",
            {"LICENSE.md": "our own terms"},
            {"license": "other", "license_name": "upstream-license", "license_link": "LICENSE.md"},
        ),
        ("title: none", {}, {"license": "unknown"}),
        (
            "license: other\nlicense_link: 'javascript:alert(1)'",
            {"legal/LICENSE.txt": "x"},
            {
                "license": "other",
                "license_name": "upstream-license",
                "license_link": "https://huggingface.co/org/name/blob/main/legal/LICENSE.txt",
            },
        ),
    ],
)
def test_metadata_is_what_the_hub_takes(
    tmp_path: Path, card: str, files: dict[str, str], metadata: dict[str, object]
) -> None:
    found = licence.read(folder(tmp_path / "s", dict(files), card), repo="org/name")
    assert found.metadata == metadata
    values = metadata["license"] if isinstance(metadata["license"], list) else [metadata["license"]]
    assert all(licence.hub_knows(str(value)) for value in values)


def test_a_text_that_is_not_what_the_card_declares_is_reported(tmp_path: Path) -> None:
    found = licence.read(folder(tmp_path / "s", {"LICENSE": KIMI}, "license: mit"))
    assert found.recognised == "modified-mit"
    assert found.metadata == {"license": "mit"}
    assert found.warnings == ("The upstream card declares mit, but LICENSE reads as modified-mit.",)


def test_the_real_apache_text_is_recognised_however_it_is_wrapped() -> None:
    text = (Path(__file__).parent.parent / "LICENSE").read_bytes()
    assert licence.recognise(text) == "apache-2.0"
    assert licence.recognise(text.replace(b"\n", b"\r\n")) == "apache-2.0"
    assert licence.recognise(MIT.encode()) == "mit"
    assert licence.recognise(text + b"\nCommons Clause") is None
    assert licence.recognise(b"") is None


def test_a_source_without_terms_gets_none(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"config.json": "{}"}, "license: mit")
    result = tmp_path / "r"
    result.mkdir()
    found = licence.copy(source, result)
    assert found.files == ()
    assert list(result.iterdir()) == []
    assert "The upstream repository ships no licence text." in found.warnings


def test_an_unreadable_card_is_no_reason_to_fail(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"LICENSE": MIT, "README.md": b"---\na: &x 1\nb: *x\n---\n"})
    found = licence.read(source)
    assert found.metadata == {"license": "mit"}
    assert "alias" in found.warnings[0]


def test_a_licence_never_leaves_the_folder(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"legal/LICENSE": MIT})
    result, outside = tmp_path / "r", tmp_path / "outside"
    result.mkdir()
    outside.mkdir()
    os.symlink(outside, result / "legal")
    with pytest.raises(CheckpointError, match="leads out"):
        licence.copy(source, result)
    assert list(outside.iterdir()) == []


def test_a_giant_is_no_licence(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {})
    with (tmp_path / "s" / "LICENSE").open("wb") as file:
        file.truncate(licence.MAX_FILE + 1)
    with pytest.raises(CheckpointError, match="16,777,217 bytes"):
        licence.read(LocalFiles(source.root))


def test_the_table_of_the_hub_names_its_source_and_holds_no_twin() -> None:
    table = json.loads((Path(licence.__file__).parent / "data/licences/hub.json").read_text())
    assert table["source"]
    assert table["date"]
    assert len(set(table["identifiers"])) == len(table["identifiers"])
    assert not licence.hub_knows("modified-mit")


def test_terms_nobody_ships_are_linked_where_they_are(tmp_path: Path) -> None:
    found = licence.read(folder(tmp_path / "s", {}, "license: other\nlicense_name: x-1.0"), repo="org/name")
    assert found.metadata == {
        "license": "other",
        "license_name": "x-1.0",
        "license_link": "https://huggingface.co/org/name",
    }


@pytest.mark.parametrize(
    ("identifier", "words"),
    [
        ("cc-by-nd-4.0", "does not allow sharing modified versions"),
        ("cc-by-nc-nd-4.0", "does not allow sharing modified versions"),
        ("cc-by-nc-4.0", "no commercial use"),
        ("fair-noncommercial-research-license", "no commercial use"),
    ],
)
def test_terms_that_stand_in_the_way_are_named(identifier: str, words: str, tmp_path: Path) -> None:
    found = licence.read(folder(tmp_path / "s", {"LICENSE": "terms"}, f"license: {identifier}"))
    assert any(words in sentence for sentence in licence.advice(found, repo="org/name"))
    harmless = licence.read(folder(tmp_path / "t", {"LICENSE": "terms"}, "license: bigscience-bloom-rail-1.0"))
    assert list(licence.advice(harmless, repo="org/name")) == []
    assert len(list(licence.advice(harmless, repo=None, open_copy=True))) == 1


# --- what licences ask ------------------------------------------------------------------------------------------------


def said(found: licence.Licence) -> list[str]:
    return [statement.text for statement in found.statements]


def test_a_notice_that_the_licence_dictates_is_written_and_nothing_else(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"LICENSE": LLAMA}, "license: llama3.3")
    result = tmp_path / "r"
    result.mkdir()
    found = licence.copy(source, result)
    assert (result / "NOTICE").read_text() == f"{LLAMA_NOTICE}\n"
    assert [file.path for file in found.files] == ["LICENSE"]
    assert licence.published_paths(source) == ["LICENSE", "NOTICE"]
    assert licence.compare(source, result) == []
    (result / "NOTICE").write_text("something else\n")
    assert [str(d) for d in licence.compare(source, result)] == ["NOTICE is not in the source"]
    licence.copy(source, result)
    assert (result / "NOTICE").read_text() == "something else\n", "what came along is not overwritten"


def test_a_notice_of_the_source_is_never_written_into(tmp_path: Path) -> None:
    held = folder(tmp_path / "s", {"LICENSE": LLAMA, "NOTICE": f"x\n{LLAMA_NOTICE}"}, "license: llama3.3")
    assert licence.published_paths(held) == ["LICENSE", "NOTICE"]
    lacking = folder(tmp_path / "t", {"LICENSE": LLAMA, "notice": "parts"}, "license: llama3.3")
    result = tmp_path / "r"
    result.mkdir()
    licence.copy(lacking, result)
    assert {p.name: p.read_text() for p in result.iterdir()} == {
        "LICENSE": LLAMA, "notice": "parts", "NOTICE.txt": f"{LLAMA_NOTICE}\n"
    }  # fmt: skip


def test_who_holds_the_copyright_is_taken_from_the_text(tmp_path: Path) -> None:
    source = folder(tmp_path / "s", {"LICENSE": QWEN}, "license: other\nlicense_name: qwen-research")
    result = tmp_path / "r"
    result.mkdir()
    licence.copy(source, result)
    assert (result / "NOTICE").read_text() == f"{QWEN_NOTICE}\n"


def test_the_card_is_told_what_the_licence_wants_said(tmp_path: Path) -> None:
    llama = licence.read(folder(tmp_path / "a", {"LICENSE": LLAMA}, "license: llama3.3"))
    assert llama.statements[0] == licence.Statement(text="Built with Llama", strong=True)
    policy = next(statement for statement in llama.statements if statement.link)
    assert policy.link == "https://www.llama.com/llama3_3/use-policy"
    assert any("700 million" in text for text in said(llama))
    assert list(licence.advice(llama, repo="org/Llama-X")) == []
    (advice,) = licence.advice(llama, repo="org/Tiny")
    assert 'begins with "Llama", and Tiny does not' in advice
    kimi = licence.read(folder(tmp_path / "b", {"LICENSE": KIMI}, "license: other\nlicense_name: modified-mit"))
    assert any('"Kimi K2.6"' in text and "20 million US dollars" in text for text in said(kimi))
    assert kimi.title == "Modified MIT License (Kimi)"
    apache = licence.read(folder(tmp_path / "c", {"LICENSE": STANDARD["apache-2.0"]}, "license: apache-2.0"))
    assert said(apache) == ["This copy was changed: its weights were quantized from those of the base model."]
    bare = licence.read(folder(tmp_path / "d", {}, "license: mit"))
    assert [(s.text, s.link) for s in bare.statements] == [
        ("Text of the MIT License", "https://spdx.org/licenses/MIT.html")
    ]


def test_a_clause_added_to_a_standard_text_is_quoted(tmp_path: Path) -> None:
    text = f"{MIT}\nThe Software may not be used for warfare of any kind by anybody at all.\n"
    found = licence.read(folder(tmp_path / "s", {"LICENSE": text}, "license: mit"))
    assert found.recognised is None
    assert found.warnings == (
        "LICENSE adds words to MIT License: the software may not be used for warfare of any kind by anybody at.",
    )
