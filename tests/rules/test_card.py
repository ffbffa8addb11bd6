"""Broken characters are found whichever code page made them, and no language's own text is taken for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.tiny import llama, nvfp4

# What writers of cards type; each is three or four bytes of UTF-8.
SIGNS = "—–’“”•→≥™✅🚀│"
CODECS = ("cp1252", "latin-1", "cp1250", "cp1251", "cp1253", "cp874", "mac_roman", "cp437", "cp850")


def found(text: str, folder: Path) -> list[str]:
    tiny = nvfp4(llama())
    tiny.files["README.md"] += text.encode()
    report = run(Evidence(checkpoint=open_checkpoint(tiny.write(folder)), card=True), select=["LC09"])
    assert report.rules_run == ("LC09",)
    return [finding.message for finding in report.findings]


def misread(text: str, codec: str) -> str:
    """UTF-8 read with a code page; what it leaves empty is shown as windows-1252 or as C1 has it."""

    def shown(byte: int) -> str:
        one = bytes([byte])
        return one.decode(codec, "ignore") or one.decode("cp1252", "ignore") or chr(byte)

    return "".join(shown(byte) for byte in text.encode())


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("sign", SIGNS)
def test_a_misread_sign_is_named_with_its_line(codec: str, sign: str, tmp_path: Path) -> None:
    broken = misread(sign, codec)
    (message,) = found(f"\nKept {broken} the same.\n", tmp_path)
    line = nvfp4(llama()).files["README.md"].decode().count("\n") + 2
    assert f"{broken!r} in line {line}" in message


@pytest.mark.parametrize("sign", "×±éü½")
@pytest.mark.parametrize("codec", ["cp1252", "latin-1"])
def test_so_is_a_short_one_of_western_pages(codec: str, sign: str, tmp_path: Path) -> None:
    assert len(found(f"\n4{misread(sign, codec)}8\n", tmp_path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "CAFÉ— oui, bâtiment… château’s « à la »",
        "Größe… Spaß” Straß– ‚Ärger‘ „Äö“",
        "MAÇÃ— ROMÂ… ciocolatâ…”",
        "Việt ngữ “ừ” â… ",
        "Привет — мир… «в» В—…",
        "ελληνικά «Γ»… Γ→Ç",
        "การโกง เกม ใกล้—… อาหาร— โมเดล",
        "日本語のテキスト。「」 한국어 中文。",
        "žlutý kůň – “Â” naïve façade Ångström",
        "│ ├── └─ 10 × 20 → ≥ 3 ± 2 🚀✅ ½ ™",
        "مرحبا — עברית…",
    ],
)
def test_no_languages_own_text_is_taken_for_it(text: str, tmp_path: Path) -> None:
    assert found(f"\n{text}\n", tmp_path) == []


def test_many_places_are_counted(tmp_path: Path) -> None:
    (message,) = found("\n" + misread("—", "cp874") * 50, tmp_path)
    assert "and 47 more" in message


def test_code_is_left_out_and_what_follows_it_is_not(tmp_path: Path) -> None:
    text = "\n~~~\n{{ a }} TODO:\n```\n~~~\n``{{ b }}`` and\n\n````\n```\n{{ c }}\n````\n{{ d }}\n"
    (message,) = found(text, tmp_path)
    assert "'{{ d }}'" in message
    assert "more" not in message
