"""Files of which one is another: sizes, ranges and the rest untouched."""

from __future__ import annotations

from pathlib import Path

from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.replaced import Replaced


def test_a_replaced_file_is_read_from_memory_and_the_others_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("on disk")
    (tmp_path / "config.json").write_text("{}")
    files = Replaced(LocalFiles(tmp_path), {"README.md": b"at hand, longer", "NOTICE": b"new"})
    assert dict(files.sizes) == {"NOTICE": 3, "README.md": 15, "config.json": 2}
    assert files.read("README.md", 3, 7) == b"hand"
    assert files.read("config.json") == b"{}"
    assert files.local("README.md") is None
    assert files.local("config.json") == tmp_path / "config.json"
    assert (tmp_path / "README.md").read_text() == "on disk"
