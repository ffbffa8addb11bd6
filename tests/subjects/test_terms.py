"""The terms beside the card, as rules see them."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Evidence, Meter, Terms, stream
from publisher.subjects.terms import plain
from tests.builders.terms import LICENSED
from tests.builders.tiny import Tiny


def terms(tiny: Tiny, folder: Path, **more: str) -> Terms:
    (found,) = stream(Evidence(checkpoint=open_checkpoint(tiny.write(folder)), **more), {Terms}, Meter())  # type: ignore[arg-type]
    assert isinstance(found, Terms)
    return found


def test_licence_card_and_notice_together(tmp_path: Path) -> None:
    found = terms(LICENSED["llama-nvfp4-community"]()[1], tmp_path)
    assert [duty.identifier for duty in found.duties] == ["llama3.3"]
    assert found.recognised["LICENSE"].identifier == "llama3.3"
    assert found.name == "Llama-Tiny-NVFP4"
    assert found.says("built with  Llama")
    assert not found.says("extra_gated_heading"), "metadata is not said"
    assert any("community license" in text for text in found.notices)


def test_the_repository_names_itself_before_the_heading_does(tmp_path: Path) -> None:
    tiny = LICENSED["llama-nvfp4-community"]()[1]
    assert terms(tiny, tmp_path, repo="org/Another-Name").name == "Another-Name"


def test_a_card_that_cannot_be_read_names_nothing(tmp_path: Path) -> None:
    tiny = LICENSED["llama-nvfp4-community"]()[1]
    tiny.files["README.md"] = b"\xff\xfe"
    found = terms(tiny, tmp_path)
    assert (found.name, found.declared, found.prose) == (None, (), "")
    assert [duty.identifier for duty in found.duties] == ["llama3.3"]


def test_words_are_compared_without_markdown() -> None:
    assert plain("> **Built** with `Llama`\n> 3\\.3 &amp; “more”") == 'built with llama 3.3 & "more"'
