"""A push of 119 shards, as Kimi K2 is published: one public transition, in the order that the log shows.

The shards have real headers and names and are holes otherwise, so they cost no disk; every byte of them is hashed,
sent and read back all the same.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from publisher.errors import HubError
from publisher.hub.push import push
from publisher.hub.target import Publication
from tests.hub.conftest import hub_place
from tests.hub.places import CARD, REPO, HubPlace, publication
from tests.hub.wire import Request

pytestmark = pytest.mark.slow
SHARDS, SIZE, EXPERTS = 119, 1 << 20, 6
INDEX = "model.safetensors.index.json"
LOADABLE = {"config.json", INDEX}


def shard(path: Path, number: int) -> dict[str, str]:
    """One shard as a file with a hole; its tensors' names with the shard's, as the index has them."""
    layer, tensors, at = 1 + number % 60, {}, 0
    for expert in range(EXPERTS):
        name = f"language_model.model.layers.{layer}.mlp.experts.{number * EXPERTS + expert}.down_proj"
        for suffix, dtype, shape, size in (
            ("weight", "U8", [256, 512], 1 << 17),
            ("weight_scale", "F8_E4M3", [256, 64], 1 << 14),
            ("weight_scale_2", "F32", [], 4),
        ):
            tensors[f"{name}.{suffix}"] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            at += size
    header = json.dumps({"__metadata__": {"format": "pt"}} | tensors).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + at)
    return dict.fromkeys(tensors, path.name)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Publication:
    folder = tmp_path_factory.mktemp("large")
    names = [f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors" for number in range(SHARDS)]
    weights: dict[str, str] = {}
    for number, name in enumerate(names):
        weights |= shard(folder / name, number)
    assert sum((folder / name).stat().st_size for name in names) > SHARDS * (SIZE - (1 << 18))
    assert sum((folder / name).stat().st_blocks * 512 for name in names) < SHARDS * SIZE // 20
    texts = {
        "config.json": {"architectures": ["KimiK25ForConditionalGeneration"], "model_type": "kimi_k25"},
        INDEX: {"metadata": {"total_size": SHARDS * SIZE}, "weight_map": weights},
    }
    rest = {name: json.dumps(value).encode() for name, value in texts.items()}
    return publication(folder, rest | {"LICENSE": b"Modified MIT License\n", "README.md": CARD})


@pytest.fixture(params=["lfs", "xet"])
def place(request: pytest.FixtureRequest) -> Iterator[HubPlace]:
    yield from hub_place(request, request.param)


def quiet(seconds: float) -> None:
    """Do not wait."""


def positions(place: HubPlace, method: str, path: str) -> list[int]:
    found = [n for n, item in enumerate(place.hub.log) if item.method == method and re.search(path, item.path)]
    assert found, f"no {method} {path} in the log"
    return found


def committed(request: Request) -> set[str]:
    return {line["value"]["path"] for line in request.lines()[1:]}


def loadable(paths: set[str]) -> bool:
    """Whether a loader finds what it needs: configuration, index and every shard."""
    return paths >= LOADABLE and sum(path.endswith(".safetensors") for path in paths) == SHARDS


def test_a_large_push_is_one_public_transition_in_order(place: HubPlace, large: Publication) -> None:
    record = push(place.target(), large, sleep=quiet)
    assert record.verified
    assert record.files == SHARDS + 5
    assert place.states() == [(True, "off"), (False, "manual")], "one transition, to gated"
    assert place.settings_writes() == 1
    assert not place.was_open()

    commits = positions(place, "POST", "/commit/")
    first, last = committed(place.hub.log[commits[0]]), committed(place.hub.log[commits[-1]])
    assert len(commits) == 2
    assert len(first) == SHARDS
    assert all(path.endswith(".safetensors") for path in first)
    assert last == {"config.json", INDEX, "LICENSE", "README.md", "publish.json"}

    send = {"lfs": ("PUT", "/_lfs/"), "xet": ("POST", "/v1/xorbs/")}[place.transport]
    proof = [n for n in positions(place, "HEAD", r"/resolve/.*\.safetensors") if n < commits[-1]]
    shown = positions(place, "PUT", "/settings$")[0]
    assert max(positions(place, *send)) < commits[0] < min(proof), "weights, then the proof of them"
    assert max(proof) < commits[-1] < shown, "then what makes them loadable, then the settings"
    assert len({place.hub.log[n].path for n in proof}) == SHARDS, "every shard was proven"
    assert max(positions(place, "HEAD", r"/resolve/.*/publish\.json")) < shown
    assert min(positions(place, "POST", "/tag/")) > shown

    for number, item in enumerate(place.hub.log):
        if REPO in item.trees:
            private, paths = item.state[REPO][0], set(item.trees[REPO])
            assert loadable(paths) == (number >= commits[-1])
            assert private == (number < shown)


def test_a_large_push_that_was_cut_goes_on_with_what_is_left(place: HubPlace, large: Publication) -> None:
    method, path = {"lfs": ("PUT", "/_lfs/"), "xet": ("POST", "/shards$")}[place.transport]
    place.hub.fail(method, path, after={"lfs": 60, "xet": 5}[place.transport], times=100_000, drop=True)
    with pytest.raises(HubError, match="would not transfer") as caught:
        push(place.target(), large, sleep=quiet)
    assert caught.value.exit_code == 4
    assert place.settings() == (True, "off")
    place.hub.faults.clear()
    assert push(place.target(), large, sleep=quiet).verified
    arrived = Counter(item.path for item in place.hub.requests("PUT", "/_lfs/") if item.status == 200)
    arrived += Counter(item.path for item in place.hub.requests("POST", "/v1/xorbs/") if item.status == 200)
    assert set(arrived.values()) == {1}, "nothing was sent twice"
    assert place.states() == [(True, "off"), (False, "manual")]
