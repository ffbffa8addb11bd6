"""Who takes part: one process unless there is much to do and much to do it with, and never more than shards."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from publisher.errors import EngineError
from publisher.native import devices

GB = 1 << 30


def fake(gpus: int) -> SimpleNamespace:
    cuda = SimpleNamespace(is_available=lambda: gpus > 0, device_count=lambda: gpus)
    return SimpleNamespace(cuda=cuda, device=torch.device, __version__="0")


def test_a_number_that_is_asked_for_is_taken_up_to_the_shards() -> None:
    assert devices.crew(fake(0), "cpu", 3, shards=10, size=1) == ("cpu",) * 3
    assert devices.crew(fake(0), "cpu", 3, shards=2, size=1) == ("cpu",) * 2
    assert devices.crew(fake(0), "auto", 3, shards=0, size=0) == ("cpu",)


def test_all_is_one_for_every_gpu_and_more_go_round() -> None:
    assert devices.crew(fake(2), "all", None, shards=9, size=1) == ("cuda:0", "cuda:1")
    assert devices.crew(fake(2), "all", 3, shards=9, size=1) == ("cuda:0", "cuda:1", "cuda:0")
    with pytest.raises(EngineError, match="sees none"):
        devices.crew(fake(0), "all", None, shards=9, size=1)


def test_by_default_cores_work_and_memory_decide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 64)
    monkeypatch.setattr(devices, "available_host_bytes", lambda: 1000 * GB)
    assert len(devices.crew(fake(0), "auto", None, shards=500, size=2000 * GB)) == 8
    assert len(devices.crew(fake(0), "auto", None, shards=500, size=1 * GB)) == 1
    monkeypatch.setattr(devices, "available_host_bytes", lambda: 7 * GB)
    assert len(devices.crew(fake(0), "cpu", None, shards=500, size=2000 * GB)) == 2
    assert len(devices.crew(fake(0), "cpu", None, shards=500, size=2000 * GB, largest=2 * GB)) == 1
    monkeypatch.setattr(devices, "cores", lambda: 2)
    assert len(devices.crew(fake(0), "cpu", None, shards=500, size=2000 * GB)) == 1
    assert devices.crew(fake(1), "auto", None, shards=500, size=2000 * GB) == ("cuda",)


def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(EngineError, match="cuda:1 is not there"):
        devices.device(fake(1), "cuda:1")
    assert str(devices.device(fake(1), "cuda:0")) == "cuda:0"
    assert "threads" in devices.device_name(torch, torch.device("cpu"))
    assert devices.cores() >= 1
