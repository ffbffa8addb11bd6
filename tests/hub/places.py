"""The two targets behind one handle, so that one contract suite drives both."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from publisher import manifest
from publisher.hub.folder import FolderTarget
from publisher.hub.huggingface import HuggingFaceTarget
from publisher.hub.target import Gate, Publication
from publisher.manifest import Provenance
from tests.hub.loopback import LoopbackHub, Stored
from tests.hub.repositories import is_lfs

REPO = "org/tiny-nvfp4"
_BOTH = [
    ("GET", "whoami"),
    ("POST", "validate-yaml"),
    ("POST", "repos/create"),
    ("GET", "/tree/"),
    ("POST", "/preupload/"),
    ("POST", "/commit/"),
    ("HEAD", "/resolve/"),
    ("GET", "/api/models/org/tiny-nvfp4$"),
    ("PUT", "/settings"),
]
REQUESTS = {  # every kind of request of a push, by transport
    "lfs": [*_BOTH, ("GET", "/resolve/"), ("POST", "/objects/batch"), ("PUT", "/_lfs/"), ("POST", "/_lfs/verify")],
    "xet": [
        *_BOTH,
        ("GET", "/xet-write-token/"),
        ("GET", "/xet-read-token/"),
        ("POST", "/v1/xorbs/"),
        ("POST", "/shards$"),
        ("GET", "/reconstructions/"),
        ("GET", "/_xet/"),
    ],
}
CARD = b"---\nlicense: apache-2.0\nbase_model: org/tiny\nbase_model_relation: quantized\n---\n# tiny\n"
FILES = {
    "model-00001-of-00002.safetensors": b"first shard " * 400,
    "model-00002-of-00002.safetensors": b"second shard " * 400,
    "model.safetensors.index.json": b'{"weight_map": {}}\n',
    "config.json": b"{}\n",
    "tokenizer/vocab.txt": b"a\nb\n",
    "LICENSE": b"Apache License\n",
    "README.md": CARD,
}


def publication(
    folder: Path, files: dict[str, bytes] | None = None, *, gate: Gate = "manual", private: bool = False
) -> Publication:
    """A finished checkpoint with its manifest, as the pipeline leaves it."""
    for name, data in (FILES if files is None else files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    built = manifest.build(folder, Provenance(source_repo="org/tiny", source_commit="c" * 40))
    (folder / manifest.NAME).write_bytes(built.encoded())
    return Publication(folder=folder, manifest=built, gate=gate, private=private)


class FolderPlace:
    """A folder and what a test wants to know of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.base = root / REPO

    def target(self) -> FolderTarget:
        return FolderTarget(self.root, REPO)

    def clear(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)

    def settings(self) -> tuple[bool, str]:
        found = json.loads((self.base / "settings.json").read_text())
        return found["visibility"] == "private", found["gate"]

    def files(self) -> dict[str, bytes]:
        tree = self.base / "tree"
        return {p.relative_to(tree).as_posix(): p.read_bytes() for p in tree.rglob("*") if p.is_file()}

    def put(self, name: str, data: bytes) -> None:
        (self.base / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (self.base / "tree" / name).write_bytes(data)

    def remove(self, name: str) -> None:
        (self.base / "tree" / name).unlink()

    def corrupt(self, name: str) -> None:
        data = bytearray(self.files()[name])
        data[0] ^= 1
        self.put(name, bytes(data))

    def show(self, gate: str) -> None:
        (self.base / "settings.json").write_text(json.dumps({"visibility": "public", "gate": gate}))

    def was_open(self) -> bool:
        return any((line["visibility"], line["gate"]) == ("public", "off") for line in self._log())

    def states(self) -> list[tuple[bool, str]]:
        """(private, gate) as they followed each other."""
        return [state for state, _ in groupby((line["visibility"] == "private", line["gate"]) for line in self._log())]

    def shown_in_parts(self, *whole: dict[str, bytes]) -> list[Any]:
        """What anybody could see on the way from one of these trees to another; the swap of whole trees is no such."""
        steps = [line for line in self._log() if line["action"] in ("upload", "delete")]
        return [line for line in steps if line["visibility"] == "public" and line["revision"] == "main"]

    def writes(self) -> int:
        return len(self._log())

    def uploaded(self) -> list[str]:
        return [name for line in self._log() if line["action"] == "upload" for name in line["files"]]

    def settings_writes(self) -> int:
        return sum(line["action"] == "settings" for line in self._log())

    def _log(self) -> list[dict[str, Any]]:
        path = self.base / "log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class HubPlace:
    """A repository on the loopback Hub and what a test wants to know of it; `transport` is lfs or xet."""

    def __init__(self, hub: LoopbackHub, transport: str = "lfs") -> None:
        self.hub = hub
        self.transport = transport
        self.waits: list[float] = []

    def target(self, token: str | None = None, **more: Any) -> HuggingFaceTarget:
        return HuggingFaceTarget(
            REPO, endpoint=self.hub.endpoint, token=token or self.hub.token, sleep=self.waits.append, **more
        )

    def clear(self) -> None:
        self.hub.repos.clear()
        self.hub.blobs.clear()
        self.hub.log.clear()

    def settings(self) -> tuple[bool, str]:
        repo = self.hub.repos[REPO]
        return repo.private, str(repo.gated or "off")

    def files(self) -> dict[str, bytes]:
        stored = self.hub.repos[REPO].files
        found = {path: self.hub.blobs[item.oid][:] if item.lfs else item.data for path, item in stored.items()}
        return {path: data for path, data in found.items() if path != ".gitattributes"}

    def put(self, name: str, data: bytes) -> None:
        repo = self.hub.repos[REPO]
        repo.add("by hand", repo.files | {name: Stored.of(data, False)})

    def remove(self, name: str) -> None:
        repo = self.hub.repos[REPO]
        repo.add("by hand", {path: item for path, item in repo.files.items() if path != name})

    def corrupt(self, name: str) -> None:
        item = self.hub.repos[REPO].files[name]
        if item.lfs:
            self.hub.corrupt(item.oid)
            return
        data = bytearray(item.data)
        data[0] ^= 1
        item.data = bytes(data)

    def show(self, gate: str) -> None:
        repo = self.hub.repos[REPO]
        repo.private, repo.gated = False, False if gate == "off" else gate

    def was_open(self) -> bool:
        return self.hub.was_open(REPO)

    def states(self) -> list[tuple[bool, str]]:
        """(private, gate) as they followed each other."""
        found = (item.state[REPO] for item in self.hub.log if REPO in item.state)
        return [(private, str(gate or "off")) for (private, gate), _ in groupby(found)]

    def shown_in_parts(self, *whole: dict[str, bytes]) -> list[Any]:
        """Trees that anybody could see and that are none of these; an empty repository shows nothing."""
        known = [{path: Stored.of(data, is_lfs(path, len(data))).oid for path, data in tree.items()} for tree in whole]
        seen = [{path: oid for path, oid in tree.items() if path != ".gitattributes"} for tree in self.hub.shown(REPO)]
        return [tree for tree in seen if tree and tree not in known]

    def writes(self) -> int:
        return sum(item.method in ("PUT", "DELETE") for item in self.hub.log) + len(
            self.hub.requests("POST", r"/commit/|/repos/create")
        )

    def transports(self) -> set[str]:
        """Which ways large contents went."""
        ways = {"lfs": r"/_lfs/|/objects/batch", "xet": r"/_xet/|/cas/|/xet-"}
        return {way for way, path in ways.items() if any(re.search(path, item.path) for item in self.hub.log)}

    def uploaded(self) -> list[str]:
        lines = [line for item in self.hub.requests("POST", "/commit/") for line in item.lines()[1:]]
        return [line["value"]["path"] for line in lines if line["key"] in ("file", "lfsFile")]

    def settings_writes(self) -> int:
        return len(self.hub.requests("PUT", "/settings$"))


class Broken:
    """A target of which one call fails, at whatever revision, before or after it did its work."""

    def __init__(self, target: Any, method: str, call: int, error: Exception, *, after: bool) -> None:
        self._target, self._method, self._error, self._after = target, method, error, after
        self._count = {"left": call, "broke": 0}

    @property
    def broke(self) -> bool:
        return bool(self._count["broke"])

    def at(self, revision: str) -> Broken:
        other = copy.copy(self)
        other._target = self._target.at(revision)
        return other

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = getattr(self._target, name)
        return self._breaking(found) if name == self._method else found

    def _breaking(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._count["left"] -= 1
            if self._count["left"]:
                return method(*arguments, **named)
            self._count["broke"] = 1
            if self._after:
                method(*arguments, **named)
            raise self._error

        return call
