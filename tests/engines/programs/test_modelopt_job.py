"""The real modelopt, started as the product starts it, on a tiny Llama: what is there afterwards, what is refused.

Importing modelopt and transformers takes longer than any of these runs: one process does it, the programs are forked
from it, but for the one that is stopped.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("modelopt", reason="needs the extra [modelopt]")

import ml_dtypes
from safetensors import safe_open

from publisher import journal as journals
from publisher.engines import programs
from publisher.engines.modelopt import ModelOpt
from publisher.engines.run import run_job
from publisher.errors import EngineError, PublisherError
from publisher.journal import Journal
from tests import warm

pytestmark = [pytest.mark.engine, pytest.mark.slow]
ROOT = Path(programs.__file__).parents[3]


@pytest.fixture(autouse=True, scope="module")
def own_interpreter() -> Iterator[None]:
    os.environ.pop("PUBLISHER_MODELOPT_PYTHON", None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "executable", warm.python("modelopt"))
        yield


def quantize(job: Path) -> list[journals.Event]:
    """Run a job as the pipeline does; the journal's events."""
    journal = job.parent / "events.jsonl"
    journal.unlink(missing_ok=True)
    try:
        run_job(ModelOpt().command(job), Journal(journal))
    finally:
        events = journals.read(journal)[0]
    return events


