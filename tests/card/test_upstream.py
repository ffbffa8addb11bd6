"""What is known of a source: languages, task, citation, dtype; oddities of real cards do no harm."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from publisher.card.upstream import Upstream, read_upstream
from publisher.checkpoint.open import open_checkpoint
from publisher.checkpoint.source import resolve


def read(folder: Path, card: str | None = None) -> Upstream:
    if card is not None:
        (folder / "README.md").write_text(card)
    origin = resolve(str(folder))
    return read_upstream(origin, open_checkpoint(origin.files), {"base_model": "tiny-org/Tiny-1B"})


def test_the_card_of_the_source_tells(source: Path) -> None:
    found = read(source)
    assert found.languages == ("en", "no")
    assert found.task == "text-generation"
    assert (found.bibtex or "").startswith("@misc{tiny,")
    assert found.read_from == "a local folder"
    assert (found.commit, found.dtype) == (None, "BF16")


@pytest.mark.parametrize(
    ("value", "languages"),
    [("en", ("en",)), ("[en, en, EN, English, 5, zh-CN, multilingual]", ("en", "multilingual")), ("{a: b}", ())],
)
def test_only_languages_the_hub_knows_the_form_of_are_copied(
    source: Path, value: str, languages: tuple[str, ...]
) -> None:
    assert read(source, f"---\nlanguage: {value}\n---\n").languages == languages


@pytest.mark.parametrize("card", ["", "---\nlanguage: [en\n---\n", "no metadata", "---\npipeline_tag: <b>\n---\n"])
def test_a_broken_card_tells_nothing(source: Path, card: str) -> None:
    found = read(source, card)
    assert (found.languages, found.task, found.bibtex) == ((), None, None)


def test_a_quantized_source_says_so(nvfp4: Path) -> None:
    assert read(nvfp4).dtype == "NVFP4 (modelopt), stored as BF16"


def test_a_card_made_of_fences_is_read_in_linear_time(source: Path) -> None:
    started = time.monotonic()
    assert read(source, "```bibtex\n@a{\n~~~\n" * 50_000).bibtex is None
    assert time.monotonic() - started < 5
