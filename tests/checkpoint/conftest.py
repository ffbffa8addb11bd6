"""A Hub on this machine with one small sharded repository, a cache of its own, and waits that are written down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub.utils._http as client
import numpy as np
import pytest
from safetensors.numpy import save

from publisher.checkpoint.cache import VARIABLE
from publisher.checkpoint.pace import Pace
from tests.hub.loopback import LoopbackHub

SHARDS = [f"model-{n:05d}-of-00005.safetensors" for n in range(1, 6)]


def sharded() -> dict[str, bytes]:
    """Five shards of 16 KiB and their index."""
    names = {shard: f"model.layers.{n}.weight" for n, shard in enumerate(SHARDS)}
    files = {s: save({name: np.full((64, 64), n, np.float32)}) for n, (s, name) in enumerate(names.items())}
    index = {"metadata": {"total_size": 5 << 14}, "weight_map": {name: shard for shard, name in names.items()}}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    return files | {"config.json": b'{"model_type": "llama"}'}


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been waited, in seconds; nobody does."""
    found: list[float] = []
    monkeypatch.setattr(Pace, "sleep", lambda self, seconds: found.append(seconds))
    monkeypatch.setattr(client, "time", SimpleNamespace(sleep=lambda seconds: None))
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote(waits: list[float], cache: Path) -> Iterator[LoopbackHub]:
    """The Hub with `org/model`."""
    with LoopbackHub() as server:
        server.seed_repo("org/model", sharded())
        yield server
    client.close_session()
