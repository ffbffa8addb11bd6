"""What an update changes, as it is shown before it is done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.hub.changes import FileChange, changes, sight
from publisher.hub.push import push
from publisher.hub.target import Publication, Settings
from publisher.units import format_bytes
from tests.hub.places import FILES, FolderPlace, HubPlace, publication

Place = FolderPlace | HubPlace
SHARD = "model-00002-of-00002.safetensors"


def edition(folder: Path, config: object = None, **more: bytes | None) -> Publication:
    files = FILES | ({} if config is None else {"config.json": json.dumps(config).encode()}) | more
    return publication(folder, {name: data for name, data in files.items() if data is not None})


def found(place: Place, tmp_path: Path, old: Publication, new: Publication) -> list[str]:
    push(place.target(), old)
    return list(changes(place.target(), new, place.target().settings()).lines())


def test_files_keys_card_and_settings(place: Place, tmp_path: Path) -> None:
    old = edition(tmp_path / "old", {"a": {"b": 1, "c": [1, 2]}, "gone": None, "same": True})
    more = {"NOTICE": b"new\n", SHARD: None, "README.md": FILES["README.md"].replace(b"# tiny", b"# Tiny") + b"more\n"}
    new = edition(tmp_path / "new", {"a": {"b": 2, "c": [1, 3]}, "same": True, "new": "x"}, **more)
    lines = found(place, tmp_path, old, new)
    assert "added NOTICE (4 B)" in lines
    assert f"removed {SHARD} (5.20 kB)" in lines
    assert any(line.startswith("changed README.md (") for line in lines)
    assert [line for line in lines if line.startswith("config ")] == [
        "config a.b: 1 to 2",
        "config a.c: [ 1, 2 ] to [ 1, 3 ]",
        "config gone: null to (absent)",
        'config new: (absent) to "x"',
    ]
    assert "the card changes" in lines
    assert [line for line in lines if line.startswith("card ")] == ["card - # tiny", "card + # Tiny", "card + more"]
    assert "settings: public, gate manual" in lines


def test_the_same_files_are_no_change(place: Place, tiny: Publication) -> None:
    push(place.target(), tiny)
    assert not changes(place.target(), tiny, place.target().settings())
    assert changes(place.target(), tiny, Settings(private=True, gate="off")), "settings count"


@pytest.mark.parametrize("text", [b"[1]", b"not json", b"", b'{"a": ' * 400 + b"1" + b"}" * 400, b"\xff\xfe"])
def test_a_config_of_any_kind_is_no_obstacle(place: Place, tmp_path: Path, text: bytes) -> None:
    old = publication(tmp_path / "old", FILES | {"config.json": text or b" "})
    lines = found(place, tmp_path, old, edition(tmp_path / "new", {"a": 1}))
    assert any(line.startswith("changed config.json") for line in lines)
    assert all(len(line) < 2000 for line in lines)


def test_long_lists_end_in_a_count(place: Place, tmp_path: Path) -> None:
    many = {f"extra/{number:04}.txt": b"x" for number in range(40)}
    old = edition(tmp_path / "old", {f"k{number}": 0 for number in range(200)})
    new = edition(tmp_path / "new", {f"k{number}": 1 for number in range(200)}, **many)
    lines = found(place, tmp_path, old, new)
    assert len(lines) <= 2 * 21 + 2
    assert any("more file(s)" in line for line in lines)
    assert "and 180 more key(s) of config.json" in lines


def test_a_sight_tells_states_apart_and_is_empty_where_nothing_differs(place, tiny: Publication) -> None:  # type: ignore[no-untyped-def]
    nothing = sight(None, tiny.manifest)
    assert len(nothing) == len(FILES) + 1
    push(place.target(), tiny, sleep=lambda seconds: None)
    assert sight(place.target(), tiny.manifest) == frozenset()
    place.put("notes.md", b"mine")
    place.remove("config.json")
    first = sight(place.target(), tiny.manifest)
    assert {line.split(" (")[0] for line in first} == {"notes.md is not in the manifest", "config.json is missing"}
    place.put("notes.md", b"not mine")
    second = sight(place.target(), tiny.manifest)
    assert len(second - first) == 1, "another content is another state"
    place.put("notes.md", b"mine")
    assert sight(place.target(), tiny.manifest) == first


def test_sizes_that_look_alike_are_told_in_bytes() -> None:
    assert str(FileChange(path="README.md", before=13_001, after=13_040)) == "changed README.md (13,001 B to 13,040 B)"
    assert (
        str(FileChange(path="a", before=13_000, after=2_000_000)) == f"changed a (13.0 kB to {format_bytes(2_000_000)})"
    )
    assert str(FileChange(path="a", before=13_000, after=13_000)) == "changed a (13.0 kB to 13.0 kB)"