def tensors(folder: Path) -> dict[str, tuple[str, list[int], str]]:
    """Name to dtype, shape and shard, as the safetensors library reads them."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(name)
                found[name] = (part.get_dtype(), part.get_shape(), path.name)
    return found


def raw(folder: Path, name: str) -> bytes:
    import torch

    with safe_open(folder / tensors(folder)[name][2], "pt") as file:
        return bytes(file.get_tensor(name).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


@pytest.fixture(scope="module")
def run(tiny_llama: Path, make_job: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """One W4A4 run with an FP8 KV cache; its folder and its events."""
    folder = tmp_path_factory.mktemp("run")
    job = make_job(tiny_llama, folder, kv_cache="fp8")
    value = json.loads(job.read_text())
    value["quantization_config"]["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    value["hf_quant_config"]["quantization"]["kv_cache_quant_algo"] = "FP8"
    job.write_text(json.dumps(value))
    return folder, quantize(job)


def test_exactly_the_planned_modules_are_quantized_and_calibrated(run: Any, mlp_modules: list[str]) -> None:
    found = tensors(run[0] / "checkpoint")
    assert sorted(n.removesuffix(".weight") for n, (dtype, *_) in found.items() if dtype == "U8") == sorted(mlp_modules)
    for module in mlp_modules:
        out, half = found[f"{module}.weight"][1]
        assert found[f"{module}.weight_scale"][:2] == ("F8_E4M3", [out, half // 8])
        assert found[f"{module}.weight_scale_2"][:2] == ("F32", [])
        assert found[f"{module}.input_scale"][:2] == ("F32", [])
    kv = sorted(name for name in found if name.endswith(("k_scale", "v_scale")))
    assert kv == [f"model.layers.{i}.self_attn.{p}_proj.{p}_scale" for i in (0, 1) for p in "kv"]


def test_everything_else_is_the_source_byte_for_byte(run: Any, tiny_llama: Path, mlp_modules: list[str]) -> None:
    source, result = tensors(tiny_llama), tensors(run[0] / "checkpoint")
    kept = [name for name in source if name.removesuffix(".weight") not in mlp_modules]
    assert len(kept) == len(source) - 6
    for name in kept:
        assert result[name][:2] == source[name][:2]
        assert raw(run[0] / "checkpoint", name) == raw(tiny_llama, name)
    scales = ("scale", "scale_2")
    assert {name for name in result if not name.endswith(scales)} == set(source)


def test_the_weights_come_back_through_the_table_of_another_library(run: Any, tiny_llama: Path) -> None:
    folder, name = run[0] / "checkpoint", "model.layers.1.mlp.down_proj.weight"
    shape = tensors(tiny_llama)[name][1]
    packed = np.frombuffer(raw(folder, name), dtype=np.uint8)
    codes = np.stack([packed & 15, packed >> 4], axis=-1).reshape(-1)
    values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32).reshape(-1, 16)
    scales = np.frombuffer(raw(folder, f"{name}_scale"), dtype=ml_dtypes.float8_e4m3fn).astype(np.float32)
    restored = values * scales[:, None] * np.frombuffer(raw(folder, f"{name}_scale_2"), dtype=np.float32)
    wanted = np.frombuffer(raw(tiny_llama, name), dtype=ml_dtypes.bfloat16).astype(np.float32).reshape(shape)
    error = np.linalg.norm(restored.reshape(shape) - wanted) / np.linalg.norm(wanted)
    assert 0.05 < error < 0.12
    record = json.loads((run[0] / "checkpoint.quantize.json").read_text())
    assert record["weight_error"]["modules"]["model.layers.1.mlp.down_proj"] == pytest.approx(error, rel=1e-4)


def test_the_shards_are_named_and_indexed_alike_and_readable_by_others(run: Any) -> None:
    folder = run[0] / "checkpoint"
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert shards == [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    assert len(shards) > 1
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: shard for name, (_, _, shard) in tensors(folder).items()}
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*")} == {0o644}


def test_side_files_are_the_sources_and_its_configuration_too(run: Any, tiny_llama: Path) -> None:
    folder = run[0] / "checkpoint"
    names = ["LICENSE", "modeling_extra.py", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    for name in [*names, "generation_config.json"]:
        assert (folder / name).read_bytes() == (tiny_llama / name).read_bytes(), name
    config = json.loads((folder / "config.json").read_text())
    job = json.loads((run[0] / "job.json").read_text())
    assert config.pop("quantization_config") == job["quantization_config"]
    assert config == json.loads((tiny_llama / "config.json").read_text())
    assert json.loads((folder / "hf_quant_config.json").read_text()) == job["hf_quant_config"]


def test_nothing_is_left_around(run: Any) -> None:
    left = {path.name for path in run[0].iterdir()}
    assert left <= {
        "calibration.txt",
        "job.json",
        "events.jsonl",
        "engine.log",
        "checkpoint",
        "checkpoint.quantize.json",
    }


def test_the_record_tells_what_was_done(run: Any, mlp_modules: list[str]) -> None:
    record = json.loads((run[0] / "checkpoint.quantize.json").read_text())
    assert record["versions"]["modelopt"].startswith("0.47")
    assert {"torch", "transformers", "publisher", "python"} <= set(record["versions"])
    assert record["device"]["kind"] == "cpu"
    assert record["seconds"] > 0
    assert record["peak_memory"]["host"] > 100_000_000
    assert record["calibration"]["samples"] == 16
    assert record["calibration"]["data"] == "calibration.txt"
    tokens = record["calibration"]["tokens"]
    assert tokens == 16 * 6
    assert set(record["activation_statistics"]) == set(mlp_modules)
    for module, seen in record["activation_statistics"].items():
        assert seen["tokens"] == tokens
        scale = np.frombuffer(raw(run[0] / "checkpoint", f"{module}.input_scale"), dtype=np.float32)[0]
        assert seen["input_amax"] == pytest.approx(float(scale) * 6 * 448)
    assert record["declaration_differences"] == []


def test_progress_was_told_in_tokens(run: Any) -> None:
    progress = [e.payload for e in run[1] if e.kind == "progress" and e.payload.get("step") == "calibrate"]
    assert progress[-1]["done"] == progress[-1]["total"] == 96
    assert all(payload["unit"] == "tokens" and payload["rate"] > 0 for payload in progress)
    assert run[1][-1].kind == "done"


def test_a_complete_output_is_left_alone(run: Any) -> None:
    stamp = (run[0] / "checkpoint" / "config.json").stat().st_mtime_ns
    events = quantize(run[0] / "job.json")
    assert [e.kind for e in events] == ["skip"]
    assert (run[0] / "checkpoint" / "config.json").stat().st_mtime_ns == stamp


def test_weights_only_needs_no_text_and_writes_no_input_scale(
    tiny_llama: Path, make_job: Any, tmp_path: Path, mlp_modules: list[str]
) -> None:
    spec = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
    config = {
        "config_groups": {"group_0": {"weights": spec, "targets": ["Linear"]}},
        "ignore": [],
        "quant_algo": "W4A16_NVFP4",
        "quant_method": "modelopt",
    }
    quantize(
        make_job(
            tiny_llama, tmp_path, activations="none", calibration=None, quantization_config=config, hf_quant_config=None
        )
    )
    found = tensors(tmp_path / "checkpoint")
    assert sum(dtype == "U8" for dtype, *_ in found.values()) == len(mlp_modules)
    assert not [name for name in found if name.endswith("input_scale")]
    assert not (tmp_path / "checkpoint" / "hf_quant_config.json").exists()
    record = json.loads((tmp_path / "checkpoint.quantize.json").read_text())
    assert record["activation_statistics"] is None
    assert "only the plan" not in str(record["declaration_differences"])


def start(job: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(ModelOpt().command(job), stdout=subprocess.PIPE, text=True, env=environment)


def stop_at(process: subprocess.Popen[str], sign: str) -> list[str]:
    """SIGTERM when a line holds `sign`; all lines."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sign in line and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            sign = "\0"
    process.wait(60)
    return lines


