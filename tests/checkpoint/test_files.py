"""A folder from a stranger: no name and no link leads out of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.files import LocalFiles, safe_name, shard_name
from publisher.errors import CheckpointError


@pytest.mark.parametrize("name", ["a.json", "docs/a b.md", "模型.json", "a/..b/c"])
def test_ordinary_names_are_safe(name: str) -> None:
    assert safe_name(name)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\\..\\b", "a\nb", "a\x1b[31m", "a" * 1025])
def test_hostile_names_are_not(name: str) -> None:
    assert not safe_name(name)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "a/x.safetensors", "x.bin", "x\n.safetensors", "C:\\x.safetensors"]
)
def test_what_an_index_may_not_name(name: str) -> None:
    assert shard_name("model-00001-of-00002.safetensors")
    assert not shard_name(name)


def test_lists_files_and_reads_ranges(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/LICENSE").write_bytes(b"0123456789")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git/config").write_text("secret")
    files = LocalFiles(tmp_path)
    assert dict(files.sizes) == {"docs/LICENSE": 10}
    assert files.read("docs/LICENSE", 2, 5) == b"234"
    assert files.read("docs/LICENSE", 8, 50) == b"89"
    assert files.local("docs/LICENSE") == tmp_path / "docs/LICENSE"
    assert files.local("other") is None


def test_a_link_out_of_the_folder_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    inside = tmp_path / "checkpoint"
    inside.mkdir()
    (inside / "config.json").symlink_to(tmp_path / "secret")
    (inside / "real").write_text("x")
    (inside / "alias").symlink_to(inside / "real")
    files = LocalFiles(inside)
    assert set(files.sizes) == {"real", "alias"}
    assert files.outside == ("config.json",)


@pytest.mark.parametrize("marked", [True, False])
def test_the_store_that_the_hub_caches_repositories_share_is_followed_where_it_is_one(
    tmp_path: Path, marked: bool
) -> None:
    """huggingface_hub 2 keeps what came over Xet in `<cache>/blobs/<two digits>/<hash>`, two links away."""
    store, blobs = tmp_path / "blobs", tmp_path / "models--org--name/blobs"
    snapshot = tmp_path / "models--org--name/snapshots/abc"
    for folder in (store / "ab", blobs, snapshot):
        folder.mkdir(parents=True)
    if marked:
        (store / ".huggingface-shared-blobs").write_text("1\n")
    (store / "ab" / ("ab" * 32)).write_bytes(b"weights")
    (blobs / "etag").symlink_to(f"../../blobs/ab/{'ab' * 32}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/etag")
    (tmp_path / "secret").write_text("mine")
    (snapshot / "leak.json").symlink_to(tmp_path / "secret")
    files = LocalFiles(snapshot)
    assert dict(files.sizes) == ({"model.safetensors": 7} if marked else {})
    assert "leak.json" in files.outside


def test_the_hub_caches_own_links_are_followed(tmp_path: Path) -> None:
    blobs = tmp_path / "models--org--name/blobs"
    snapshot = tmp_path / "models--org--name/snapshots/abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "deadbeef").write_bytes(b"{}")
    (snapshot / "config.json").symlink_to("../../blobs/deadbeef")
    assert dict(LocalFiles(snapshot).sizes) == {"config.json": 2}


def test_no_read_leaves_the_folder(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "secret").write_text("secret")
    with pytest.raises(CheckpointError, match="leads out"):
        LocalFiles(tmp_path / "checkpoint").read("../secret")


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.write_text("x")])
def test_what_is_no_folder_is_refused_with_its_name(tmp_path: Path, make: object) -> None:
    path = tmp_path / "model"
    make(path)  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=r"model (does not exist|is not a folder)"):
        LocalFiles(path)


def test_links_to_nothing_and_to_themselves_are_left_out_and_told(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "real").write_text("x")
    files = LocalFiles(tmp_path)
    assert set(files.sizes) == {"real"}
    assert files.outside == ("LICENSE", "loop")


def test_linked_folders_and_unsafe_names_are_told(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a").write_text("x")
    inside = tmp_path / "checkpoint"
    inside.mkdir()
    (inside / "weights").symlink_to(tmp_path / "elsewhere")
    (inside / "bad\nname").write_text("x")
    (inside / "config.json").write_text("{}")
    files = LocalFiles(inside)
    assert set(files.sizes) == {"config.json"}
    assert files.outside == ("weights",)
    assert files.unsafe == ("bad\nname",)
