"""Files of a run directory: damaged ones count as none, and other inputs have other digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.files import LocalFiles
from publisher.pipeline.documents import digest_of, document, fingerprint, timeless


@pytest.mark.parametrize("text", ["", "x", "[1]", '{"a": 1, "a": 2}', "NaN"])
def test_a_damaged_document_counts_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.json"
    path.write_text(text)
    assert document(path) is None
    assert document(tmp_path / "missing.json") is None


def test_how_long_it_took_is_no_difference() -> None:
    quick, slow = {"seconds": 3, "bytes_read": 7}, {"seconds": 5, "bytes_read": 9}
    assert timeless({"a": 1, "summary": quick}) == timeless({"a": 1, "summary": slow})
    assert timeless({"a": 1, "summary": {**quick, "errors": 1}}) != timeless({"a": 1, "summary": slow})
    assert timeless({"a": 1, "summary": {"seconds": 3}}) != timeless({"a": 2, "summary": {"seconds": 3}})


def test_a_changed_folder_has_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = fingerprint(LocalFiles(tmp_path))
    assert fingerprint(LocalFiles(tmp_path)) == before
    (tmp_path / "b").write_text("1")
    assert fingerprint(LocalFiles(tmp_path)) != before
    assert digest_of(tmp_path / "a") == digest_of(tmp_path / "b")
    assert digest_of(tmp_path / "c") is None