def test_a_stopped_run_ends_with_6_leaves_no_output_and_goes_on(
    tiny_llama: Path, make_job: Any, tmp_path: Path
) -> None:
    job = make_job(tiny_llama, tmp_path)
    process = start(job)
    lines = stop_at(process, '"step": "calibrate"')
    assert process.returncode == 6
    assert journals.parse(lines[-1]).kind == "cancelled"  # type: ignore[union-attr]
    assert not (tmp_path / "checkpoint").exists()
    quantize(job)
    assert (tmp_path / "checkpoint" / "config.json").exists()
    assert not (tmp_path / "staging").exists()


def test_a_finished_export_is_not_made_again(tiny_llama: Path, make_job: Any, tmp_path: Path) -> None:
    job = make_job(tiny_llama, tmp_path)
    value = json.loads(job.read_text())
    honest = value["quantization_config"]
    value["quantization_config"] = honest | {"kv_cache_scheme": {"num_bits": 8}}
    job.write_text(json.dumps(value))
    with pytest.raises(EngineError, match="the KV cache is 'fp8' in the plan, None in modelopt's export"):
        quantize(job)
    assert not (tmp_path / "checkpoint").exists()
    job.write_text(json.dumps(value | {"quantization_config": honest}))
    events = quantize(job)
    assert "exported before" in events[0].payload["message"]
    assert not [e for e in events if e.payload.get("step") == "calibrate"]
    assert (tmp_path / "checkpoint" / "config.json").exists()


def test_experts_are_found_under_the_names_of_the_checkpoint(make_job: Any, tmp_path: Path) -> None:
    """transformers 5 holds Mixtral's experts as one tensor under another name; the files keep w1, w2, w3."""
    import torch
    from transformers import MixtralConfig, MixtralForCausalLM

    source = tmp_path / "source"
    torch.manual_seed(3)
    settings = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = MixtralConfig(**settings, num_key_value_heads=2, vocab_size=32, num_local_experts=4)
    MixtralForCausalLM(config).to(torch.bfloat16).save_pretrained(source)
    stored = tensors(source)
    experts = sorted(name.removesuffix(".weight") for name in stored if ".experts." in name)
    assert len(experts) == 12
    options = {"activations": "none", "calibration": None, "quantize": experts, "groups": {}}
    spec = {"num_bits": 4, "type": "float", "group_size": 16}
    declared = {"config_groups": {"g": {"weights": spec}}, "quant_algo": "W4A16_NVFP4", "quant_method": "modelopt"}
    quantize(make_job(source, tmp_path / "run", **options, quantization_config=declared))
    found = tensors(tmp_path / "run" / "checkpoint")
    assert sorted(n.removesuffix(".weight") for n, (dtype, *_) in found.items() if dtype == "U8") == experts
    for expert in range(4):  # gate and up are one layer to the engines that serve it
        parts = [f"model.layers.0.block_sparse_moe.experts.{expert}.{p}.weight_scale_2" for p in ("w1", "w3")]
        assert len({raw(tmp_path / "run" / "checkpoint", part) for part in parts}) == 1
    options["quantize"] = experts[:-1]
    part = make_job(source, tmp_path / "part", **options, quantization_config=declared)
    with pytest.raises(PublisherError, match=r"11 of 12 expert projections .* all or none"):
        quantize(part)


