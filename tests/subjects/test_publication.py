"""Cards as a stranger writes them, and files compared byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Meter, Pair, publication, read_card


@pytest.mark.parametrize(
    ("text", "license"),
    [
        ("---\nlicense: mit\n---\n# Card\n", "mit"),
        ("---\r\nlicense: mit\r\n---\r\n", "mit"),
        ("--- \nlicense: mit\nnote: a --- b\n---", "mit"),
    ],
)
def test_a_cards_metadata_is_read(text: str, license: str, tmp_path: Path) -> None:  # noqa: A002
    (tmp_path / "README.md").write_bytes(text.encode())
    meter = Meter()
    card = read_card(LocalFiles(tmp_path), meter)
    assert (card.metadata.get("license"), card.flaw) == (license, None)
    assert meter.bytes_read == len(text.encode())


@pytest.mark.parametrize(
    ("data", "flaw"),
    [
        (b"# Card\n", "metadata block"),
        (b"---\nlicense: mit\n", "metadata block"),
        (b"---\n- a\n---\n", "no mapping"),
        (b"---\na: &x 1\nb: *x\n---\n", "aliases"),
        (b"---\na: 1\na: 2\n---\n", "twice"),
        (b"---\nlicense: \xe9\n---\n", "UTF-8"),
    ],
)
def test_a_broken_card_says_why(data: bytes, flaw: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(data)
    card = read_card(LocalFiles(tmp_path), Meter())
    assert card.metadata == {}
    assert flaw in (card.flaw or "")


def test_same_compares_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publication, "PIECE", 7)
    for folder, tail in (("a", b"x"), ("b", b"y")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text(json.dumps({}))
        (tmp_path / folder / "equal").write_bytes(b"0123456789" * 3)
        (tmp_path / folder / "other").write_bytes(b"0123456789" * 3 + tail)
    pair = Pair(
        checkpoint=open_checkpoint(tmp_path / "a"), source=open_checkpoint(tmp_path / "b"), meter=(meter := Meter())
    )
    assert pair.same("equal")
    assert meter.bytes_read == 60
    assert not pair.same("other")
