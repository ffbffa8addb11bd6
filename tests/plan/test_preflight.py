"""What a machine lacks is said before work starts; the machine is played by monkeypatched readings."""

from __future__ import annotations

import importlib.util
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from publisher.errors import EngineError, PublisherError
from publisher.plan import preflight as preflight_module
from publisher.plan.decide import make_plan
from publisher.plan.preflight import preflight, refuse

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def plan(headers: Any, shapes: Any, recipe: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    memory = SimpleNamespace(total=64 << 30, available=32 << 30)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**13, 0, 10**13))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(preflight_module, "limit_of_group", lambda: None)
    return make_plan(recipe(), headers(shapes("llama")))


def test_a_machine_that_has_everything(plan: Any, tmp_path: Path) -> None:
    assert preflight(plan, tmp_path / "not" / "yet" / "there") == ()
    assert not (tmp_path / "not").exists()
    refuse(())


def test_a_full_disk(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 0, 5_000_000))
    (lack,) = preflight(plan, tmp_path)
    assert lack.kind == "disk"
    assert "5.00 MB free" in lack.message
    with pytest.raises(PublisherError, match="this plan needs") as caught:
        refuse((lack,))
    assert caught.value.exit_code == 2
    assert "--run-dir" in caught.value.hint


def test_a_place_that_is_a_file(plan: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (lack,) = preflight(plan, tmp_path / "file" / "run")
    assert "cannot be written" in lack.message


def test_little_memory(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=1 << 28, available=1 << 27))
    (lack,) = preflight(plan, tmp_path)
    assert (lack.kind, lack.fatal) == ("memory", True)
    with pytest.raises(EngineError):
        refuse((lack,))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=64 << 30, available=1 << 27))
    (lack,) = preflight(plan, tmp_path)
    assert not lack.fatal
    refuse((lack,))


def test_memory_is_counted_for_every_process(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=3 * plan.memory_needed, available=3 * plan.memory_needed)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    many = replace(plan, shards=10)
    assert preflight(many, tmp_path) == ()
    (lack,) = preflight(many, tmp_path, workers=4)
    assert (lack.kind, lack.fatal) == ("memory", True)
    assert "this plan with 4 processes needs" in lack.message
    assert "--workers" in lack.hint
    assert preflight(plan, tmp_path, workers=4) == (), "one shard is written by one process"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7")
    (lack,) = preflight(many, tmp_path, device="all")
    assert "8 processes" in lack.message
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia3", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(preflight_module, "DEVICES", tmp_path)
    (lack,) = preflight(many, tmp_path, device="all")
    assert "4 processes" in lack.message
    amd = tmp_path / "amd"
    (amd / "dri").mkdir(parents=True)
    for name in ("kfd", *(f"dri/renderD{number}" for number in range(128, 136)), "dri/card0"):
        (amd / name).touch()
    monkeypatch.setattr(preflight_module, "DEVICES", amd)
    (lack,) = preflight(many, tmp_path, device="all")
    assert "8 processes" in lack.message


def test_a_container_has_what_its_control_group_allows(
    plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight_module, "limit_of_group", lambda: 1 << 28)
    (lack,) = preflight(plan, tmp_path)
    assert lack.fatal
    assert "The machine has 268 MB" in lack.message
    monkeypatch.setattr(preflight_module, "limit_of_group", lambda: 32 << 30)
    monkeypatch.setattr(preflight_module, "available_host_bytes", lambda: 1 << 28)
    (lack,) = preflight(plan, tmp_path)
    assert not lack.fatal
    assert "268 MB of memory are free" in lack.message


def test_a_library_that_is_not_installed(plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else object())
    (lack,) = preflight(plan, tmp_path)
    assert "Engine native needs torch" in lack.message
    assert "fp4-publisher[native]" in lack.hint
    with pytest.raises(EngineError) as caught:
        refuse((lack,))
    assert caught.value.exit_code == 5


def test_texts_that_are_not_there(plan: Any, recipe: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    changed = recipe(
        engine="modelopt",
        calibration={"data": str(tmp_path / "nowhere.jsonl")},
        evaluation={"data": str(tmp_path / "empty.txt")},
        card=str(tmp_path),
    )
    lacks = preflight(replace(plan, recipe=changed), tmp_path)
    messages = " ".join(lack.message for lack in lacks)
    assert "`calibration.data`" in messages
    assert "nowhere.jsonl does not exist" in messages
    assert "empty.txt is empty" in messages
    assert "`card`" in messages
    assert "is not a file" in messages
    with pytest.raises(PublisherError, match=r"nowhere\.jsonl.*empty\.txt"):
        refuse(lacks)
