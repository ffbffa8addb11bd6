"""Which models are loaded whole, and what is refused before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from publisher.errors import CheckpointError, EngineError
from publisher.native.resident import load, load_tokenizer
from publisher.native.source import SourceTensors
from tests.builders.tiny import llama

SLICE = Path(__file__).parents[1] / "released/sources/slice"


def test_a_checkpoint_is_computed_in_its_own_dtype() -> None:
    model = load(SLICE, SourceTensors(SLICE), device="cpu")
    assert model.dtype is torch.bfloat16
    assert not model.training


def test_a_parameter_without_a_value_is_refused(tmp_path: Path) -> None:
    tiny = llama()
    name = next(name for name in tiny.tensors if name.endswith("up_proj.weight"))
    del tiny.tensors[name]
    tiny.write(tmp_path)
    with pytest.raises(CheckpointError, match="gives no value to 1 parameters"):
        load(tmp_path, SourceTensors(tmp_path), device="cpu")


def test_code_of_a_checkpoint_is_not_run_unasked(tmp_path: Path) -> None:
    llama().write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, SourceTensors(tmp_path), device="cpu")
    assert "--trust-remote-code" in caught.value.hint
    assert not (tmp_path / "ran").exists()


def test_code_of_a_checkpoint_runs_when_trusted(tmp_path: Path) -> None:
    llama().write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    auto = {"AutoConfig": "strange.Config", "AutoModelForCausalLM": "strange.Model"}
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "strange_llama", "auto_map": auto}))
    (tmp_path / "strange.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class Config(LlamaConfig):\n    model_type = 'strange_llama'\n"
        "class Model(LlamaForCausalLM):\n    config_class = Config\n"
    )
    model = load(tmp_path, SourceTensors(tmp_path), device="cpu", trust=True)
    assert type(model).__module__.endswith("strange")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(EngineError, match="cuda:99 is not there"):
        load(SLICE, SourceTensors(SLICE), device="cuda:99")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    llama().write(tmp_path)
    with pytest.raises(CheckpointError, match="cannot load"):
        load_tokenizer(tmp_path)