# --- refused -------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(make_llama: Any, tmp_path: Path) -> Path:
    make_llama(tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("model.layers.1.mlp.down_proj.weight", 0.0, "model.layers.1.mlp.down_proj.weight is all zero"),
        ("model.layers.0.mlp.up_proj.weight", float("nan"), "model.layers.0.mlp.up_proj.weight holds NaN"),
        ("model.layers.0.mlp.up_proj.weight", float("inf"), "model.layers.0.mlp.up_proj.weight holds NaN or infinite"),
    ],
)
def test_weights_that_modelopt_would_ruin_are_refused_by_name(
    copy: Path, make_job: Any, edit: Any, tmp_path: Path, name: str, value: float, words: str
) -> None:
    edit(copy, lambda found: found[name].fill_(value))
    with pytest.raises(PublisherError, match=words) as caught:
        quantize(make_job(copy, tmp_path / "run"))
    assert caught.value.exit_code == 2
    assert "recipe" in caught.value.hint
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_zero_weight_whose_fused_partner_is_not_zero_is_quantized(
    copy: Path, make_job: Any, edit: Any, tmp_path: Path
) -> None:
    name = "model.layers.0.mlp.gate_proj.weight"
    edit(copy, lambda found: found[name].zero_())
    quantize(make_job(copy, tmp_path / "run"))
    folder = tmp_path / "run" / "checkpoint"
    scale = raw(folder, f"{name}_scale_2")
    assert scale == raw(folder, "model.layers.0.mlp.up_proj.weight_scale_2")
    assert np.frombuffer(scale, dtype=np.float32)[0] > 0
    assert set(raw(folder, name)) <= {0x00}


def test_rows_that_are_no_whole_blocks_are_refused_before_the_model_is_loaded(
    make_llama: Any, make_job: Any, tmp_path: Path
) -> None:
    make_llama(tmp_path / "source", intermediate_size=120)
    with pytest.raises(
        PublisherError, match=r"down_proj\.weight, BF16 of shape \[64, 120\], is no matrix of blocks of 16"
    ):
        quantize(make_job(tmp_path / "source", tmp_path / "run"))


def test_a_job_it_cannot_do_names_every_reason(tiny_llama: Path, make_job: Any, tmp_path: Path) -> None:
    with pytest.raises(PublisherError) as caught:
        quantize(make_job(tiny_llama, tmp_path, format="mxfp4", layout="quark", mode="even", engine="native"))
    for words in ("'native'", "format 'mxfp4'", "layout 'quark'", "mode 'even'"):
        assert words in caught.value.message


def test_a_cut_shard_and_a_missing_module_are_named(copy: Path, make_job: Any, tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match=r"layers\.9\.mlp\.up_proj has no weight in the source"):
        quantize(make_job(copy, tmp_path / "one", quantize=["model.layers.9.mlp.up_proj"], groups={}))
    shard = copy / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(PublisherError, match=r"model\.safetensors is truncated"):
        quantize(make_job(copy, tmp_path / "two"))


def test_code_of_a_checkpoint_is_never_run(copy: Path, make_job: Any, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_extra.Extra", "AutoConfig": "modeling_extra.Config"}
    config["model_type"] = "something_of_its_own"
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(PublisherError, match="cannot load") as caught:
        quantize(make_job(copy, tmp_path / "run"))
    assert "code of a checkpoint must not run" not in (tmp_path / "run" / "engine.log").read_text()
    assert "native" in caught.value.hint


def test_an_environment_without_modelopt_says_what_to_install(
    tiny_llama: Path, make_job: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.metadata as m\nreal = m.version\n"
        "def version(name):\n"
        "    if name == 'nvidia-modelopt': raise m.PackageNotFoundError(name)\n"
        "    return real(name)\n"
        "m.version = version\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    with pytest.raises(EngineError, match="needs modelopt, which is not installed") as caught:
        quantize(make_job(tiny_llama, tmp_path / "run"))
    assert "pip install 'fp4-publisher[modelopt]'" in caught.value.hint


def test_a_job_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    with pytest.raises(PublisherError, match=r"job\.json"):
        quantize(tmp_path / "job.json")
    done = subprocess.run(
        [sys.executable, "-m", "publisher.engines.programs.modelopt_job"], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 2
    assert b"Usage" in done.stdout
