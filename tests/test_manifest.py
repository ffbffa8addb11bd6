"""The manifest: its digests against model_signing's, hashlib's and a hostile folder's."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from pathlib import Path

import pytest

from publisher import jsonio, manifest
from publisher.errors import CheckpointError
from publisher.manifest import FileEntry, Manifest, Provenance

TINY = {
    "README.md": b"# card\n",
    "a-b": b"1",
    "a/b": b"2",
    "a.c": b"3",
    "model-00001-of-00001.safetensors": bytes(range(256)) * 9,
    "empty": b"",
}
# What model_signing 1.1.1 signs for a folder of these files named "tiny": order and subject digest.
SIGNED_ORDER = ["README.md", "a/b", "a-b", "a.c", "empty", "model-00001-of-00001.safetensors"]
SIGNED_SUBJECT = "756f7e60f8144b2a6ec4534645be28278fdd663a1898a8ce7f57805c73d534ca"


def write(folder: Path, files: dict[str, bytes] = TINY) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def build(folder: Path) -> Manifest:
    return manifest.build(folder, Provenance(source_repo="org/source", source_commit="c" * 40))


def test_lists_every_file_but_itself_and_the_hubs(tmp_path: Path) -> None:
    write(tmp_path, TINY | {"publish.json": b"old", ".gitattributes": b"*", ".cache/huggingface/x": b"1"})
    built = build(tmp_path)
    assert {entry.path: (entry.size, entry.sha256) for entry in built.files} == {
        name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in TINY.items()
    }
    assert built.size == sum(map(len, TINY.values()))


def test_statement_is_what_model_signing_signs(tmp_path: Path) -> None:
    statement = build(write(tmp_path)).statement("tiny")
    assert statement["subject"] == [{"name": "tiny", "digest": {"sha256": SIGNED_SUBJECT}}]
    resources = statement["predicate"]["resources"]
    assert [item["name"] for item in resources] == SIGNED_ORDER
    assert {item["name"]: item["digest"] for item in resources} == {
        name: hashlib.sha256(data).hexdigest() for name, data in TINY.items()
    }
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"


def test_root_digest_binds_names_and_sizes(tmp_path: Path) -> None:
    one = build(write(tmp_path / "one", {"a": b"x", "b": b"y"}))
    other = build(write(tmp_path / "other", {"a": b"x", "c": b"y"}))
    assert one.statement("m")["subject"] == other.statement("m")["subject"]
    assert one.root_digest != other.root_digest
    plain = [
        {"algorithm": "sha256", "digest": hashlib.sha256(data).hexdigest(), "name": name, "size": 1}
        for name, data in (("a", b"x"), ("b", b"y"))
    ]
    text = json.dumps(plain, separators=(",", ":"), sort_keys=True)
    assert one.root_digest == hashlib.sha256(text.encode()).hexdigest()


def test_round_trip_through_the_file(tmp_path: Path) -> None:
    provenance = Provenance(
        source_repo="org/source",
        source_commit="c" * 40,
        recipe="tiny-nvfp4",
        recipe_digest="d" * 64,
        engine="native",
        engine_version="0.1.0",
        versions={"numpy": "2.0"},
        report_digest="e" * 64,
        waivers={"SV11": "measured, harmless"},
    )
    built = manifest.build(write(tmp_path), provenance)
    (tmp_path / "publish.json").write_bytes(built.encoded())
    assert manifest.read(tmp_path / "publish.json") == built
    own = built.own_entry()
    assert own.sha256 == hashlib.sha256((tmp_path / "publish.json").read_bytes()).hexdigest()
    assert build(tmp_path).files == built.files


def test_known_digests_are_not_read_again(tmp_path: Path) -> None:
    write(tmp_path, {"big": b"x" * 10, "small": b"y"})
    built = manifest.build(tmp_path, Provenance(), known={"big": "a" * 64})
    assert [(entry.path, entry.sha256) for entry in built.files] == [
        ("big", "a" * 64),
        ("small", hashlib.sha256(b"y").hexdigest()),
    ]


def test_progress_counts_every_byte_once(tmp_path: Path) -> None:
    write(tmp_path, {f"f{number}": b"x" * 1000 * number for number in range(20)})
    seen: list[tuple[int, int]] = []
    manifest.build(tmp_path, Provenance(), progress=lambda done, total: seen.append((done, total)))
    total = sum(1000 * number for number in range(20))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (total, total)


def test_a_comparison_names_every_difference(tmp_path: Path) -> None:
    def stored() -> dict[str, tuple[int, str | None]]:
        return {entry.path: (entry.size, entry.sha256) for entry in build(tmp_path).files}

    built = build(write(tmp_path))
    assert manifest.compare(built.files, stored()) == []
    (tmp_path / "a-b").write_bytes(b"9")
    (tmp_path / "a/b").write_bytes(b"longer")
    (tmp_path / "empty").unlink()
    (tmp_path / "stray").write_bytes(b"")
    (tmp_path / ".gitattributes").write_bytes(b"")
    found = {item.path: item.kind for item in manifest.compare(built.files, stored())}
    assert found == {"a-b": "sha256", "a/b": "size", "empty": "missing", "stray": "unexpected"}


@pytest.mark.parametrize("make", ["link", "linked folder", "fifo"])
def test_links_and_special_files_are_refused(tmp_path: Path, make: str) -> None:
    folder = write(tmp_path / "model", {"README.md": b"x"})
    if make == "link":
        (folder / "weights").symlink_to(tmp_path / "outside")
    elif make == "linked folder":
        (folder / "weights").symlink_to(tmp_path)
    else:
        os.mkfifo(folder / "weights")
    with pytest.raises(CheckpointError, match="weights"):
        build(folder)


def test_every_bad_name_is_listed_at_once(tmp_path: Path) -> None:
    folder = write(tmp_path, {"new\nline": b"", "back\\slash": b"", "Twin": b"", "twin": b""})
    with pytest.raises(CheckpointError) as caught:
        build(folder)
    assert all(name in caught.value.message for name in ("new\\nline", "back\\\\slash", "win"))


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"README.md": b"x"})
    with open(os.path.join(os.fsencode(tmp_path), b"\xff.bin"), "wb"):
        pass
    with pytest.raises(CheckpointError, match="unprintable"):
        build(tmp_path)


@pytest.mark.parametrize("name", ["../up", "/etc/passwd", "a//b", "a/./b", "", "publish.json", ".git/config", "a\x00b"])
def test_a_hostile_manifest_names_no_file_outside(tmp_path: Path, name: str) -> None:
    document = Manifest(files=(FileEntry(path=name, size=1, sha256="a" * 64),)).to_json()
    with pytest.raises((CheckpointError, jsonio.DocumentError)):
        manifest.parse(document, "publish.json")


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    document = build(write(tmp_path)).to_json()
    document["resources"][0]["size"] += 1
    with pytest.raises(CheckpointError, match="root digest"):
        manifest.parse(document, "publish.json")
    document["surprise"] = 1
    with pytest.raises(jsonio.DocumentError, match="surprise"):
        manifest.parse(document, "publish.json")


def test_no_folder_and_no_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a folder"):
        build(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="no files"):
        build(tmp_path)


def test_a_file_that_grows_while_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    path.write_bytes(b"x" * (manifest.BLOCK + 1))
    grown = threading.Event()

    def grow(done: int, total: int) -> None:
        if not grown.is_set():
            grown.set()
            with path.open("ab") as file:
                file.write(b"more")

    with pytest.raises(CheckpointError, match="changed while it was read"):
        manifest.build(tmp_path, Provenance(), progress=grow)
